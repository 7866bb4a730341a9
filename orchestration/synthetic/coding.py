"""Codes beside those of the diseases themselves: infections with a named organism, and procedures."""

# A named organism sharpens the code of the infection: (disease, organism) -> (ICD-10-CM, ICD-9-CM).
SHARPER = {
    ("sepsis", "escherichia coli"): ("A41.51", "03842"),
    ("sepsis", "pseudomonas aeruginosa"): ("A41.52", "03843"),
    ("sepsis", "klebsiella pneumoniae"): ("A41.59", "03849"),
    ("sepsis", "enterobacter cloacae"): ("A41.59", "03849"),
    ("sepsis", "staphylococcus aureus"): ("A41.01", "03811"),
    ("sepsis", "methicillin-resistant staphylococcus aureus"): ("A41.02", "03812"),
    ("sepsis", "streptococcus pyogenes"): ("A40.9", "0380"),
    ("pneumonia", "klebsiella pneumoniae"): ("J15.0", "4820"),
    ("pneumonia", "pseudomonas aeruginosa"): ("J15.1", "4821"),
    ("pneumonia", "staphylococcus aureus"): ("J15.211", "48241"),
    ("pneumonia", "methicillin-resistant staphylococcus aureus"): ("J15.212", "48242"),
    ("pneumonia", "escherichia coli"): ("J15.5", "48282"),
}

# procedure -> (ICD-10-PCS, ICD-9-CM procedure)
PROCEDURES = {
    "central line": ("02HV33Z", "3893"),
    "bronchoscopy": ("0BJ08ZZ", "3323"),
    "debridement": ("0JBP0ZZ", "8622"),
    "echocardiography": ("B245ZZZ", "8872"),
    "noninvasive ventilation": ("5A09357", "9390"),
    "angiography": ("B2111ZZ", "8856"),
    "stent": ("02703DZ", "3606"),
    "cardioversion": ("5A2204Z", "9962"),
    "upper endoscopy": ("0DJ08ZZ", "4513"),
    "colonoscopy": ("0DJD8ZZ", "4523"),
    "hemodialysis": ("5A1D70Z", "3995"),
    "paracentesis": ("0W9G30Z", "5491"),
    "cholecystectomy": ("0FT44ZZ", "5123"),
    "hip replacement": ("0SRR01Z", "8151"),
    "fracture fixation": ("0QS604Z", "7935"),
    "knee replacement": ("0SRC0J9", "8154"),
    "hernia repair": ("0WQF0ZZ", "5359"),
    "bypass surgery": ("021109W", "3612"),
    "colectomy": ("0DTN0ZZ", "4576"),
    "intubation": ("0BH17EZ", "9604"),
}
