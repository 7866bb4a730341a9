"""The benchmarks of training at their smallest size: both sides agree, and the figures that documents quote are there.

Whether the aims are reached is for a quiet machine (docs/benchmarks.md); slots are counted, so their ratio is judged here.
"""

import json
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest

from orchestration import catalog
from ray_jobs.llemr.data import read_frames
from tests import untaught
from tests.benchmarks import attention, embedding, loader, overhead, packing, train_gpu, training
from tests.benchmarks.common import finished


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> str:
    folder: Path = tmp_path_factory.mktemp("house")
    events = untaught.house(folder / "root", folder, admissions=60)
    for number, key in enumerate(("weights/base_model", "weights/stage1")):
        untaught.publish(folder / "root", key, untaught.weights(folder / key, events, number))
    return str(folder / "root")


def test_packing_counts_fewer_slots_for_the_same_losses(root):
    found = finished.accepted(root, "harmonised/events", "splits")
    events, splits = (read_frames(found.files(key)) for key in ("harmonised/events", "splits"))
    figures = packing.measure(events, splits, budget=96, row_length=512, admissions=8)
    assert figures["worst_loss_difference"] < 1e-5
    assert figures["ratio_slots_vs_padded_8"] > figures["ratio_slots_vs_padded_4"] > 3
    assert figures["share_of_slots_used"] > 0.8


def test_both_loaders_give_the_same_record(root):
    found = finished.accepted(root, "harmonised/events", "splits")
    events, splits = (read_frames(found.files(key)) for key in ("harmonised/events", "splits"))
    figures = loader.measure(*loader.corpus_of(events, splits, 96), steps=2, parsed_samples=4)
    assert figures["ratio_samples_vs_released_loader"] > 1


def test_both_ways_to_embed_give_the_same_vectors():
    texts = ["glucose in mg/dl", "heart rate in /min", "admission: emergency, male"]
    events = pl.DataFrame({"hospital": "north", "visit_id": "v1", "text": texts * 12}).with_columns(
        event_at=pl.int_range(pl.len()), row_id=pl.int_range(pl.len())
    )
    figures = embedding.measure(events, texts=3, most_events=36, repeats=1)
    assert figures["events"] == 36 and figures["distinct_texts_of_them"] == 3


def in_its_own_process(name: str, *options: str) -> dict:
    """DeepSpeed's process group would stay with the tests that come after."""
    command = [sys.executable, "-m", f"tests.benchmarks.{name}", *options]
    done = subprocess.run(command, cwd=catalog.REPOSITORY, capture_output=True, text=True, check=False)
    assert not done.returncode, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_both_attentions_of_a_cpu_give_the_same():
    assert attention.measure(rounds=1)["fused_ms_bf16_150"] > 0


def test_the_trainer_of_hugging_face_follows_the_same_curve(root):
    figures = in_its_own_process("training", "--data", root, "--steps", "3")
    assert figures["worst_loss_difference"] < training.TOLERANCE
    assert figures["ours_real_tokens_a_question"] < figures["hf_trainer_real_tokens_a_question"]


def test_deepspeed_follows_the_plain_loop(root):
    figures = in_its_own_process("overhead", "--data", root, "--steps", "3", "--without-ray")
    assert figures["deepspeed_0_worst_loss_difference"] < overhead.TOLERANCE
    assert {"forward", "backward", "step"} <= figures["deepspeed_0_by_part"].keys()


def test_the_gpu_benchmark_runs_its_smallest_shape():
    figures = train_gpu.measure("smallest", steps=3)
    assert figures["ratio_tokens_vs_hf_trainer"] > 0 and figures["stage1_share_of_ceiling"] > 0
