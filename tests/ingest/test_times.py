"""What a written time of a hospital in Europe/Berlin becomes: local time unless it names its own offset, naive UTC after."""

from __future__ import annotations

from datetime import datetime

import pytest

from orchestration import suites
from tests.ingest.conftest import run, table
from tests.small_export import LABS, Export

WRITTEN = {
    "2024-03-01": "2024-02-29 23:00:00",
    "2024-03-01 10:00": "2024-03-01 09:00:00",
    "2024-03-01 10:00:00": "2024-03-01 09:00:00",
    "2024-03-01T10:00:00.250": "2024-03-01 09:00:00.250",
    "2024-03-01T10:00Z": "2024-03-01 10:00:00",
    "2024-03-01T10:00:00Z": "2024-03-01 10:00:00",
    "2024-03-01T10:00:00z": "2024-03-01 10:00:00",
    "2024-03-01 10:00+01": "2024-03-01 09:00:00",
    "2024-03-01 10:00:00 UTC": "2024-03-01 10:00:00",
    "2024-03-01 10:00:00 GMT": "2024-03-01 10:00:00",
    "2024-03-01 10:00:00.5+02:00": "2024-03-01 08:00:00.5",
    "2024-03-01 10:00:00 +02:00": "2024-03-01 08:00:00",
    "2024-03-01 10:00:00-0500": "2024-03-01 15:00:00",
    "2024-03-01 10:00:00 America/New_York": "2024-03-01 15:00:00",
    # the clocks go forward at 2:00: 2:30 is no hour of this day, and what it means is the hour that follows
    "2024-03-31 01:59:59": "2024-03-31 00:59:59",
    "2024-03-31 02:30:00": "2024-03-31 01:30:00",
    "2024-03-31 03:00:00": "2024-03-31 01:00:00",
    # and back at 3:00: from 2:00 to 3:00 the hour is there twice, and only an offset tells which
    "2024-10-27 01:59:59": "2024-10-26 23:59:59",
    "2024-10-27 02:00:00": "2024-10-27 01:00:00",
    "2024-10-27 02:59:59": "2024-10-27 01:59:59",
    "2024-10-27 02:30:00+02:00": "2024-10-27 00:30:00",
    "2024-10-27 02:30:00+01:00": "2024-10-27 01:30:00",
    "2024-10-27 03:00:00": "2024-10-27 02:00:00",
}
TWICE = 2
UNREADABLE = ("2024-03-01 10:00:00 PM", "2024-03-01 10:00:00 o'clock", "2024-03-01T10+01:00")


@pytest.fixture(scope="module")
def taken_in(tmp_path_factory: pytest.TempPathFactory):
    export = Export(tmp_path_factory.mktemp("times"))
    for number, written in enumerate([*WRITTEN, *UNREADABLE]):
        export.files["labs.csv.gz"].append(f"p1,c1,{written},,GLU,{number},mg/dL,F")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(suites, "EXPECTATIONS", export.base / "none")
        outcome = run(export)
    assert outcome.status == "published", outcome.reason
    rows = table(export, "measurements").select("row_id", "event_at").rows()
    return outcome, {int(row_id.removeprefix("labs:")) - len(LABS): event_at for row_id, event_at in rows}


@pytest.mark.parametrize("written", WRITTEN)
def test_a_time_is_local_unless_it_names_its_own_offset(taken_in, written: str) -> None:
    assert taken_in[1][list(WRITTEN).index(written)] == datetime.fromisoformat(WRITTEN[written])


def test_a_local_hour_that_exists_twice_is_flagged_and_one_with_an_offset_is_not(taken_in) -> None:
    assert taken_in[0].remarks["measurements"]["ambiguous_local_hour"] == TWICE


def test_a_time_with_a_suffix_that_means_nothing_is_unreadable(taken_in) -> None:
    assert taken_in[0].rejected == {"unreadable": len(UNREADABLE)}
