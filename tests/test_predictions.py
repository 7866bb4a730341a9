"""The one form of predictions: MEDS' names and numbers, and what is not of this form is refused in one line."""

from datetime import datetime, timedelta

import duckdb
import numpy as np
import polars as pl
import pytest

from orchestration.meds.export import SUBJECT_ID
from ray_jobs.prediction import predictions

LABELS = pl.DataFrame(
    {
        "hospital": ["north", "north", "south"],
        "patient_id": ["p2", "p1", "p1"],
        "prediction_at": [datetime(2150, 1, 1) + timedelta(days=d) for d in (3, 1, 2)],
        "label": [1, 0, 1],
    }
)


def test_what_is_written_is_read_with_its_names(tmp_path):
    predictions.write(tmp_path, "rich", "t", "all", predictions.told(LABELS, np.array([0.9, 0.2, 0.5])))
    few = predictions.told(LABELS, np.array([0.1, 0.2, 0.3]), shots=8, replicate=4)
    predictions.write(tmp_path, "rich", "groups/CIR019", "few_shot", few)
    found = predictions.read([tmp_path])
    assert found["task"].to_list() == ["groups/CIR019"] * 3 + ["t"] * 3
    everything = found.filter(pl.col("part") == "all")
    assert everything["predicted_boolean_value"].sum() == 2 and everything["shots"].null_count() == 3
    assert everything["subject_id"].is_sorted() and set(found["replicate"].drop_nulls()) == {4}
    file = tmp_path / "predictions" / "rich" / "t" / "all.parquet"
    assert pl.read_parquet(file).schema == predictions.SCHEMA


def test_subjects_are_numbered_as_in_meds():
    told = predictions.told(LABELS, np.zeros(3))
    with duckdb.connect() as connection:
        connection.register("labels", LABELS.to_arrow())
        numbers = connection.execute(f"select {SUBJECT_ID} from labels").fetchall()
    assert told["subject_id"].to_list() == [n for (n,) in numbers]


@pytest.mark.parametrize(
    ("contestant", "part", "chances", "says"),
    [
        ("no/name", "all", [0.1, 0.2, 0.3], "names are letters"),
        ("rich", "some", [0.1, 0.2, 0.3], "parts are all, few_shot, left_out"),
        ("rich", "few_shot", [0.1, 0.2, 0.3], "make the frame with told"),
        ("rich", "all", [0.1, np.nan, 0.3], "a probability is not in 0 to 1"),
        ("rich", "all", [0.1, 1.2, 0.3], "a probability is not in 0 to 1"),
    ],
)
def test_another_form_is_refused(tmp_path, contestant, part, chances, says):
    with pytest.raises(ValueError, match=says):
        predictions.write(tmp_path, contestant, "t", part, predictions.told(LABELS, np.array(chances)))
    assert not list(tmp_path.iterdir())


def test_a_contestant_has_one_home_and_there_must_be_one(tmp_path):
    with pytest.raises(ValueError, match="holds predictions"):
        predictions.read([tmp_path])
    for asset in ("a", "b"):
        predictions.write(tmp_path / asset, "rich", "t", "all", predictions.told(LABELS, np.zeros(3)))
    with pytest.raises(ValueError, match="two assets tell predictions of rich"):
        predictions.read([tmp_path / "a", tmp_path / "b"])
