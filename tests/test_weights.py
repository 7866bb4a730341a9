"""Weights outside the product: the lines that docs/weights.md shows, and what the model card says."""

import json
import re

import numpy as np
import polars as pl
import pytest
import torch

from orchestration import catalog
from ray_jobs import card, metrics
from ray_jobs.llemr import checkpoint
from tests import untaught
from tests.timeline import timeline


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = untaught.weights(tmp_path_factory.mktemp("weights") / "made", timeline(3)[0], 1)
    checkpoint.seal(made)
    return made


def documented(number: int, folder) -> dict:
    """Runs a code block of docs/weights.md with this folder in place of the path; returns its names."""
    text = (catalog.REPOSITORY / "docs" / "weights.md").read_text()
    lines, names = re.findall(r"```python\n(.*?)```", text, flags=re.S)[number], {}
    exec(re.sub(r'"path/to/[^"]*"', repr(str(folder)), lines), names)
    return names


@torch.inference_mode()
def test_plain_transformers_gives_the_same_logits(folder):
    names, ours = documented(0, folder), checkpoint.load_weights(folder)
    ids = names["tokenizer"]("what is the glucose in mg/dl ?", return_tensors="pt")["input_ids"]
    assert names["tokenizer"].get_vocab() == ours.tokenizer.get_vocab() and ids.shape[1] > 5
    assert torch.equal(names["language_model"].eval()(ids).logits, ours.lm.eval()(ids).logits)


def test_the_product_loads_what_answers(folder):
    assert callable(documented(1, folder)["champion"].answer)


def evaluation(weak: bool) -> dict:
    rng, n = np.random.default_rng(0), 120
    people = [f"p{i // 3}" for i in range(n)]
    families = ["first_last", "trend"] * (n // 2)
    asked = pl.DataFrame(
        {"hospital": "north", "patient_id": people, "family": families, "answer_type": "number"}
    )
    everywhere, learned = np.ones(n, bool), np.array([f == "first_last" or not weak for f in families])
    right = {metrics.FREQUENT: np.full(n, 0.3), metrics.STAGE2: np.where(learned, 0.9, 0.3)}
    rows = {
        name: metrics.Row({"exact": exact, "strict": exact, "f1": exact}, everywhere)
        for name, share in right.items()
        for exact in [(rng.random(n) < share).astype(float)]
    }
    difference = {"value": 0.4, "low": 0.3, "high": 0.5}
    other = {"row": "standing champion", "version": "abc"}
    splits = {s: metrics.split_metrics(asked, metrics.with_blind(rows)) for s in ("tuning", "held_out")}
    return {"splits": splits, "decision": {"split": "tuning", "difference": difference, "other": other}}


def test_the_card_holds_versions_splits_figures_with_intervals_and_limits(folder):
    found = {"schema_alignment": evaluation(weak=False), "clinical_reasoning": evaluation(weak=True)}
    card.write(folder, "v1", found)
    text = (folder / card.FILE).read_text()
    for key, version in json.loads((folder / "versions.json").read_text())["inputs"].items():
        assert f"| `{key}` | {version} |" in text
    assert "It learned from the records of hospitals that were not written down." in text
    assert "- schema_alignment, questions asked: tuning: 120 of 40 patients" in text
    exact = found["schema_alignment"]["splits"]["held_out"]["rows"][metrics.STAGE2]["exact"]
    shown = f"{100 * exact['value']:.1f} ({100 * exact['low']:.1f} to {100 * exact['high']:.1f})"
    assert f"| {metrics.STAGE2} | 120 | {shown} |" in text
    assert "against standing champion abc" in text and "at most 96 events" in text
    assert (
        "- clinical_reasoning, no better than without the record on held_out, within the interval: trend."
        in text
    )
    assert "- schema_alignment, no better" not in text and "## Intended use" in text
