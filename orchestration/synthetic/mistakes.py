"""What goes wrong in south's charts, and what it charts that no concept describes. Never in the records of twins."""

from __future__ import annotations

import numpy as np
import polars as pl

# Shares of rows (of all but the twins) with a planted error.
CELSIUS_ITEM, FAHRENHEIT_UNDER_CELSIUS = 0.12, 0.2
UNKNOWN_UNIT, OUT_OF_RANGE, DUPLICATE, HEMOLYZED, NO_ICD_VERSION = 0.004, 0.003, 0.005, 0.01, 0.02
ABSURD = {
    "heart_rate": 999.0,
    "sbp": 888.0,
    "respiratory_rate": 222.0,
    "sodium": 1400.0,
    "potassium": 44.0,
    "glucose": 9999.0,
}


def with_errors(rng, rows: pl.DataFrame, known: pl.DataFrame, planted: dict[str, int]) -> pl.DataFrame:
    """Celsius items, some holding Fahrenheit; absurd values; unknown units; spoiled samples; rows sent twice. No twins."""
    n = len(rows)
    code, text, unit = (rows[c].to_list() for c in ("code", "text", "unit"))
    other = ~rows["twin"].to_numpy()
    concept = rows["concept"].fill_null("").to_numpy()
    celsius = known.filter(pl.col("label") == "TEMP (C)")
    warm = np.flatnonzero(other & (concept == "temperature") & (rng.random(n) < CELSIUS_ITEM))
    mistaken = rng.random(len(warm)) < FAHRENHEIT_UNDER_CELSIUS
    for i, wrong in zip(warm, mistaken, strict=True):
        code[i], unit[i] = celsius["code"][0], celsius["unit"][0]
        text[i] = text[i] if wrong else f"{(float(text[i]) - 32) * 5 / 9:.1f}"
    absurd = np.flatnonzero(other & np.isin(concept, list(ABSURD)) & (rng.random(n) < OUT_OF_RANGE))
    for i in absurd:
        text[i] = f"{ABSURD[concept[i]]:.0f}"
    is_lab = (rows["source_table"] == "lab_result").to_numpy()
    unknown = np.flatnonzero(other & is_lab & (concept != "") & (rng.random(n) < UNKNOWN_UNIT))
    for i in unknown:
        unit[i] = "ARB"
    spoiled = np.flatnonzero(other & is_lab & (concept == "potassium") & (rng.random(n) < HEMOLYZED))
    for i in spoiled:
        text[i] = "HEMOLYZED"
    twice = np.flatnonzero(other & (concept != "") & (rng.random(n) < DUPLICATE))
    planted |= {
        "fahrenheit_under_celsius": int(mistaken.sum()), "out_of_range": len(absurd), "unknown_unit": len(unknown),
        "hemolyzed": len(spoiled), "duplicate_rows": len(twice),
    }  # fmt: skip
    rows = rows.with_columns(
        code=pl.Series(code), text=pl.Series(text, dtype=pl.String), unit=pl.Series(unit, dtype=pl.String)
    )
    return rows[np.sort(np.concatenate([np.arange(n), twice]))]


EXTRA = {
    "URIC ACID": (2.5, 9), "TSH": (0.3, 6), "VITAMIN B12": (150, 900), "UA COLOR": ["YELLOW", "AMBER"],
    "FALL RISK": (0, 60), "HR ALARM HIGH": (110, 140), "LINEN CHANGE": ["DONE"], "SKIN TEMP": (80, 95),
}  # fmt: skip


def extra(rng: np.random.Generator, rows: pl.DataFrame, known: pl.DataFrame) -> pl.DataFrame:
    """Items that no concept describes, written beside one in fifty values of everybody but the twins."""
    others = rows.filter(~pl.col("twin"))
    picked = others[np.sort(rng.permutation(len(others))[: len(others) // 50])]
    parts = []
    for table in ("lab_result", "flowsheet"):
        items = known.filter((pl.col("source_table") == table) & (pl.col("concept") == ""))
        mine = picked.filter(pl.col("source_table") == table)
        which = rng.integers(0, len(items), len(mine))
        labels = items["label"].to_numpy()[which]
        digits = items["digits"].to_numpy()[which]
        text = [
            str(rng.choice(EXTRA[n])) if isinstance(EXTRA[n], list) else f"{rng.uniform(*EXTRA[n]):.{d}f}"
            for n, d in zip(labels, digits, strict=True)
        ]
        parts.append(mine.select("admission_nr", "person_nr", "stay_nr", "twin", "at", "stored", "source_table").with_columns(
            code=items["code"].gather(which), text=pl.Series(text, dtype=pl.String), unit=items["unit"].gather(which)
        ))  # fmt: skip
    return pl.concat(parts)
