"""The model card that lies beside a champion: what it was made from, what was measured, what it is for and what not."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import yaml

from ray_jobs import metrics

FILE = "MODEL_CARD.md"
USE = """## Intended use

Research on reading health records, and trying out this platform on a hospital's own data. It answers questions of the forms of
`ray_jobs/templates/` about one visit, from the events that were known by a given time, or says "not in the record".

It is no medical device. Do not decide about a patient by it, and do not ask it what the evaluation above did not ask.
"""
LIMITS = """## Limits

- It reads at most {budget} events of a visit; a longer one is thinned (the newest event of each thing first), so that what it calls "not
  in the record" may have been thinned away.
- It reads one visit at a time and nothing of earlier ones; each question alone, without the conversation before.
- Its answers are greedy and carry no probability; those of yes/no tasks are in `evaluation/llemr`, calibrated apart.
- The figures are of the hospitals and the time span of these data versions. Another hospital, another time: measure again.
- Weights can hold traces of the records they were trained on. Treat them as you treat those records.
{weak}"""


def write(folder: Path, version: str, evaluations: Mapping[str, Mapping]) -> None:
    """Write the card into a weights directory.

    evaluations: set name to the content of its metrics.json; the rows of stage 2 are this model's.
    """
    known = {name: _read(folder / f"{name}.json") for name in ("versions", "llemr")}
    recipe = yaml.safe_load((folder / "recipe.yaml").read_text(encoding="utf-8"))
    text = "\n".join(
        [
            f"# {recipe.get('name', 'a model')}, version {version}",
            "",
            "A language model that reads the events of a hospital visit through a projector, trained in two stages "
            "([Llemr](https://github.com/zzachw/llemr)). How to load it is said in `docs/weights.md` of Wardline.",
            "",
            _made_from(known["versions"], recipe),
            _splits(evaluations),
            _measured(evaluations),
            USE,
            LIMITS.format(
                budget=known["llemr"].get("event_budget", "its budget of"), weak=_weak(evaluations)
            ),
        ]
    )
    (folder / FILE).write_text(text.rstrip() + "\n", encoding="utf-8")


def _read(file: Path) -> dict:
    return json.loads(file.read_text(encoding="utf-8"))


def _made_from(versions: Mapping[str, Mapping], recipe: Mapping) -> str:
    rows = [f"| `{key}` | {version} |" for key, version in sorted(versions["inputs"].items())]
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions["packages"].items()))
    taught = ", ".join(versions.get("hospitals", [])) or "hospitals that were not written down"
    told = f"It learned from the records of {taught}. Recipe `recipe.yaml` (seed {recipe.get('seed')}, {recipe.get('precision')}); {packages}."
    return "\n".join(["## Made from", "", "| data | version |", "|---|---|", *rows, "", told, ""])


def _splits(evaluations: Mapping[str, Mapping]) -> str:
    lines = [
        "## Splits",
        "",
        "By person, from a hash of the person's id: 80 % train, 10 % tuning, 10 % held_out. Weights are fitted on train, the "
        "promotion is decided on tuning, held_out is only reported.",
        "",
    ]
    for name, content in evaluations.items():
        parts = [f"{s}: {f['questions']} of {f['patients']} patients" for s, f in content["splits"].items()]
        lines.append(f"- {name}, questions asked: {'; '.join(parts)}")
    return "\n".join([*lines, ""])


def _measured(evaluations: Mapping[str, Mapping]) -> str:
    lines = [
        "## Measured",
        "",
        f"This model is the row `{metrics.STAGE2}`; intervals are of the patient bootstrap, 95 %.",
        "",
    ]
    for name, content in evaluations.items():
        for split, figures in content["splits"].items():
            lines += [metrics.table(figures, f"{name}, {split}"), ""]
    decision = next(iter(evaluations.values()))["decision"]
    gain = decision["difference"]
    lines.append(
        f"Promoted on {decision['split']}: {gain['value']:+.3f} ({gain['low']:+.3f} to {gain['high']:+.3f}) exact match "
        f"against {decision['other']['row']}{_version(decision['other'])}, mean of the sets."
    )
    return "\n".join([*lines, ""])


def _version(other: Mapping[str, str | None]) -> str:
    return f" {other['version']}" if other["version"] else ""


def _weak(evaluations: Mapping[str, Mapping]) -> str:
    """The families of questions in which it is not told apart from a model that saw no record."""
    name, lines = f"{metrics.STAGE2} minus {metrics.BLIND}", []
    for of, content in evaluations.items():
        split = next((s for s in ("held_out", "tuning") if s in content["splits"]), None)
        gains = content["splits"][split]["differences"][name]["by_family"] if split else {}
        weak = sorted(family for family, gain in gains.items() if gain["low"] is None or gain["low"] <= 0)
        if weak:
            lines.append(
                f"- {of}, no better than without the record on {split}, within the interval: {', '.join(weak)}."
            )
    return "\n".join(lines)
