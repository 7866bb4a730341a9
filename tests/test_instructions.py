"""Questions: balanced, byte-stable, blind to the future, refused when wrong, published by the job."""

from __future__ import annotations

import io
import logging
from datetime import datetime, timedelta

import polars as pl
import pytest
import yaml

from orchestration import catalog, gate
from ray_jobs import instructions
from ray_jobs.config import JobConfig
from ray_jobs.questions import bucket, choose, make, record, registry
from ray_jobs.questions.facts import Facts
from ray_jobs.runtime import Job, Refused
from tests.timeline import COLUMNS, timeline

ABSENT = "not_in_record"


@pytest.fixture(scope="module")
def world():
    return timeline(900, seed=3)


@pytest.fixture(scope="module")
def concepts():
    return pl.read_csv(bucket.CONCEPTS, infer_schema_length=None)


@pytest.fixture(scope="module")
def sets(world, concepts):
    return make.make(*world, concepts, registry.load())[0]


@pytest.fixture(scope="module")
def few(concepts):
    """(events, splits, sets) of a smaller world."""
    events, splits = timeline(150, seed=4)
    return events, splits, make.make(events, splits, concepts, registry.load())[0]


def both(sets):
    return pl.concat(sets.values())


def test_there_are_enough_families_over_enough_tables(sets):
    families = {name: set(frame["family"]) for name, frame in sets.items()}
    assert len(families["schema_alignment"]) >= 10 and len(families["clinical_reasoning"]) >= 6
    subjects = registry.load().subjects
    asked = {
        t.subject
        for t in registry.load().templates["schema_alignment"]
        if t.id in set(both(sets)["template_id"])
    }
    tables = {
        "lab": "measurements", "vital": "measurements", "admission": "visits", "transfer": "stays",
        "prescription": "medications", "culture": "microbiology", "susceptibility": "microbiology",
    }  # fmt: skip
    assert len({tables[subjects[s].kinds[0]] for s in asked}) >= 5


def test_about_eight_and_three_questions_an_admission(world, sets):
    visits = world[0]["visit_id"].n_unique()
    assert 6.5 <= sets["schema_alignment"].height / visits <= 10
    assert 2.3 <= sets["clinical_reasoning"].height / visits <= 4.5


def test_a_share_is_honestly_not_in_the_record(sets):
    for frame in sets.values():
        assert 0.06 <= (frame["answer_type"] == ABSENT).mean() <= 0.14


def test_visible_events_spread_from_few_to_the_budget_and_are_mostly_few(sets):
    seen = both(sets)["n_visible"]
    assert seen.min() >= 5 and 80 <= seen.max() <= 96
    assert seen.median() < 40 < seen.quantile(0.9)


def test_yes_and_no_and_low_and_high_are_balanced(sets):
    for (template, kind), frame in both(sets).group_by("template_id", "answer_type"):
        shares = frame["answer"].value_counts(normalize=True)
        if kind == "yes_no" and frame.height > 100:
            assert shares["proportion"].max() < 0.58, template
        if template.startswith("status") and kind == "category":
            assert shares["proportion"].max() < 0.58, template


BLIND = [["template_id"], ["period"], ["item"], ["item", "period"]]


@pytest.mark.parametrize("known", BLIND, ids=" and ".join)
def test_counts_cannot_be_guessed_from_the_question(sets, known):
    """The most frequent answer to the same words on train, or whichever is most frequent there, on held-out patients."""
    counts = sets["schema_alignment"].filter(pl.col("family") == "count")
    train, held_out = (counts.filter(pl.col("split") == split) for split in ("train", "held_out"))
    usual = train.group_by("answer").len().sort("len", "answer", descending=True)["answer"][0]
    ranked = train.group_by(*known, guess="answer").len().sort("len", "guess", descending=True)
    guessed = held_out.join(ranked.unique(known, keep="first", maintain_order=True), on=known, how="left")
    assert held_out.height >= 60
    assert (guessed["guess"].fill_null(usual) == guessed["answer"]).mean() < 0.5


@pytest.mark.parametrize("known", (["period"], ["item"]), ids=" and ".join)
def test_whether_a_period_holds_a_value_is_told_by_neither_item_nor_period(sets, known):
    asked = sets["schema_alignment"].filter(pl.col("template_id") == "lab_exists")
    train, others = asked.filter(pl.col("split") == "train"), asked.filter(pl.col("split") != "train")
    ranked = train.group_by(*known, guess="answer").len().sort("len", "guess", descending=True)
    guessed = others.join(ranked.unique(known, keep="first", maintain_order=True), on=known)
    assert guessed.height >= 40
    assert (guessed["guess"] == guessed["answer"]).mean() < 0.6


def test_counts_in_a_period_are_seldom_those_of_the_record(sets):
    ruled = sets["schema_alignment"].filter(
        pl.col("template_id") == "lab_count", pl.col("answer_type") != ABSENT
    )
    assert (ruled["answer"] == ruled["shortcut_answer"]).mean() < 0.5


def test_no_item_dominates(sets):
    for (template,), frame in (
        both(sets).filter(pl.col("answer_type") == "number", pl.col("item") != "").group_by("template_id")
    ):
        top = frame["item"].value_counts(normalize=True)["proportion"].max()
        assert top < (0.5 if frame["item"].n_unique() <= 5 else 0.2), template


def test_a_shortcut_rule_is_at_chance_on_clinical_questions(sets):
    ruled = sets["clinical_reasoning"].filter(
        pl.col("answer_type") != ABSENT, pl.col("shortcut_answer").is_not_null()
    )
    for (template,), frame in ruled.group_by("template_id"):
        classes = 3 if template.startswith("status") else 2
        right = (frame["answer"] == frame["shortcut_answer"]).mean()
        assert right < 1 / classes + 3 * (0.25 / frame.height) ** 0.5 + 0.03, template


def test_evidence_is_in_the_visit_and_was_known(world, sets):
    assert bucket.faults(both(sets), world[0]) == (0, 0)
    told = both(sets).filter(pl.col("answer_type") != ABSENT, pl.col("answer") != "no")
    assert told["evidence"].list.len().min() >= 1


def test_the_same_rows_in_another_order_give_the_same_bytes(few, concepts):
    *world, sets = few
    events, splits = (frame.sample(fraction=1.0, shuffle=True, seed=5) for frame in world)
    again = make.make(events, splits, concepts, registry.load())[0]
    assert {n: bucket.to_bytes(f) for n, f in again.items()} == {
        n: bucket.to_bytes(f) for n, f in sets.items()
    }


def test_a_patient_alone_is_asked_the_same(few, concepts):
    events, splits, sets = few
    some = events["patient_id"].unique().sort().head(40).implode()
    alone = make.make(events.filter(pl.col("patient_id").is_in(some)), splits, concepts, registry.load())[0]
    for name, frame in alone.items():
        assert frame.equals(sets[name].filter(pl.col("patient_id").is_in(some)))


LATER = {
    "deleted": lambda later: later.clear(),
    "other values": lambda later: later.with_columns(value=pl.col("value") * 3 - 7),
    "other texts": lambda later: later.with_columns(pl.col("text", "kind", "concept").reverse()),
    "still later": lambda later: later.with_columns(pl.col("event_at", "available_at") + pl.duration(days=9)),
    "doubled": lambda later: pl.concat([later, later.with_columns(row_id=pl.col("row_id") + "b")]),
}


@pytest.mark.parametrize("change", LATER)
@pytest.mark.parametrize("turn", [0, 1])
def test_nothing_from_the_future(few, concepts, change, turn):
    """Change everything after one cut-off of each visit: the questions up to it stay, byte for byte."""
    events, splits, sets = few
    cuts = both(sets).group_by(record.VISIT).agg(cut=pl.col("cutoff_at").unique().sort())
    cuts = cuts.with_columns(cut=pl.col("cut").list.get(turn, null_on_oob=True)).drop_nulls("cut")
    marked = events.join(cuts, on=record.VISIT)
    later = pl.col("available_at") > pl.col("cut")
    changed = pl.concat([marked.filter(~later), LATER[change](marked.filter(later))]).select(events.columns)
    again = make.make(changed, splits, concepts, registry.load())[0]
    for name, frame in sets.items():
        early = [
            f.join(cuts, on=record.VISIT).filter(pl.col("cutoff_at") <= pl.col("cut"))
            for f in (frame, again[name])
        ]
        kept = early[1].filter(pl.col("id").is_in(early[0]["id"].implode()))
        if change == "doubled":  # a visit that goes on may be cut at more places, never at other ones
            assert kept.height > 0 and kept.sort("id").equals(
                early[0].join(kept, on="id", how="semi").sort("id")
            )
        else:
            assert early[1].sort("id").equals(early[0].sort("id"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"operator": "value_on"}, "operator: unknown 'value_on'; did you mean 'value_"),
        ({"subject": "labs"}, "subject: unknown 'labs'; did you mean 'lab'"),
        ({"wordings": ["what?"]}, "wordings"),
        ({"wording": ["what was {itm}?"]}, "wording: unknown 'itm'; did you mean 'item'"),
        ({"shortcut": "last_values"}, "shortcut: unknown 'last_values'"),
        ({"periods": ["week_1"]}, "unknown period 'week_1'"),
        ({"absent_pool": "labz"}, "absent_pool: unknown 'labz'; did you mean 'labs'"),
        ({"operator": "value_end"}, "needs the key 'end'"),
        ({"working": "values"}, "working, operator: unknown 'value_at'"),
        (
            {"operator": "status_at", "shortcut": "last_status", "working": "hours"},
            "working: unknown 'hours'; use one of values",
        ),
    ],
)
def test_a_wrong_template_is_refused_with_file_key_and_mend(tmp_path, change, says):
    for file in registry.FOLDER.glob("*.yaml"):
        (tmp_path / file.name).write_bytes(file.read_bytes())
    path = tmp_path / "schema_alignment.yaml"
    content = yaml.safe_load(path.read_text())
    content["templates"][0] |= change
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(registry.RegistryError) as refused:
        registry.load(tmp_path)
    assert says in str(refused.value) and "schema_alignment.yaml: lab_value_at" in str(refused.value)


def _job(root, tmp_path, **params):
    keys = ["harmonised/events", "splits"]
    inputs = {key: catalog.load(root).version(key) for key in keys}
    outputs = [f"instructions/{name}" for name in registry.SETS]
    config = JobConfig("instructions", "night", root, "f" * 64, inputs, outputs, params)
    scratch = tmp_path / f"scratch-{len(params)}"
    scratch.mkdir()
    return Job(config, scratch, logging.getLogger("test"), None)


def _publish(root, tmp_path, events, splits, buckets):
    for k in range(buckets):
        folder = tmp_path / "events" / f"bucket={k}"
        folder.mkdir(parents=True)
        events.filter(pl.col("patient_id").hash(1) % buckets == k).write_parquet(folder / "data.parquet")
    (tmp_path / "splits").mkdir()
    splits.write_parquet(tmp_path / "splits" / "data.parquet")
    made = [
        catalog.Candidate(k, tmp_path / k.split("/")[-1], "e" * 64) for k in ("harmonised/events", "splits")
    ]
    catalog.publish(root, "first", [c for c in made if not gate.has_suite(c.key)])


def _published(root):
    accepted = catalog.load(root)
    files = [f for name in registry.SETS for f in accepted.files(f"instructions/{name}")]
    return {f.removeprefix(root): catalog.read_bytes(f) for f in files}


def test_the_job_publishes_both_sets(tmp_path, world):
    root = str(tmp_path / "data")
    events, splits = (f.filter(pl.col("patient_id").str.len_chars() <= 3) for f in world)
    _publish(root, tmp_path, events, splits, buckets=2)
    instructions.run(_job(root, tmp_path))
    here = _published(root)
    assert len(here) == 4 and not list((tmp_path / "data" / "candidates").glob("instructions-*"))
    whole = pl.concat(pl.read_parquet(io.BytesIO(content)) for content in here.values())
    assert whole["id"].is_unique().all()
    entry = catalog.load(root).entry("instructions/schema_alignment")
    assert entry["metadata"]["questions"] > 0 and entry["metadata"]["families"]["value_at_time"] > 0


@pytest.mark.night
def test_ray_makes_the_same_bytes(tmp_path, world):
    root = str(tmp_path / "data")
    events, splits = (f.filter(pl.col("patient_id").str.len_chars() <= 3) for f in world)
    _publish(root, tmp_path, events, splits, buckets=2)
    instructions.run(_job(root, tmp_path))
    here = _published(root)
    instructions.run(_job(root, tmp_path, workers=2))
    assert _published(root) == here


def test_a_bucket_that_is_done_is_not_done_again(tmp_path, world):
    root = str(tmp_path / "data")
    _publish(root, tmp_path, *world, buckets=2)
    task = instructions.plan(_job(root, tmp_path))[0]
    first = bucket.work(task)
    assert bucket.work(task | {"events": []}) == first


def test_a_person_in_two_splits_stops_the_night(tmp_path, world):
    root = str(tmp_path / "data")
    events, splits = (f.filter(pl.col("patient_id").str.len_chars() <= 3) for f in world)
    _publish(
        root,
        tmp_path,
        events,
        splits.with_columns(person_id=pl.lit("one"), person_group=pl.lit("g")),
        buckets=1,
    )
    with pytest.raises(Refused, match="split_is_by_person"):
        instructions.run(_job(root, tmp_path))
    assert "instructions/schema_alignment" not in catalog.load(root).accepted


@pytest.mark.parametrize(("minutes", "asked"), [(421, ["after"]), (301, []), (300, [])])
def test_the_side_of_an_extreme_is_not_asked_where_a_reader_cannot_tell_it(concepts, minutes, asked):
    """The drug was given at 5.0 h; a highest value at 5.0 h, to the minute or not, stands on neither side."""
    start = datetime(2150, 1, 1)
    told = [
        (0, "admission", "admission: emergency, female", None),
        (300, "prescription", "order of heparin by iv", 1.0),
    ]
    told += [
        (at, "lab", "glucose of blood in mg/dl", value)
        for at, value in ((60, 100.0), (minutes, 180.0), (540, 120.0))
    ]
    rows = [
        {"hospital": "north", "patient_id": "p", "visit_id": "v", "kind": kind, "text": text, "value": value}
        | {"event_at": start + timedelta(minutes=at), "concept": "glucose" if kind == "lab" else None}
        | {"available_at": start + timedelta(minutes=at), "row_id": f"{kind}:{at}"}
        for at, kind, text, value in told
    ]
    splits = {"hospital": ["north"], "patient_id": ["p"], "split": ["train"]}
    built = record.build(pl.DataFrame(rows, schema=COLUMNS), pl.DataFrame(splits), [[5, 5]])
    known = registry.load()
    form = next(form for form in known.templates["clinical_reasoning"] if form.id == "extreme_side")
    found = choose.candidates(form, Facts(built, known.subjects, concepts))
    assert built.records.height == 1 and found["word"].to_list() == asked
