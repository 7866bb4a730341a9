"""Both stages of training a 7B model of Llama shape on one GPU, against the Hugging Face Trainer's defaults in the same run.

    python -m tests.benchmarks.train_gpu     # random weights, bf16: some 100 GiB with fp32 masters, half without

On a machine without a GPU it takes the smallest shape, in seconds, to see that it runs.


Needs torch and transformers alone. Ours: records packed with their questions, flex attention, logits on answers only, gradient
checkpointing in stage 2, AdamW on fp32 masters if memory allows; with DeepSpeed at hand, its engine too (ZeRO 0). The
Trainer: one question a row, batches of 8, or of the largest half that fits, on a bf16 model, everything else as it comes.
Real tokens are those that are no padding, each time the model runs them. The ceiling is a bf16 product of two large
matrices, measured first; a model's share of it counts 6 operations a parameter and token in stage 2 and 4 in stage 1 (the frozen
model takes no gradients of its weights), attention besides, and nothing for what checkpointing computes twice.
"""

import argparse
import gc
import importlib.util
import json
import os
import statistics
import tempfile
import time

import numpy as np
import torch

from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.packing import FLEX_BLOCK, Batch, pack
from tests.benchmarks.common import padded
from tests.benchmarks.common.llama_shapes import (
    BEFORE,
    FEATURES,
    QUESTIONS,
    SHAPES,
    Shape,
    build,
    ceiling,
    flops,
    records,
    seconds_of,
    wait,
)


class Masters:
    """AdamW on fp32 copies of bf16 parameters."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float = 1e-5):
        self.parameters = parameters
        self.copies = [p.detach().float().requires_grad_() for p in parameters]
        self.adam = torch.optim.AdamW(self.copies, lr=lr, fused=True)

    def step(self) -> None:
        for parameter, copied in zip(self.parameters, self.copies, strict=True):
            copied.grad, parameter.grad = parameter.grad.float(), None
        torch.nn.utils.clip_grad_norm_(self.copies, 1.0)
        self.adam.step()
        for parameter, copied in zip(self.parameters, self.copies, strict=True):
            parameter.data.copy_(copied)
            copied.grad = None


class Plain:
    """AdamW on the bf16 parameters themselves, as the Trainer does it."""

    def __init__(self, parameters: list[torch.nn.Parameter], lr: float = 1e-5):
        self.parameters, self.adam = parameters, torch.optim.AdamW(parameters, lr=lr, fused=True)

    def step(self) -> None:
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.adam.step()
        self.adam.zero_grad()


def ours(
    model: Llemr, shape: Shape, stage: str, steps: int, masters: bool, deepspeed: bool, top: float
) -> dict:
    """Train `steps` steps of one stage; medians of all but the first two."""
    device = next(model.parameters()).device
    model.lm.requires_grad_(stage == "stage2")
    if stage == "stage2":
        model.lm.gradient_checkpointing_enable({"use_reentrant": False})
    trained = [p for p in model.parameters() if p.requires_grad]
    table = torch.randn(shape.events[1], FEATURES, device=device)
    engine = with_deepspeed(model) if deepspeed else None
    optimizer = None if engine else (Masters if masters else Plain)(trained)
    seconds, tokens, share = [], [], []
    for step in range(steps):
        units = records(shape, shape.records, step)
        batch = pack(BEFORE, units, shape.row_length, FLEX_BLOCK).to(device)
        features = table[torch.from_numpy(batch.events).to(device)]

        def once(batch: Batch = batch, features: torch.Tensor = features) -> None:
            _, loss = (engine or model)(batch, features)
            mean = loss / len(batch.target)
            if engine:
                engine.backward(mean)
                engine.step()
            else:
                mean.backward()
                optimizer.step()

        spent = seconds_of(once, device)
        seconds.append(spent)
        tokens.append(batch.tokens / spent)
        share.append(flops(model, units, batch, 6 if stage == "stage2" else 4) / spent / top)
    settled = slice(min(2, steps - 1), None)
    return {
        "tokens_a_second": round(statistics.median(tokens[settled]), 1),
        "questions_a_second": round(shape.records * QUESTIONS / statistics.median(seconds[settled]), 2),
        "share_of_ceiling": round(statistics.median(share[settled]), 4),
    }


def with_deepspeed(model: Llemr):
    """DeepSpeed's engine with bf16 and fp32 masters, as a group of one."""
    import deepspeed

    given = {
        "RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": "29511",
    }
    os.environ.update(given)
    deepspeed.init_distributed(verbose=False)
    settings = {
        "train_micro_batch_size_per_gpu": 1,
        "gradient_clipping": 1.0,
        "bf16": {"enabled": True},
        "zero_optimization": {"stage": 0},
        "optimizer": {"type": "AdamW", "params": {"lr": 1e-5, "torch_adam": True}},
        "steps_per_print": 10**9,
    }
    parameters = [p for p in model.parameters() if p.requires_grad]
    return deepspeed.initialize(model=model, model_parameters=parameters, config=settings)[0]


def theirs(model: Llemr, shape: Shape, steps: int) -> dict:
    """`transformers.Trainer` with its defaults on the same questions; its batch is halved until it fits."""
    from transformers import Trainer, TrainerCallback, TrainingArguments

    device = next(model.parameters()).device
    table = torch.randn(shape.events[1], FEATURES)
    questions = [(e, q, a) for e, asked in records(shape, steps * 8, 0) for q, a in asked]
    model.lm.requires_grad_(True)
    model.lm.gradient_checkpointing_disable()
    if device.type == "cuda":
        model.lm.set_attn_implementation("sdpa")
    batch_size = 8
    while True:
        real, marks = [], []

        def collate(rows: list, real: list = real) -> dict[str, torch.Tensor]:
            batch = padded.pad(BEFORE, rows)
            real.append(batch.tokens)
            shown = {name: getattr(batch, name) for name in ("ids", "attention", "labels", "event_at")}
            return shown | {"features": table[batch.events]}

        class Clock(TrainerCallback):
            def on_step_end(self, *_, marks: list = marks, **__):
                wait(device)
                marks.append(time.perf_counter())

        with tempfile.TemporaryDirectory() as folder:
            arguments = TrainingArguments(
                output_dir=folder,
                per_device_train_batch_size=batch_size,
                max_steps=steps,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                use_cpu=device.type == "cpu",
            )
            trainer = Trainer(
                model=padded.OneByOne(model), args=arguments, train_dataset=questions, data_collator=collate,
                callbacks=[Clock()],
            )  # fmt: skip
            try:
                trainer.train()
                break
            except torch.OutOfMemoryError:
                if batch_size == 1:
                    return {"out_of_memory": True}
        batch_size //= 2
        del trainer
        model.zero_grad(set_to_none=True)
        torch.cuda.empty_cache()
    spent = float(np.median(np.diff(marks)))
    return {
        "batch": batch_size,
        "tokens_a_second": round(statistics.median(real[1:steps]) / spent, 1),
        "questions_a_second": round(batch_size / spent, 2),
    }


def measure(name: str, steps: int = 12) -> dict[str, object]:
    shape = SHAPES[name]
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    top = ceiling(shape, device)
    model = build(shape, device)
    parameters = sum(p.numel() for p in model.parameters())
    memory = torch.cuda.get_device_properties(0).total_memory if device.type == "cuda" else 2**40
    masters = parameters * 16 < 0.85 * memory
    figures: dict[str, object] = {
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "shape": name, "parameters": parameters, "ceiling_tflops": round(top / 1e12, 3), "fp32_masters": masters,
    }  # fmt: skip
    for stage in ("stage1", "stage2"):
        figures |= named(stage, ours(model, shape, stage, steps, masters, False, top))
    usual = theirs(model, shape, steps)
    figures |= named("hf_trainer", usual)
    if masters and importlib.util.find_spec("deepspeed") and device.type == "cuda":
        figures |= named("stage2_deepspeed", ours(model, shape, "stage2", steps, masters, True, top))
    for what in ("tokens", "questions"):
        if f"{what}_a_second" in usual:
            ratio = figures[f"stage2_{what}_a_second"] / usual[f"{what}_a_second"]
            figures[f"ratio_{what}_vs_hf_trainer"] = round(ratio, 2)
    return figures


def named(side: str, found: dict) -> dict:
    gc.collect()  # DeepSpeed's engine holds itself
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    return {f"{side}_{name}": value for name, value in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    usual = "7b" if torch.cuda.is_available() else "smallest"
    parser.add_argument("--shape", choices=list(SHAPES), default=usual)
    parser.add_argument("--steps", type=int, default=12)
    options = parser.parse_args()
    print(json.dumps(measure(options.shape, options.steps)))


if __name__ == "__main__":
    main()
