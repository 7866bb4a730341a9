"""What a recipe learns on a finished night's questions, with several seeds: `make learn`.

    python -m ray_jobs.learn --data .wardline --recipe small --seeds 1 2 3 --write docs/learning.md

Each seed trains base model, stage 1 and stage 2 anew and is evaluated by the job that the night uses, on patients never
trained on, in a scratch data root of its own: nothing is published in the night's. Seeds run side by side and share the cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from orchestration import catalog
from ray_jobs import base_model, evaluate, metrics
from ray_jobs.cluster import cores
from ray_jobs.config import JobError
from ray_jobs.contestants import SETS
from ray_jobs.house import EVENTS, INSTRUCTIONS, MINILM, STAGES, House
from ray_jobs.llemr.recipe import Recipe

TAKEN = (EVENTS, "splits", MINILM, *INSTRUCTIONS)
SHOWN = "held_out"
ROWS = [row for row in metrics.ORDER if row not in (metrics.TRAINED_BLIND, metrics.CHAMPION)]
Figures = Mapping[str, Mapping]  # set to what evaluation says of the held-out patients


def learn(night: str, recipe: Recipe, questions: int, root: Path, log: logging.Logger) -> Figures:
    """Train all stages of one seed and evaluate them. Raises JobError, catalog.CatalogError as the jobs do."""
    house = House(root, night, TAKEN, log)
    house.job(base_model, STAGES[:1], TAKEN, "learn", {"recipe": recipe.model_dump()})
    for stage in ("stage1", "stage2"):
        house.stage(stage, MINILM, "learn", recipe)
    needs = (EVENTS, MINILM, *INSTRUCTIONS, *STAGES[1:])
    keys = [f"evaluation/{name}" for name in SETS]
    house.job(evaluate, keys, needs, "learn", {"questions_per_split": questions})
    return {
        name: json.loads((house.path(key) / "metrics.json").read_text(encoding="utf-8"))["splits"][SHOWN]
        for name, key in zip(SETS, keys, strict=True)
    }


def each(options: argparse.Namespace) -> dict[int, Figures]:
    """The figures of every seed, each by a process of its own, in rounds of as many that no core idles in the last."""
    given = ["--recipe", options.recipe, "--data", options.data, "--questions", str(options.questions)]

    def one(seed: int) -> Figures:
        found = subprocess.run(
            [sys.executable, "-m", "ray_jobs.learn", *given, "--seeds", str(seed), "--json"],
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        if found.returncode:
            raise JobError(f"seed {seed} ended with exit code {found.returncode}; what it says stands above")
        return json.loads(found.stdout.splitlines()[-1])

    rounds = max(1, len(options.seeds) // cores())
    with ThreadPoolExecutor(-(-len(options.seeds) // rounds)) as pool:
        return dict(zip(options.seeds, pool.map(one, options.seeds), strict=True))


def document(found: Mapping[int, Figures]) -> str:
    """Markdown: for each set a table of rows by seed with intervals, and one of families: stage 2 minus blind."""
    return "\n\n".join(
        part
        for name in SETS
        for part in (_by_seed(name, {s: f[name] for s, f in found.items()}), _by_family(found, name))
    )


def _by_seed(name: str, found: Mapping[int, Mapping]) -> str:
    asked = next(iter(found.values()))
    title = (
        f"{name.replace('_', ' ')}, {asked['questions']} questions of {asked['patients']} held-out patients"
    )
    lines = [f"| {title} | {' | '.join(f'seed {seed}' for seed in found)} |", "|---|" + "---|" * len(found)]
    for row in ROWS:
        if all(row in f["rows"] for f in found.values()):
            cells = (metrics.bounded(f["rows"][row]["exact"]) for f in found.values())
            lines.append(f"| {row} | {' | '.join(cells)} |")
    for row in asked["differences"]:
        cells = (metrics.bounded(f["differences"][row]) for f in found.values())
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_family(found: Mapping[int, Figures], name: str) -> str:
    figures = [f[name] for f in found.values()]
    rows = [metrics.SHORTCUT, metrics.BLIND, metrics.STAGE1, metrics.STAGE2]
    difference = f"{metrics.STAGE2} minus {metrics.BLIND}"
    lines = [
        f"| family | questions | {' | '.join(rows)} | {difference} |",
        "|---|---|" + "---|" * (len(rows) + 1),
    ]
    for family in sorted(figures[0]["rows"][metrics.BLIND]["by_family"]):
        asked = figures[0]["rows"][metrics.BLIND]["by_family"][family]["questions"]
        cells = [
            " ".join(metrics.percent(f["rows"][r]["by_family"][family]["value"]) for f in figures)
            for r in rows
        ]
        told = " ".join(
            metrics.percent(f["differences"][difference]["by_family"][family]["value"]) for f in figures
        )
        lines.append(f"| {family} | {asked} | {' | '.join(cells)} | {told} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=catalog.data_root(), help="data root of a finished night")
    parser.add_argument("--recipe", default="small")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--questions", type=int, default=1000, help="most questions of a set and split")
    parser.add_argument("--json", action="store_true", help="one seed: its figures as JSON on the last line")
    parser.add_argument("--write", type=Path, help="the document to write")
    options = parser.parse_args()
    logging.basicConfig(format="%(asctime)s %(message)s", datefmt="%H:%M:%S", level=logging.WARNING)
    log = logging.getLogger("wardline.learn")
    log.setLevel(logging.INFO)
    try:
        recipe = Recipe.named(options.recipe, seed=options.seeds[0])
        if options.json:
            with catalog.scratch("learn") as scratch:
                print(json.dumps(learn(options.data, recipe, options.questions, scratch / "root", log)))
            return
        started = time.monotonic()
        found = document(each(options))
        log.info("all seeds in %.0f s", time.monotonic() - started)
    except (JobError, catalog.CatalogError) as error:
        sys.exit(f"{error}")
    print(found)
    if options.write:
        seeds = " ".join(map(str, options.seeds))
        command = f"python -m ray_jobs.learn --recipe {options.recipe} --seeds {seeds}"
        head = (
            f"# Learning\n\n`{command}` after `make demo`: exact match within tolerance on patients never trained on, %, "
            "with 95 % intervals by patient\nbootstrap; differences in points. By family, the seeds stand side by side.\n\n"
        )
        options.write.write_text(f"{head}{found}\n", encoding="utf-8")


if __name__ == "__main__":
    main()
