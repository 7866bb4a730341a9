"""Job: one stage of fine-tuning, by Ray Train and DeepSpeed.

Stage 1 trains the projector on schema questions, with the language model frozen; stage 2 trains both on schema and
clinical questions, and the blind control beside them; `predictor` trains the champion on the tasks' yes/no questions. The
run's name is the stage and the fingerprint of its inputs, so a retry goes on where the last try ended and a new night starts
afresh. The weights directory is consolidated, reloaded in a fresh process and compared before it is published.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import fsspec
import ray.train
import safetensors.torch
import torch
from ray.train.torch import TorchConfig, TorchTrainer

from orchestration import catalog
from ray_jobs import plots
from ray_jobs.cluster import cores
from ray_jobs.config import JobError
from ray_jobs.llemr import adapters, checkpoint, memory, worker
from ray_jobs.llemr.data import dictionary, read_frames
from ray_jobs.llemr.progress import Board, Curves, shown
from ray_jobs.llemr.recipe import Recipe, StageRecipe
from ray_jobs.llemr.reload import write_probe
from ray_jobs.runtime import Check, Job, main

CONCEPTS = str(catalog.REPOSITORY / "dbt_project/seeds/concepts.csv")
STARTS = {"stage1": "weights/base_model", "stage2": "weights/stage1", "predictor": "weights/champion"}
RELOAD_TIMEOUT_S = 600
CURVES = {
    "loss": "loss a token",
    "tokens_a_second": "real tokens a second",
    "memory_gb": "memory of the first worker in GB",
    "mfu": "share of the GPUs' peak",
}


def run(job: Job) -> None:
    recipe = Recipe.of(job.params["recipe"])
    stage = job.params.get("stage")
    if stage not in STARTS:
        raise JobError(f"params.stage is {stage!r}; it is one of {', '.join(STARTS)}")
    recipe.stage(stage)
    start = job.path(STARTS[stage])
    weights = checkpoint.load_weights(start)
    projector = sum(p.numel() for p in weights.model().projector.parameters())
    parameters = sum(p.numel() for p in weights.lm.parameters())
    needed = memory.must_fit(recipe, stage, weights.lm.config, parameters, projector)
    job.log.info(
        "%s: %.2f M parameters and a projector of %.2f M; about %.1f GB a worker, %d workers, ZeRO %d, %s",
        *(
            stage,
            parameters / 1e6,
            projector / 1e6,
            needed.total,
            recipe.workers,
            recipe.zero_stage,
            recipe.precision,
        ),
    )
    with job.ray(num_cpus=recipe.workers * recipe.cpus_per_worker):
        states, figures, curves = fit(job, recipe, stage)
    write(job, recipe, stage, weights, states, figures, curves)


def fit(job: Job, recipe: Recipe, stage: str) -> tuple[dict, dict, Curves]:
    """Train by Ray; returns (parameters by phase, figures, curves).

    While it runs, and after it failed, the curves lie in the data root (where that is local) as TensorBoard files.
    Raises JobError if the loss went wrong, or if a worker failed more often than the recipe allows.
    """
    storage = catalog.join(job.config.root, "training")
    name = f"{stage}-{job.config.fingerprint[:12]}"
    board = Board.remote()
    trainer = TorchTrainer(
        worker.run,
        train_loop_config=spec(job, recipe, stage) | {"board": board},
        torch_config=TorchConfig(backend="nccl" if recipe.gpus_per_worker else "gloo"),
        scaling_config=ray.train.ScalingConfig(
            num_workers=(recipe.min_workers, recipe.workers) if recipe.min_workers else recipe.workers,
            use_gpu=recipe.gpus_per_worker > 0,
            resources_per_worker={"CPU": recipe.cpus_per_worker, "GPU": recipe.gpus_per_worker},
        ),
        run_config=ray.train.RunConfig(
            name=name,
            storage_path=storage,
            failure_config=ray.train.FailureConfig(max_failures=recipe.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    failed = None
    local = catalog.is_local(job.config.root)
    live = (Path(job.config.root) if local else job.scratch) / "tensorboard" / name
    job.log.info("curves: tensorboard --logdir %s", live)
    with shown(board, job.log, live) as curves:
        try:
            result = trainer.fit()
        except ray.train.TrainingFailedError as error:
            failed = error
    if curves.stopped:
        if not finished_phase(storage, name, stage):  # else a retry goes on from there
            forget(storage, name)
        raise JobError(curves.stopped)
    if failed:
        raise JobError(
            f"{stage}: a worker failed more than {recipe.max_failures} times ({type(failed).__name__}); the frames are "
            "in Ray's log; a retry goes on from the last checkpoint"
        ) from failed
    with result.checkpoint.as_directory() as folder:
        states = {path.stem: safetensors.torch.load_file(path) for path in Path(folder).glob("*.safetensors")}
        figures = json.loads((Path(folder) / "phase.json").read_text())["figures"]
    # also what runs of other inputs left that failed and were never tried again
    forget(storage, f"{stage}-*")
    shutil.rmtree(live, ignore_errors=True)  # the weights have them
    return states, figures, curves


def spec(job: Job, recipe: Recipe, stage: str) -> dict[str, object]:
    """What a worker is told: URLs and settings, no data."""
    sets = recipe.stage(stage).sets
    embeddings = next(key for key in job.config.inputs if key.startswith("embeddings/"))

    def folder(key: str) -> str:
        return catalog.join(job.config.root, key, job.entry(key)["version"])

    return {
        "recipe": recipe.model_dump(),
        "stage": stage,
        "source": {
            "events": job.files("harmonised/events"),
            "instructions": {name: job.files(f"instructions/{name}") for name in sets},
            "says": recipe.says,
            "embeddings": folder(embeddings),
            "dictionary": dictionary(CONCEPTS),
        },
        "start": folder(STARTS[stage]),
        "base": folder("weights/base_model") if recipe.stage(stage).blind_steps else None,
        "threads": 4
        if recipe.gpus_per_worker
        else min(recipe.cpus_per_worker, max(1, cores() // recipe.workers)),
    }


def finished_phase(storage: str, name: str, stage: str) -> bool:
    """Whether a checkpoint of this run holds the stage's trained parameters; the phase after it is what failed."""
    fs, root = fsspec.core.url_to_fs(storage)
    return bool(fs.glob(f"{root.rstrip('/')}/{name}/*/{stage}.safetensors"))


def forget(storage: str, name: str) -> None:
    """Remove the checkpoints of the runs of this name, a pattern; what is worth keeping is in the weights directory."""
    fs, root = fsspec.core.url_to_fs(storage)
    for folder in fs.glob(f"{root.rstrip('/')}/{name}"):
        fs.rm(folder, recursive=True)


def write(job: Job, recipe: Recipe, stage: str, weights, states: dict, figures: dict, curves: Curves) -> None:
    """Consolidate, reload in a fresh process, publish."""
    key = f"weights/{stage}"
    folder = job.output(key)
    inputs = job.config.inputs
    said = recipe.model_dump(exclude_none=True)
    if "aligned" in states:
        apply(weights, states["aligned"])
        checkpoint.save(folder / "aligned", weights, said, {}, inputs, lm_at="..")
    if "blind" in states:
        base = checkpoint.load_weights(job.path("weights/base_model"))
        apply(base, states["blind"], recipe.stage(stage))
        checkpoint.save(folder / "blind", base, said, {"loss": figures["blind_loss"]}, inputs)
    apply(weights, states[stage], recipe.stage(stage))
    frozen = stage == "stage1" or recipe.stage(stage).train == "projector"
    lm_at = weights.lm_at if frozen else None  # a pretrained model that did not change need not be copied
    checkpoint.save(folder, weights, said, figures, inputs, lm_at, taught_by(job, recipe, stage))
    curves.tensorboard(folder / "tensorboard")
    checkpoint.seal(folder)
    passed, metadata = reloads(job, folder, weights)
    check = Check(key, "reloads_and_answers", passed, metadata=metadata)
    drawn = {
        f"{name}_curve": plots.loss_curve(points, f"{stage}, {what}", what)
        for name, what in CURVES.items()
        if (points := curves.points(name))
    }
    job.publish({key: {**figures, **drawn}}, [check])


def taught_by(job: Job, recipe: Recipe, stage: str) -> set[str]:
    """Hospitals that this stage's questions are of, and those that the weights it began with learned from."""
    files = [url for name in recipe.stage(stage).sets for url in job.files(f"instructions/{name}")]
    before = checkpoint.learned_from(job.path(STARTS[stage])) or []
    return {*read_frames(files, ["hospital"])["hospital"].unique(), *before}


def apply(
    weights: checkpoint.Weights, state: dict[str, torch.Tensor], stage: StageRecipe | None = None
) -> None:
    """Put trained parameters (names as in `Llemr`) into the weights; adapters are merged, so that none are left."""
    model = weights.model()
    adapted = any(".lora_" in name for name in state)
    tuner = adapters.add(model.lm, stage) if adapted else None
    left = model.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=False)
    if left.unexpected_keys:
        raise RuntimeError(f"{len(left.unexpected_keys)} trained parameters have no place in the model")
    if tuner:
        weights.lm = tuner.merge_and_unload()
    if any(name.startswith("projector.") for name in state):
        weights.projector = model.projector


def reloads(job: Job, folder: Path, weights: checkpoint.Weights) -> tuple[bool, dict[str, object]]:
    """Read the files in a fresh process: the same logits as here, and an answer."""
    probe = job.scratch / "probe.safetensors"
    write_probe(weights, probe)
    command = [sys.executable, "-m", "ray_jobs.llemr.reload", str(folder), str(probe)]
    done = subprocess.run(
        command, cwd=catalog.REPOSITORY, capture_output=True, text=True, timeout=RELOAD_TIMEOUT_S, check=False
    )
    if done.returncode:
        return False, {"error": "the weights directory does not load in a fresh process"}
    found = json.loads(done.stdout.splitlines()[-1])
    return found["difference"] == 0 and found["answered"], found


if __name__ == "__main__":
    main(run)
