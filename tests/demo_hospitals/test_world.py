"""The demo's world is plausible, and its errors stand where they were planted."""

import polars as pl

from orchestration.synthetic.export import read_manifest
from tests.demo_hospitals.conftest import iso, mapped, north_values, read, south_values, twins_of, utc

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
