"""A small export, taken in once."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from orchestration import catalog, ingest, suites
from tests.small_export import Export

SECRET = "Quarantania"  # planted where a patient's value could leak


def table(export: Export, name: str) -> pl.DataFrame:
    return pl.concat(
        pl.read_parquet(f, hive_partitioning=False)
        for f in catalog.load(export.root).files(f"input/small/{name}")
    )


def run(export: Export) -> ingest.Outcome:
    return ingest.run(export.write(), export.root, "test")


@pytest.fixture
def no_suites(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A house without expectations, where the gate is not what is tested."""
    monkeypatch.setattr(suites, "EXPECTATIONS", tmp_path / "none")


@pytest.fixture(scope="module")
def accepted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Export, ingest.Outcome]:
    """One export with something of everything that is kept or rejected row by row."""
    export = Export(tmp_path_factory.mktemp("accepted"), max_rejected=0.2)
    export.files["people.csv"].append("p1,w,1950")
    export.files["cases.csv"].append("c9,p1,2024-05-05 10:00:00,2024-05-01 10:00:00,0")
    export.max_rejected = 0.3
    export.files["labs.csv.gz"] += [
        "p1,c1,2024-10-27 02:30:00,2024-10-27 04:00:00,GLU,7,mmol/L,F",
        "p9,c1,2024-08-01 12:00:00,,GLU,95,mg/dL,F",
        f"p1,c1,{SECRET},,GLU,95,mg/dL,F",
        "p1,c1,2024-08-01 12:00:00,soon,GLU,high,mg/dL,F",
        "p1,c1,2024-08-01 12:00:00,,GLU,95,mg/dL,X",
        "p1,c1,,,GLU,95,mg/dL,F",
    ]
    return export, run(export)
