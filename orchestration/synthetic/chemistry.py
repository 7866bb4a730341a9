"""Molar masses from atomic masses, and the units in which the demo hospitals write.

The truth is kept in one canonical unit a concept (see `analytes`); each hospital writes its own. The factors here are
the generator's own: what the warehouse converts back is thereby checked against an independent source.

Sources: standard atomic weights, abridged (IUPAC 2021); exact definitions of the pound, the inch and the conventional
millimetre of mercury (13.5951 g/cm3 times 9.80665 m/s2, in Pa).
"""

from __future__ import annotations

import numpy as np

ATOMIC_MASS = {
    "H": 1.008,
    "C": 12.011,
    "N": 14.007,
    "O": 15.999,
    "Mg": 24.305,
    "P": 30.974,
    "Ca": 40.078,
}
FORMULA = {
    "glucose": {"C": 6, "H": 12, "O": 6},
    "creatinine": {"C": 4, "H": 7, "N": 3, "O": 1},
    "urea_nitrogen": {"N": 2},  # one mole of urea carries two moles of nitrogen
    "bilirubin": {"C": 33, "H": 36, "N": 4, "O": 6},
    "calcium": {"Ca": 1},
    "magnesium": {"Mg": 1},
    "phosphate": {"P": 1},  # reported as mass of phosphorus
    "lactate": {"C": 3, "H": 6, "O": 3},  # reported as lactic acid
}
POUND_KG = 0.45359237
INCH_CM = 2.54
MMHG_PA = 13.5951 * 9.80665


def molar_mass(substance: str) -> float:
    """Grams per mole of a substance in `FORMULA`."""
    return sum(ATOMIC_MASS[atom] * count for atom, count in FORMULA[substance].items())


def _mmol_l(substance: str) -> float:
    return 10.0 / molar_mass(substance)  # from mg/dL


def _umol_l(substance: str) -> float:
    return 1e4 / molar_mass(substance)  # from mg/dL


# concept -> (factor, shift): value in the hospital's unit = canonical value * factor + shift
TO_SI: dict[str, tuple[float, float]] = {
    "glucose": (_mmol_l("glucose"), 0.0),
    "creatinine": (_umol_l("creatinine"), 0.0),
    "urea_nitrogen": (_mmol_l("urea_nitrogen"), 0.0),
    "bilirubin_total": (_umol_l("bilirubin"), 0.0),
    "bilirubin_direct": (_umol_l("bilirubin"), 0.0),
    "calcium": (_mmol_l("calcium"), 0.0),
    "magnesium": (_mmol_l("magnesium"), 0.0),
    "phosphate": (_mmol_l("phosphate"), 0.0),
    "albumin": (10.0, 0.0),  # g/dL to g/L
    "hemoglobin": (10.0, 0.0),
    "mchc": (10.0, 0.0),
    "hematocrit": (0.01, 0.0),  # % to L/L
    "fibrinogen": (0.01, 0.0),  # mg/dL to g/L
    "paco2": (MMHG_PA / 1000, 0.0),  # mmHg to kPa
    "pao2": (MMHG_PA / 1000, 0.0),
    "troponin_t": (1000.0, 0.0),  # ng/mL to ng/L
    "fio2": (0.01, 0.0),  # % to fraction
}
TO_CONVENTIONAL: dict[str, tuple[float, float]] = {
    "temperature": (9 / 5, 32.0),  # Celsius to Fahrenheit
    "weight": (1 / POUND_KG, 0.0),
    "height": (1 / INCH_CM, 0.0),
    "crp": (0.1, 0.0),  # mg/L to mg/dL
    "calcium_ionized": (molar_mass("calcium") / 10, 0.0),  # mmol/L to mg/dL
    "lactate": (molar_mass("lactate") / 10, 0.0),
}


def convert(value: np.ndarray, concept: np.ndarray, table: dict[str, tuple[float, float]]) -> np.ndarray:
    """Canonical values (float64, any length) in a hospital's units; concepts that `table` lacks stay as they are."""
    out = value.copy()
    for name, (factor, shift) in table.items():
        rows = concept == name
        out[rows] = value[rows] * factor + shift
    return out
