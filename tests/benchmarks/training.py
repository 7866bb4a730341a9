"""Training the recipe `tiny`: the Hugging Face Trainer's defaults on the same model and data, against ours.

    python -m tests.benchmarks.training --data <data root of a finished night>

Both start from the same weights and take the same questions in each step, with the same optimizer and rates, so that the loss
curves must agree. The Trainer has one question a row, batches of 8 padded to their longest, accumulated to a step's
questions, and logits everywhere: its defaults. Ours is the worker's own engine: records shared and packed, logits on answers
only, DeepSpeed included, with the ZeRO stage of the recipe and with 2. What Ray adds is in `tests.benchmarks.overhead`. A real token is one that is no padding, counted each
time the model runs it. CPU seconds of this process, one thread, medians of the steps after the first few.
"""

import itertools
import json
import os
import socket
import tempfile
import time
from collections.abc import Sequence

import numpy as np
import torch

from ray_jobs.llemr import checkpoint, engine
from ray_jobs.llemr.corpus import Corpus
from ray_jobs.llemr.engine import Trainer
from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.plan import Plan, Row
from ray_jobs.llemr.recipe import Recipe, StageRecipe
from tests.benchmarks.common import finished, padded

QUESTIONS = 48  # a step; about as many as 16 rows of `tiny` hold
BATCH = 8  # the Trainer's default
WARM, TOLERANCE = 3, 1e-3


class Steps:
    """The plan's questions in steps of QUESTIONS each; ours groups them by record, the Trainer takes them one by one."""

    def __init__(self, corpus: Corpus, steps: int):
        self.questions = corpus.questions
        plan, self.order = Plan(corpus.questions, 16, 0.0, seed=1), []
        for step in itertools.count():
            if len(self.order) >= steps * QUESTIONS:
                break
            self.order += [int(i) for row in plan.step(step) for i in row.questions]

    def step(self, step: int) -> list[Row]:
        by_record: dict[int, list[int]] = {}
        for i in self.order[step * QUESTIONS : (step + 1) * QUESTIONS]:
            by_record.setdefault(int(self.questions.record[i]), []).append(i)
        return [Row(self.questions.records[r], np.array(asked)) for r, asked in by_record.items()]

    def targets(self, rows: list[Row]) -> int:
        return sum(len(self.questions.answer[i]) for row in rows for i in row.questions)


def curve_of_theirs(model: Llemr, corpus: Corpus, plan: Steps, stage: StageRecipe, steps: int) -> dict:
    """Losses, CPU seconds and real tokens of each step by `transformers.Trainer`."""
    from transformers import Trainer as HuggingFaceTrainer
    from transformers import TrainerCallback, TrainingArguments

    asked, tokens = corpus.questions, []

    def collate(indices: Sequence[int]) -> dict[str, torch.Tensor]:
        rows = [(asked.records[asked.record[i]], asked.prompt[i], asked.answer[i]) for i in indices]
        batch = padded.pad(corpus.before, rows)
        tokens.append(batch.tokens)
        shown = {name: getattr(batch, name) for name in ("ids", "attention", "labels", "event_at")}
        return shown | {"features": corpus.features[batch.events]}

    class Clock(TrainerCallback):
        losses, at = [], []

        def on_step_begin(self, *_, **__):
            self.at.append(time.process_time()) if not self.at else None

        def on_step_end(self, *_, **__):
            self.at.append(time.process_time())

        def on_log(self, args, state, control, logs=None, **_):
            if logs and "loss" in logs:
                self.losses.append(float(logs["loss"]))

    adam = torch.optim.AdamW(engine.groups(stage, model), betas=(0.9, 0.98), weight_decay=0.0)
    clock = Clock()
    trainer = HuggingFaceTrainer(
        model=padded.OneByOne(model),
        args=TrainingArguments(
            output_dir=tempfile.gettempdir(),
            per_device_train_batch_size=BATCH,
            gradient_accumulation_steps=QUESTIONS // BATCH,
            max_steps=steps,
            train_sampling_strategy="sequential",
            logging_steps=1,
            save_strategy="no",
            report_to="none",
            disable_tqdm=True,
            remove_unused_columns=False,
            use_cpu=not torch.cuda.is_available(),
        ),
        train_dataset=plan.order,
        data_collator=collate,
        optimizers=(
            adam,
            torch.optim.lr_scheduler.LambdaLR(adam, lambda step: engine.rate(stage, step, steps)),
        ),
        callbacks=[clock],
    )
    trainer.train()
    per_step = QUESTIONS // BATCH
    return {
        "losses": clock.losses,
        "seconds": np.diff(clock.at),
        "tokens": [sum(tokens[i * per_step : (i + 1) * per_step]) for i in range(steps)],
    }


def curve_of_ours(trainer: Trainer, steps: int) -> dict:
    losses, tokens, at = [], [], [time.process_time()]
    for step in range(steps):
        loss, _, real = trainer.step(step)
        losses.append(loss)
        tokens.append(real)
        at.append(time.process_time())
    return {"losses": losses, "seconds": np.diff(at), "tokens": tokens}


def alone() -> None:
    """This process as a group of one worker, as Ray Train would set it up; DeepSpeed bears no second group in a process."""
    if torch.distributed.is_initialized():
        return
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")


def fresh(root: str, start: str) -> Llemr:
    """The model that stage 2 starts from; a new projector by a fixed seed if `start` has none."""
    torch.manual_seed(0)
    return checkpoint.load_weights(finished.accepted(root).folder(start)).model()


def measure(root: str, recipe: Recipe, start: str = "weights/stage1", steps: int = 20) -> dict[str, object]:
    torch.set_num_threads(1)
    corpus = finished.corpus_of(root, start, recipe)
    plan = Steps(corpus, steps)
    stage = recipe.stage2.model_copy(update={"rows": QUESTIONS, "micro_batch_rows": QUESTIONS})
    model = fresh(root, start)
    sides = {"hf_trainer": curve_of_theirs(model, corpus, plan, stage, steps)}
    alone()
    for name, zero in (("ours", recipe.zero_stage), ("ours_zero_2", 2)):
        changed = recipe.model_copy(update={"zero_stage": zero})
        sides[name] = curve_of_ours(Trainer(fresh(root, start), corpus, plan, stage, changed, steps), steps)
    curves = np.array([side["losses"] for side in sides.values()])
    worst = float(np.ptp(curves, axis=0).max())
    if worst > TOLERANCE:
        raise SystemExit(f"the loss curves differ by {worst}")
    figures: dict[str, object] = {
        "steps": steps,
        "questions_a_step": QUESTIONS,
        "zero_stage": recipe.zero_stage,
    }
    figures |= {"worst_loss_difference": worst, "first_loss": curves[0, 0], "last_loss": curves[0, -1]}
    for name, side in sides.items():
        second, tokens = (
            float(np.median(side["seconds"][min(WARM, steps - 1) :])),
            float(np.mean(side["tokens"])),
        )
        figures |= {
            f"{name}_cpu_s_a_step": round(second, 4),
            f"{name}_questions_a_cpu_second": round(QUESTIONS / second, 1),
            f"{name}_real_tokens_a_cpu_second": round(tokens / second),
            f"{name}_real_tokens_a_question": round(tokens / QUESTIONS, 1),
        }
    for what in ("questions", "real_tokens"):
        usual = figures[f"hf_trainer_{what}_a_cpu_second"]
        for name, ending in (("ours", ""), ("ours_zero_2", "_zero_2")):
            ratio = figures[f"{name}_{what}_a_cpu_second"] / usual
            figures[f"ratio_{what}_vs_hf_trainer{ending}"] = round(ratio, 2)
    return figures


def tiny() -> Recipe:

    return Recipe.named("tiny")


def main() -> None:
    parser = finished.parser(__doc__)
    parser.add_argument("--steps", type=int, default=20)
    options = parser.parse_args()
    print(json.dumps(measure(options.data, tiny(), steps=options.steps)))


if __name__ == "__main__":
    main()
