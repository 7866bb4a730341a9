"""Which buckets a night computes, by what has changed since the accepted version was made."""

from __future__ import annotations

import copy
from datetime import datetime

import pytest

from orchestration.buckets import Buckets
from orchestration.catalog import Catalog

INPUTS = [
    f"input/{hospital}/{table}"
    for hospital in ("north", "south")
    for table in ("items", "measurements", "visits")
]
MODELS = {
    "harmonised/measurements": {"tags": []},
    "labels/made_up": {"tags": []},
    "harmonised/fates": {"tags": ["whole_set"]},
}
REACHES = {"north": datetime(2150, 1, 1), "south": datetime(2150, 2, 1)}


def entry(key: str, buckets: list[int]) -> dict:
    return {
        "files": [{"path": f"{key}/bucket={b}/v.parquet", "sha256": f"{key} {b}", "rows": 1} for b in buckets]
    }


def accepted() -> dict[str, dict]:
    """North has buckets 0 and 1, south 0, 1 and 2; the tables were made from just these files."""
    content = {
        key: entry(key, [0] if "items" in key else [0, 1] if "north" in key else [0, 1, 2]) for key in INPUTS
    }
    made_of = night(content).made_of
    for key in MODELS:
        content[key] = entry(key, [0, 1, 2]) | {"metadata": {"buckets": made_of}}
    return content


def night(content: dict[str, dict], reaches: dict = REACHES, code: str = "code") -> Buckets:
    return Buckets(Catalog("root", {"accepted": content}), INPUTS, MODELS, reaches, code)


def change(key: str, place: int):
    def changed(content: dict[str, dict]) -> None:
        content[key]["files"][place]["sha256"] = "other bytes"

    return changed


CHANGES = {
    "nothing": (lambda content: None, []),
    "a row of north": (change("input/north/measurements", 1), [1]),
    "a visit of south": (change("input/south/visits", 2), [2]),
    "an item of north": (change("input/north/items", 0), [0, 1]),
    "an item of south": (change("input/south/items", 0), [0, 1, 2]),
    "a table is new": (lambda content: content.pop("labels/made_up"), [0, 1, 2]),
}


@pytest.mark.parametrize("name", CHANGES)
def test_only_what_has_changed_is_made(name: str) -> None:
    changed, made = CHANGES[name]
    content = copy.deepcopy(accepted())
    changed(content)
    tonight = night(content)
    assert (tonight.made, tonight.unchanged) == (made, [b for b in (0, 1, 2) if b not in made])
    kept = [f["path"] for f in tonight.kept("harmonised/measurements")]
    assert kept == [f"harmonised/measurements/bucket={b}/v.parquet" for b in tonight.unchanged]
    assert tonight.kept("harmonised/fates") == []


@pytest.mark.parametrize(
    ("reaches", "made"),
    [
        (datetime(2150, 1, 1), []),
        (datetime(2150, 1, 19), []),  # no label of bucket 0 ends before the 20th
        (datetime(2150, 1, 20), [0]),
        (datetime(2149, 12, 25), []),
        (datetime(2149, 12, 24), [0]),  # shorter than it was: a label that was complete is open again
        (
            datetime(2160, 1, 1),
            [0],
        ),  # nothing in bucket 1 asks how far north reaches, bucket 2 holds none of it
    ],
)
def test_an_export_that_reaches_further_makes_the_buckets_in_which_a_label_ends(
    reaches: datetime, made: list[int]
) -> None:
    content = accepted()
    ends = {"0": {"north": ["2149-12-25T00:00:00", "2150-01-20T00:00:00"], "south": [None, None]}}
    for key in MODELS:
        content[key]["metadata"]["holds"] = ends
    tonight = night(content, REACHES | {"north": reaches})
    assert tonight.made == made
    fresh = {number: {"north": [None, None]} for number in made}
    assert tonight.holds(fresh) == {"0": fresh.get(0, ends["0"]), "1": {}, "2": {}}


def test_a_hospital_that_tells_no_end_makes_the_buckets_that_ask() -> None:
    content = accepted()
    for key in MODELS:
        content[key]["metadata"]["holds"] = {"1": {"south": [None, None]}}
    assert night(content, {"north": REACHES["north"]}).made == [1]


def test_other_code_makes_everything() -> None:
    assert night(accepted(), code="other").made == [0, 1, 2]


def test_nothing_was_ever_made() -> None:
    tonight = night({key: value for key, value in accepted().items() if key.startswith("input/")})
    assert tonight.made == [0, 1, 2] and tonight.kept("harmonised/measurements") == []
