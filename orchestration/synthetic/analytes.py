"""What is measured: each concept's healthy level, how it varies, and the limits of what a living patient shows.

Canonical units are those of a US hospital (mg/dL, mmol/L for electrolytes, degrees Celsius, mm[Hg]). `log` concepts vary
in ratio: their `between` and `within` are standard deviations of the natural logarithm.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Analyte:
    """One concept; `between` and `within` are standard deviations between persons and from one reading to the next."""

    concept: str
    centre: float
    between: float
    within: float
    low: float
    high: float
    log: bool = False


def _log(concept: str, centre: float, between: float, within: float, low: float, high: float) -> Analyte:
    return Analyte(concept, centre, between, within, low, high, log=True)


ANALYTES = [
    Analyte("heart_rate", 80, 9, 4.5, 32, 185),
    Analyte("respiratory_rate", 17, 2, 2, 7, 44),
    Analyte("spo2", 96.3, 1.1, 1.0, 72, 100),
    Analyte("temperature", 36.8, 0.2, 0.25, 33.6, 40.9),
    Analyte("sbp", 128, 13, 9, 62, 218),
    Analyte("dbp", 72, 8, 6, 31, 122),
    Analyte("pain", 2.2, 1.6, 1.4, 0, 10),
    Analyte("weight", 82, 18, 0.7, 38, 190),
    Analyte("height", 168, 10, 0.0, 140, 203),
    _log("urine_output", 250, 0.25, 0.3, 5, 1500),
    Analyte("fio2", 42, 10, 6, 21, 100),
    Analyte("peep", 7, 2, 1, 3, 18),
    Analyte("tidal_volume", 440, 55, 25, 250, 700),
    _log("glucose", 112, 0.15, 0.15, 38, 680),
    _log("creatinine", 0.88, 0.22, 0.10, 0.3, 11),
    _log("urea_nitrogen", 16, 0.28, 0.15, 3, 140),
    Analyte("sodium", 139, 1.9, 1.7, 114, 163),
    Analyte("potassium", 4.1, 0.28, 0.3, 2.3, 7.1),
    Analyte("chloride", 103, 2.2, 1.8, 80, 130),
    Analyte("bicarbonate", 24.5, 1.8, 1.6, 6, 42),
    Analyte("calcium", 9.1, 0.3, 0.25, 6, 14),
    Analyte("magnesium", 2.0, 0.16, 0.14, 0.9, 3.9),
    Analyte("phosphate", 3.4, 0.45, 0.4, 0.9, 8.5),
    Analyte("albumin", 3.9, 0.35, 0.15, 1.4, 5.3),
    _log("bilirubin_total", 0.6, 0.35, 0.16, 0.1, 30),
    _log("bilirubin_direct", 0.2, 0.35, 0.2, 0.05, 18),
    _log("alt", 24, 0.4, 0.16, 5, 4500),
    _log("ast", 26, 0.35, 0.16, 6, 5000),
    _log("alkaline_phosphatase", 82, 0.25, 0.1, 22, 900),
    Analyte("hemoglobin", 13.2, 1.3, 0.5, 4.6, 18.9),
    _log("wbc", 8.0, 0.24, 0.14, 0.3, 60),
    _log("platelets", 235, 0.25, 0.11, 8, 900),
    Analyte("mcv", 90, 4.5, 0.6, 62, 118),
    Analyte("neutrophils", 62, 6, 4, 10, 96),
    Analyte("lymphocytes", 25, 5, 3, 1, 70),
    _log("bands", 2.0, 0.4, 0.3, 0.2, 35),
    _log("inr", 1.08, 0.06, 0.05, 0.85, 8),
    _log("ptt", 30, 0.1, 0.08, 20, 145),
    Analyte("fibrinogen", 330, 70, 30, 70, 850),
    _log("lactate", 1.3, 0.22, 0.18, 0.4, 18),
    Analyte("ph", 7.40, 0.02, 0.02, 6.92, 7.62),
    Analyte("paco2", 40, 3, 2.5, 18, 95),
    Analyte("pao2", 88, 12, 9, 42, 320),
    Analyte("base_excess", 0.4, 1.4, 1.2, -22, 16),
    _log("troponin_t", 0.012, 0.5, 0.15, 0.003, 9),
    _log("ck", 95, 0.5, 0.2, 15, 20000),
    _log("ck_mb", 2.6, 0.4, 0.2, 0.4, 300),
    _log("crp", 6, 0.7, 0.2, 0.4, 420),
    Analyte("calcium_ionized", 1.18, 0.05, 0.04, 0.7, 1.7),
    Analyte("methemoglobin", 0.8, 0.2, 0.15, 0.1, 4),
    Analyte(
        "clouding", 0.15, 0.1, 0.2, 0, 5
    ),  # of consciousness; never charted itself, the coma scale follows from it
]
# Follow from other concepts of the same moment (see `physiology.observe`).
DERIVED = [
    "hematocrit",
    "rbc",
    "mch",
    "mchc",
    "anion_gap",
    "pt",
    "mbp",
    "sbp_arterial",
    "dbp_arterial",
    "mbp_arterial",
    "gcs_eye",
    "gcs_verbal",
    "gcs_motor",
]
CONCEPTS = [a.concept for a in ANALYTES]
INDEX = {concept: i for i, concept in enumerate(CONCEPTS)}
INTEGER = {"gcs_eye", "gcs_verbal", "gcs_motor", "pain"}  # scores: whole numbers by definition

LOG = np.array([a.log for a in ANALYTES])
CENTRE = np.array([np.log(a.centre) if a.log else a.centre for a in ANALYTES])
BETWEEN = np.array([a.between for a in ANALYTES])
WITHIN = np.array([a.within for a in ANALYTES])
LOW = np.array([a.low for a in ANALYTES])
HIGH = np.array([a.high for a in ANALYTES])

# Which concepts a laboratory or a nurse takes together.
PANELS = {
    "basic": ["sodium", "potassium", "creatinine", "urea_nitrogen", "glucose", "bicarbonate"],
    "basic_more": ["chloride", "calcium", "anion_gap"],
    "count": ["hemoglobin", "wbc", "platelets"],
    "count_more": ["hematocrit", "rbc", "mcv", "mch", "mchc"],
    "differential": ["neutrophils", "lymphocytes", "bands"],
    "mineral": ["magnesium", "phosphate"],
    "liver": ["alt", "ast", "alkaline_phosphatase", "bilirubin_total", "albumin"],
    "liver_more": ["bilirubin_direct"],
    "coagulation": ["inr", "ptt"],
    "coagulation_more": ["pt", "fibrinogen"],
    "gas": ["ph", "paco2", "pao2", "lactate", "base_excess"],
    "gas_more": ["calcium_ionized", "methemoglobin"],
    "lactate": ["lactate"],
    "cardiac": ["troponin_t", "ck_mb"],
    "muscle": ["ck"],
    "inflammation": ["crp"],
    "fingerstick": ["glucose"],
    "circulation": ["heart_rate", "sbp", "dbp"],
    "bedside_circulation": ["sbp", "dbp", "mbp"],
    "arterial_line": ["sbp_arterial", "dbp_arterial", "mbp_arterial"],
    "breathing": ["respiratory_rate", "spo2"],
    "warmth": ["temperature"],
    "pressure": ["sbp", "dbp"],
    "coma": ["gcs_eye", "gcs_verbal", "gcs_motor"],
    "pain": ["pain"],
    "body": ["weight", "height"],
    "ventilator": ["fio2", "peep", "tidal_volume"],
    "output": ["urine_output"],
    "potassium": ["potassium"],
    "hemoglobin": ["hemoglobin"],
}
LABORATORY = {
    concept
    for panel in (
        "basic", "basic_more", "count", "count_more", "differential", "mineral", "liver", "liver_more", "coagulation",
        "coagulation_more", "gas", "gas_more", "cardiac", "muscle", "inflammation",
    )
    for concept in PANELS[panel]
}  # fmt: skip

# Reference ranges that both laboratories print, in canonical units.
REFERENCE = {
    "glucose": (70, 105), "creatinine": (0.5, 1.2), "urea_nitrogen": (6, 20), "sodium": (135, 145), "potassium": (3.5, 5.1),
    "chloride": (98, 107), "bicarbonate": (22, 29), "calcium": (8.5, 10.3), "magnesium": (1.6, 2.6), "phosphate": (2.5, 4.5),
    "albumin": (3.5, 5.2), "bilirubin_total": (0.1, 1.2), "bilirubin_direct": (0.0, 0.3), "alt": (5, 40), "ast": (5, 40),
    "alkaline_phosphatase": (40, 130), "hemoglobin": (12.0, 17.0), "hematocrit": (36, 50), "wbc": (4.0, 11.0),
    "platelets": (150, 400), "rbc": (3.9, 5.7), "mcv": (80, 100), "mch": (27, 33), "mchc": (32, 36), "inr": (0.9, 1.1),
    "pt": (10, 13.5), "ptt": (25, 37), "fibrinogen": (200, 400), "lactate": (0.5, 2.0), "ph": (7.35, 7.45),
    "pao2": (80, 100), "paco2": (35, 45), "base_excess": (-2, 2), "troponin_t": (0, 0.014), "ck": (30, 200),
    "ck_mb": (0, 5), "crp": (0, 5), "anion_gap": (8, 16), "calcium_ionized": (1.12, 1.32), "neutrophils": (40, 75),
    "lymphocytes": (20, 45), "bands": (0, 5), "methemoglobin": (0, 1.5),
}  # fmt: skip
