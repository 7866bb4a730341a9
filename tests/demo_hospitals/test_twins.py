"""Twins are one truth: what both demo hospitals tell of the same persons agrees after the test's own conversion."""

import numpy as np
import polars as pl

from tests.demo_hospitals.conftest import TWINS, iso, north_values, read, south_values, twins_of, utc

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
