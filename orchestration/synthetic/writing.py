"""What both demo hospitals do alike: local numbers, times and values as text, and the bytes of their files."""

from __future__ import annotations

import csv
import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from orchestration.synthetic.truth import Truth

Export = dict[str, pl.DataFrame]  # file name -> rows, every column text


@dataclass(frozen=True)
class Item:
    """One entry of a hospital's own dictionary; `concept` is '' for what no concept describes."""

    source_table: str
    code: str
    label: str
    category: str
    unit: str
    concept: str
    digits: int


def catalogue(style: str) -> list[Item]:
    """The hospital's dictionary, `<style>_catalogue.csv` beside this file."""
    with (Path(__file__).parent / f"{style}_catalogue.csv").open(encoding="utf-8", newline="") as file:
        return [Item(**{**row, "digits": int(row["digits"])}) for row in csv.DictReader(file)]


class Numbers:
    """Local numbers of a hospital for persons, admissions and stays: without repeats, in no order that says anything."""

    def __init__(self, rng: np.random.Generator, truth: Truth, prefix: str, first: int):
        self.maps = {}
        for turn, (column, table) in enumerate(
            (("person", truth.persons), ("admission", truth.admissions), ("stay", truth.stays))
        ):
            number = rng.permutation(len(table) * 4)[: len(table)] + first * (turn + 1)
            text = [f"{prefix}{n}" for n in number]
            self.maps[column] = pl.DataFrame({column: table[column], f"{column}_nr": text})
        persons = truth.admissions.select("admission", "person", "twin").join(
            self.maps["person"], on="person"
        )
        self.maps["admission"] = self.maps["admission"].join(persons, on="admission")

    def add(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Add admission_nr, person_nr and twin by `admission`, stay_nr by `stay` where the rows have it."""
        rows = rows.join(self.maps["admission"], on="admission", how="left", maintain_order="left")
        if "stay" in rows.columns:
            rows = rows.join(self.maps["stay"], on="stay", how="left", maintain_order="left")
        return rows


def stamp(column: str, pattern: str, timezone: str | None = None) -> pl.Expr:
    """Minutes since 1970 UTC as text in the hospital's pattern and local time; null stays null."""
    moment = (pl.col(column) * 60_000_000).cast(pl.Datetime("us", "UTC"))
    if timezone:
        moment = moment.dt.convert_time_zone(timezone)
    return moment.dt.strftime(pattern)


def written(value: np.ndarray, digits: np.ndarray, exact: np.ndarray) -> list[str]:
    """Values as text: `exact` ones with all digits of a double, the others rounded as the hospital rounds."""
    rows = zip(value.tolist(), digits.tolist(), exact.tolist(), strict=True)
    return [repr(v) if e else f"{round(v, d) + 0.0:.{d}f}" for v, d, e in rows]  # + 0.0 turns -0.0 into 0.0


def to_bytes(rows: pl.DataFrame, name: str, separator: str) -> bytes:
    """CSV with a header; gzip without a time stamp if the name ends in .gz, so that same rows give same bytes."""
    text = rows.write_csv(separator=separator, null_value="").encode()
    return gzip.compress(text, compresslevel=6, mtime=0) if name.endswith(".gz") else text
