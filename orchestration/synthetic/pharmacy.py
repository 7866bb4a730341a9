"""The drugs of the demo world: what may be given for each purpose, how it is written, and what the patient shows after it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Drug:
    """One drug of a class: how often it is the one chosen, and the doses that are ordered."""

    name: str
    weight: float
    doses: tuple[float, ...]
    unit: str
    route: str


@dataclass(frozen=True)
class Response:
    """What follows a single dose: `concept` moves by `size` (log ratio for log concepts), full after `onset_h`, gone after `lasts_h`.

    A share `silent` of the doses does nothing, and after a share `against` the concept moves the other way (a meal, the
    illness): what followed must be read in the record, it cannot be guessed from the drug.
    """

    concept: str
    size: float
    onset_h: float
    lasts_h: float
    recheck_h: tuple[float, float]
    panel: str
    silent: float = 0.25
    against: float = 0.2


ORDERS: dict[str, tuple[Drug, ...]] = {
    "statin": (Drug("atorvastatin", 5, (20, 40, 80), "mg", "PO"), Drug("simvastatin", 2, (20, 40), "mg", "PO"),
        Drug("rosuvastatin", 2, (10, 20), "mg", "PO"), Drug("pravastatin", 1, (20, 40), "mg", "PO")),
    "antiplatelet": (Drug("aspirin", 5, (81, 100, 325), "mg", "PO"), Drug("clopidogrel", 3, (75, 300), "mg", "PO"),
        Drug("ticagrelor", 2, (90, 180), "mg", "PO")),
    "beta blocker": (Drug("metoprolol", 5, (12.5, 25, 50), "mg", "PO"), Drug("bisoprolol", 2, (2.5, 5), "mg", "PO"),
        Drug("carvedilol", 2, (6.25, 12.5), "mg", "PO"), Drug("atenolol", 1, (25, 50), "mg", "PO")),
    "ace inhibitor": (Drug("lisinopril", 4, (5, 10, 20), "mg", "PO"), Drug("ramipril", 2, (2.5, 5), "mg", "PO"),
        Drug("losartan", 3, (25, 50), "mg", "PO"), Drug("valsartan", 1, (80, 160), "mg", "PO")),
    "calcium blocker": (Drug("amlodipine", 5, (5, 10), "mg", "PO"), Drug("nifedipine", 1, (30, 60), "mg", "PO"),
        Drug("felodipine", 1, (5, 10), "mg", "PO")),
    "oral diuretic": (Drug("torsemide", 2, (10, 20), "mg", "PO"), Drug("spironolactone", 3, (25, 50), "mg", "PO"),
        Drug("hydrochlorothiazide", 2, (12.5, 25), "mg", "PO")),
    "basal insulin": (Drug("insulin glargine", 4, (10, 14, 20, 26), "units", "SC"), Drug("insulin detemir", 1, (10,
        18), "units", "SC"), Drug("insulin nph", 2, (8, 12, 16), "units", "SC")),
    "oral antidiabetic": (Drug("metformin", 4, (500, 850, 1000), "mg", "PO"), Drug("sitagliptin", 1, (50, 100), "mg",
        "PO"), Drug("glipizide", 2, (5, 10), "mg", "PO"), Drug("empagliflozin", 1, (10, 25), "mg", "PO")),
    "bronchodilator": (Drug("albuterol", 4, (2.5, 5), "mg", "INH"), Drug("ipratropium", 3, (0.25, 0.5), "mg", "INH"),
        Drug("tiotropium", 2, (18,), "ug", "INH"), Drug("budesonide", 1, (0.5, 1), "mg", "INH")),
    "steroid": (Drug("prednisone", 3, (20, 40, 60), "mg", "PO"), Drug("methylprednisolone", 2, (40, 125), "mg", "IV"),
        Drug("hydrocortisone", 2, (50, 100), "mg", "IV"), Drug("dexamethasone", 1, (4, 6), "mg", "IV")),
    "opioid": (Drug("morphine", 3, (2, 4), "mg", "IV"), Drug("oxycodone", 3, (5, 10), "mg", "PO"),
        Drug("hydromorphone", 2, (0.5, 1), "mg", "IV"), Drug("tramadol", 2, (50, 100), "mg", "PO")),
    "gastric": (Drug("pantoprazole", 4, (40, 80), "mg", "IV"), Drug("omeprazole", 2, (20, 40), "mg", "PO"),
        Drug("famotidine", 2, (20,), "mg", "PO"), Drug("esomeprazole", 1, (40,), "mg", "PO")),
    "anticoagulant": (Drug("apixaban", 3, (2.5, 5), "mg", "PO"), Drug("warfarin", 3, (2.5, 5), "mg", "PO"),
        Drug("rivaroxaban", 2, (15, 20), "mg", "PO"), Drug("dabigatran", 1, (110, 150), "mg", "PO")),
    "thrombosis": (Drug("enoxaparin", 3, (30, 40), "mg", "SC"), Drug("heparin", 3, (5000,), "units", "SC"),
        Drug("fondaparinux", 1, (2.5,), "mg", "SC")),
    "antiemetic": (Drug("ondansetron", 3, (4, 8), "mg", "IV"), Drug("metoclopramide", 2, (5, 10), "mg", "IV"),
        Drug("prochlorperazine", 1, (5, 10), "mg", "IV")),
    "laxative": (Drug("senna", 3, (8.6, 17.2), "mg", "PO"), Drug("docusate", 2, (100,), "mg", "PO"), Drug("lactulose",
        2, (10, 20), "g", "PO"), Drug("polyethylene glycol", 2, (17,), "g", "PO")),
    "sedative": (Drug("lorazepam", 3, (0.5, 1, 2), "mg", "IV"), Drug("haloperidol", 2, (0.5, 2), "mg", "IV"),
        Drug("quetiapine", 2, (25, 50), "mg", "PO"), Drug("diazepam", 2, (5, 10), "mg", "PO"), Drug("olanzapine", 1,
        (2.5, 5), "mg", "PO")),
    "antiepileptic": (Drug("levetiracetam", 4, (500, 1000), "mg", "IV"), Drug("valproate", 2, (500, 750), "mg", "IV"),
        Drug("phenytoin", 1, (100, 300), "mg", "IV"), Drug("lacosamide", 1, (100, 200), "mg", "IV")),
    "thyroid": (Drug("levothyroxine", 1, (50, 75, 100, 125), "ug", "PO"),),
    "antidepressant": (Drug("sertraline", 3, (50, 100), "mg", "PO"), Drug("citalopram", 2, (10, 20), "mg", "PO"),
        Drug("mirtazapine", 2, (7.5, 15), "mg", "PO"), Drug("trazodone", 2, (50, 100), "mg", "PO")),
    "iron": (Drug("ferrous sulfate", 3, (325,), "mg", "PO"), Drug("iron sucrose", 1, (200,), "mg", "IV")),
    "gout": (Drug("allopurinol", 3, (100, 300), "mg", "PO"), Drug("colchicine", 2, (0.6,), "mg", "PO")),
    "vitamin": (Drug("thiamine", 3, (100, 200), "mg", "IV"), Drug("folic acid", 2, (1,), "mg", "PO")),
    "prophylaxis": (Drug("cefazolin", 5, (1, 2), "g", "IV"), Drug("cefuroxime", 1, (1.5,), "g", "IV"),
        Drug("clindamycin", 1, (600, 900), "mg", "IV")),
}  # fmt: skip

DOSES: dict[str, tuple[Drug, ...]] = {
    "insulin": (Drug("insulin lispro", 3, (4, 6, 8, 10, 12), "units", "SC"), Drug("insulin aspart", 2, (4, 6, 8, 10),
        "units", "SC"), Drug("insulin regular", 2, (4, 6, 8, 10), "units", "IV")),
    "diuretic": (Drug("furosemide", 5, (20, 40, 60, 80), "mg", "IV"), Drug("bumetanide", 2, (0.5, 1, 2), "mg", "IV")),
    "pressure": (Drug("labetalol", 3, (10, 20), "mg", "IV"), Drug("hydralazine", 3, (5, 10, 20), "mg", "IV"),
        Drug("enalaprilat", 1, (1.25, 2.5), "mg", "IV")),
    "rate control": (Drug("diltiazem", 3, (10, 20), "mg", "IV"), Drug("esmolol", 1, (25, 50), "mg", "IV"),
        Drug("digoxin", 2, (0.25, 0.5), "mg", "IV")),
    "electrolyte": (Drug("potassium chloride", 5, (20, 40), "mmol", "PO"), Drug("potassium phosphate", 1, (15, 30),
        "mmol", "IV")),
    "antipyretic": (Drug("acetaminophen", 5, (500, 650, 1000), "mg", "PO"), Drug("ibuprofen", 2, (400, 600), "mg",
        "PO"), Drug("ketorolac", 1, (15, 30), "mg", "IV")),
    "transfusion": (Drug("red blood cells", 1, (1, 2), "units", "IV"),),
}  # fmt: skip
RESPONSES = {
    "insulin": (Response("glucose", -0.5, 1.5, 6, (1.2, 3.5), "fingerstick"),),
    "diuretic": (
        Response("potassium", -0.65, 4, 18, (4, 8), "potassium"),
        Response("urine_output", 0.7, 1, 6, (1.5, 4), "output"),
    ),
    "pressure": (Response("sbp", -30, 0.7, 6, (0.7, 2), "pressure"),),
    "rate control": (Response("heart_rate", -28, 0.7, 6, (0.7, 2), "circulation"),),
    "electrolyte": (Response("potassium", 0.75, 3, 24, (3, 7), "potassium"),),
    "antipyretic": (Response("temperature", -1.1, 1.5, 7, (1, 3), "warmth"),),
    "transfusion": (Response("hemoglobin", 1.5, 2, 96, (3, 7), "hemoglobin", against=0.1),),
}

INFUSIONS: dict[str, tuple[Drug, ...]] = {
    "vasopressor": (Drug("norepinephrine", 5, (0.05, 0.1, 0.15, 0.25), "ug/kg/min", "IV"), Drug("phenylephrine", 2,
        (0.5, 1, 2), "ug/kg/min", "IV"), Drug("vasopressin", 2, (0.03, 0.04), "units/min", "IV"), Drug("epinephrine",
        1, (0.05, 0.1), "ug/kg/min", "IV")),
    "sedation": (Drug("propofol", 4, (10, 20, 30, 40), "ug/kg/min", "IV"), Drug("dexmedetomidine", 2, (0.2, 0.4, 0.7),
        "ug/kg/h", "IV"), Drug("midazolam", 2, (1, 2, 4), "mg/h", "IV"), Drug("fentanyl", 2, (25, 50, 100), "ug/h",
        "IV")),
    "fluid": (Drug("sodium chloride 0.9%", 4, (75, 100, 125, 150), "mL/h", "IV"), Drug("lactated ringer's", 3, (75,
        100, 125), "mL/h", "IV"), Drug("dextrose 5%", 1, (50, 75), "mL/h", "IV")),
}  # fmt: skip
