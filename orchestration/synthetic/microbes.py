"""Organisms, where they are found, and which antibiotics they resist; the antibiotics that are given before and after a culture."""

from __future__ import annotations

from orchestration.synthetic.pharmacy import Drug

SITES = ("blood", "urine", "sputum", "wound")
SITE_TESTS = {
    "blood": "blood culture",
    "urine": "urine culture",
    "sputum": "respiratory culture",
    "wound": "wound culture",
}
POSITIVE = {"blood": 0.55, "urine": 0.75, "sputum": 0.65, "wound": 0.7}

ANTIBIOTICS = (
    Drug("ceftriaxone", 3, (1, 2), "g", "IV"),
    Drug("cefepime", 2, (1, 2), "g", "IV"),
    Drug("piperacillin-tazobactam", 3, (3.375, 4.5), "g", "IV"),
    Drug("meropenem", 2, (0.5, 1), "g", "IV"),
    Drug("vancomycin", 3, (1, 1.25, 1.5), "g", "IV"),
    Drug("ciprofloxacin", 2, (400, 500), "mg", "PO"),
    Drug("levofloxacin", 2, (500, 750), "mg", "PO"),
    Drug("gentamicin", 2, (240, 320), "mg", "IV"),
    Drug("ampicillin", 2, (1, 2), "g", "IV"),
    Drug("oxacillin", 2, (2,), "g", "IV"),
    Drug("linezolid", 2, (600,), "mg", "IV"),
    Drug("doxycycline", 2, (100,), "mg", "PO"),
    Drug("nitrofurantoin", 1, (100,), "mg", "PO"),
    Drug("clindamycin", 1, (600, 900), "mg", "IV"),
)
ANTIBIOTIC_NAMES = [drug.name for drug in ANTIBIOTICS]

# organism -> (weight at each of SITES, chance of S for each antibiotic that is tested; the rest is R, a tenth of it I)
ORGANISMS: dict[str, tuple[tuple[float, ...], dict[str, float]]] = {
    "escherichia coli": ((5, 9, 1, 1), {"ceftriaxone": 0.8, "ciprofloxacin": 0.65, "gentamicin": 0.85,
        "ampicillin": 0.45, "piperacillin-tazobactam": 0.9, "meropenem": 0.99, "nitrofurantoin": 0.95}),
    "klebsiella pneumoniae": ((3, 3, 4, 1), {"ceftriaxone": 0.75, "ciprofloxacin": 0.75, "gentamicin": 0.85,
        "ampicillin": 0.02, "piperacillin-tazobactam": 0.8, "meropenem": 0.97, "levofloxacin": 0.8}),
    "proteus mirabilis": ((1, 3, 0, 2), {"ceftriaxone": 0.9, "ciprofloxacin": 0.7, "gentamicin": 0.85,
        "ampicillin": 0.7, "piperacillin-tazobactam": 0.97}),
    "enterobacter cloacae": ((1, 1, 2, 1), {"ceftriaxone": 0.4, "cefepime": 0.85, "ciprofloxacin": 0.85,
        "gentamicin": 0.9, "meropenem": 0.98}),
    "pseudomonas aeruginosa": ((2, 2, 4, 3), {"cefepime": 0.8, "piperacillin-tazobactam": 0.8, "ciprofloxacin": 0.7,
        "meropenem": 0.8, "gentamicin": 0.8}),
    "staphylococcus aureus": ((4, 0, 4, 6), {"oxacillin": 0.98, "vancomycin": 1.0, "clindamycin": 0.75,
        "doxycycline": 0.92, "linezolid": 1.0, "levofloxacin": 0.7}),
    "methicillin-resistant staphylococcus aureus": ((2, 0, 3, 4), {"oxacillin": 0.0, "vancomycin": 0.99,
        "clindamycin": 0.6, "doxycycline": 0.9, "linezolid": 0.99, "levofloxacin": 0.25}),
    "streptococcus pneumoniae": ((2, 0, 5, 0), {"ceftriaxone": 0.96, "levofloxacin": 0.97, "vancomycin": 1.0,
        "doxycycline": 0.8, "clindamycin": 0.8}),
    "streptococcus pyogenes": ((1, 0, 0, 3), {"ceftriaxone": 1.0, "clindamycin": 0.8, "vancomycin": 1.0,
        "ampicillin": 1.0}),
    "enterococcus faecalis": ((2, 3, 0, 2), {"ampicillin": 0.95, "vancomycin": 0.96, "linezolid": 0.98,
        "gentamicin": 0.7}),
    "enterococcus faecium": ((1, 1, 0, 1), {"ampicillin": 0.1, "vancomycin": 0.4, "linezolid": 0.96,
        "doxycycline": 0.6}),
    "haemophilus influenzae": ((0, 0, 3, 0), {"ceftriaxone": 0.99, "ampicillin": 0.65, "levofloxacin": 0.98,
        "doxycycline": 0.95}),
    "staphylococcus epidermidis": ((3, 0, 0, 1), {"oxacillin": 0.2, "vancomycin": 1.0, "linezolid": 0.99,
        "doxycycline": 0.8}),
}  # fmt: skip
