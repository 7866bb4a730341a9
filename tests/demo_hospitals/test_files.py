"""The demo's exports as files: same seed, same bytes; every file mapped; the generator knows nothing of the harmoniser."""

import ast

import polars as pl
import pytest
import yaml

from orchestration.synthetic.export import DemoExport, read_manifest
from tests.demo_hospitals.conftest import HOSPITALS, PATIENTS, ROOT, SEED, TWINS, read

# same seed, same bytes


def test_same_settings_same_bytes(exports, tmp_path):
    for hospital, folder in exports.items():
        DemoExport(hospital, hospital, PATIENTS, TWINS, SEED).write(str(tmp_path / hospital))
        for file in folder.iterdir():
            assert file.read_bytes() == (tmp_path / hospital / file.name).read_bytes(), file.name


def test_another_seed_is_another_world(exports, tmp_path):
    record = DemoExport("north", "north", 40, 8, SEED + 1).write(str(tmp_path))
    assert record["fingerprint"] != read_manifest(str(exports["north"]))["fingerprint"]
    assert not set(read(tmp_path, "patients.csv.gz")["civil_registry"]) & set(
        read(exports["north"], "patients.csv.gz")["civil_registry"]
    )


@pytest.mark.parametrize(("patients", "twins"), [(1, 0), (1, 1), (3, 2), (12, 0)])
def test_the_smallest_hospitals_can_be_written(patients, twins, tmp_path):
    for hospital in ("north", "south"):
        record = DemoExport(hospital, hospital, patients, twins, 5).write(str(tmp_path / hospital))
        assert all(file["bytes"] > 0 for file in record["files"].values())


# the mapping and the files fit


@pytest.mark.parametrize("hospital", ["north", "south"])
def test_every_file_is_mapped_and_every_mapped_column_is_there(exports, hospital):
    tables = yaml.safe_load((HOSPITALS / hospital / "tables.yaml").read_text())
    files = {raw["path"] for raw in tables["raw"].values()}
    assert files == set(read_manifest(str(exports[hospital]))["files"])
    assert set(tables["input"]) == {
        "patients", "visits", "stays", "measurements", "diagnoses", "procedures", "medications", "microbiology", "items",
        *(["notes"] if hospital == "north" else []),
    }  # fmt: skip
    for name, raw in tables["raw"].items():
        columns = read(exports[hospital], raw["path"]).columns
        assert set(raw.get("key", [])) <= set(columns), name


@pytest.mark.parametrize("hospital", ["north", "south"])
def test_items_are_mapped_ignored_or_left_open(hospital):
    items = pl.read_csv(HOSPITALS / hospital / "items.csv", infer_schema=False)
    written = pl.read_csv(
        ROOT / "orchestration" / "synthetic" / f"{hospital}_catalogue.csv", infer_schema=False
    )
    assert set(items.select("source_table", "code").rows()) == set(
        written.select("source_table", "code").rows()
    )
    decisions = items["decision"].fill_null("").value_counts()
    counts = dict(decisions.rows())
    assert items.filter(pl.col("decision") == "map")["concept"].n_unique() >= 40
    assert counts["ignore"] >= 3 and counts[""] >= 2


def test_the_generator_knows_nothing_of_the_harmoniser():
    allowed = {
        "orchestration.synthetic",
        "orchestration.catalog",
        "orchestration",
        "numpy",
        "polars",
        "fsspec",
    }
    for file in (ROOT / "orchestration" / "synthetic").glob("*.py"):
        text = file.read_text()
        assert "dbt_project" not in text and "seeds" not in text
        for node in ast.walk(ast.parse(text)):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [
                    f"{node.module}.{a.name}" if node.module == "orchestration" else node.module
                    for a in node.names
                ]
            for name in names:
                ours = name.startswith("orchestration")
                assert not ours or any(
                    name == a or name.startswith(a + ".") for a in allowed - {"orchestration"}
                ), (file, name)


def test_exports_are_small_enough(exports):
    total = sum(file.stat().st_size for folder in exports.values() for file in folder.iterdir())
    assert total < 25e6 / 2
