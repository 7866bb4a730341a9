"""Paraphrases: the same question in other words, by rules of this registry or by a language model, each one checked.

A paraphrase is kept only if every number with its unit, every entity, every word of time and every word of polarity
or direction of the original stands in it as often as before, and no other; otherwise the original stays.
"""

from __future__ import annotations

import re
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import polars as pl
import yaml
from pydantic import BaseModel, ConfigDict, Field

from ray_jobs.questions import draw, endpoint

WHERE = "params.paraphrase"
RULES = Path(__file__).resolve().parent.parent / "templates" / "paraphrases.yaml"
PROMPT = (
    "Say the question in other words, in lower case, as a clinician would. Keep every number, unit, name, time and "
    "direction as it is. Reply with the question alone."
)
NUMBER = re.compile(
    r"\d+(?:[.:]\d+)*(?:\s*%|\s*(?:[a-z]{1,6}/[a-z]{1,4}\b|/min\b|(?:hours?|years?|mmhg|ml|mg|ug|h|c|g)\b))?"
)


class LocalSettings(BaseModel):
    """params.paraphrase with `by: rules`: the share of the questions that are said in other words."""

    model_config = ConfigDict(extra="forbid")
    by: Literal["rules"]
    share: float = Field(gt=0, le=1)


class ModelSettings(endpoint.EndpointSettings):
    """params.paraphrase with `by: endpoint`: the endpoint, the share, and how many questions are sent at once."""

    by: Literal["endpoint"]
    share: float = Field(gt=0, le=1)
    parallel: int = Field(default=8, ge=1)


def settings(params: dict | None) -> LocalSettings | ModelSettings | None:
    """None if not configured. Raises JobError for a wrong key, and for a host that is not allowed."""
    if not params:
        return None
    kind = ModelSettings if params.get("by") == "endpoint" else LocalSettings
    return endpoint.checked(kind, params, WHERE)


def apply(
    questions: pl.DataFrame, chosen: LocalSettings | ModelSettings, path: Path = RULES
) -> tuple[pl.DataFrame, dict[str, int]]:
    """(questions with the column `question` said anew where that was drawn and passed the check, counts by outcome).

    The id of a question stays that of its registered wording. Counts: `kept`, `unchanged`, and one a reason of refusal.
    """
    rules = load(path)
    keys = pl.Series("key", [draw.key_of(i) for i in questions["id"]], dtype=pl.UInt64)
    wanted = draw.share(keys, "paraphrase") < chosen.share
    places = [i for i, drawn in enumerate(wanted) if drawn]
    originals = questions["question"].to_list()
    if isinstance(chosen, ModelSettings):
        with ThreadPoolExecutor(chosen.parallel) as pool:
            said = list(pool.map(lambda i: _by_model(originals[i], chosen), places))
    else:
        said = [by_rules(originals[i], int(keys[i]), rules) for i in places]
    counts: Counter[str] = Counter()
    names = questions.select("item", "other").rows()
    for place, words in zip(places, said, strict=True):
        reason = (
            "unchanged"
            if words == originals[place]
            else refusal(originals[place], words, names[place], rules)
        )
        counts[reason or "kept"] += 1
        if not reason:
            originals[place] = words
    return questions.with_columns(question=pl.Series(originals, dtype=pl.String)), dict(counts)


class Rules(BaseModel):
    """paraphrases.yaml: `frames`, sentences in other words by a pattern; `words` that must survive, by kind."""

    model_config = ConfigDict(extra="forbid")
    frames: dict[str, list[str]]
    words: dict[str, list[str]]


def load(path: Path = RULES) -> Rules:
    """The rules of the local paraphraser and of the check."""
    return endpoint.checked(Rules, yaml.safe_load(path.read_text()), path.name)


def by_rules(question: str, key: int, rules: Rules) -> str:
    """The question in the frame that the key draws, of those whose pattern it fits; else the question itself."""
    for pattern, frames in rules.frames.items():
        if found := re.fullmatch(pattern, question):
            return frames[key % len(frames)].format(*found.groups(), **found.groupdict())
    return question


def refusal(original: str, said: str, names: tuple[str, ...], rules: Rules) -> str | None:
    """Why a paraphrase is not kept: `empty`, `number`, `entity`, or the kind of words that changed; None if it may stay."""
    said = " ".join(said.lower().split())
    if not said or len(said) > 3 * len(original) + 40:
        return "empty"
    for name in filter(None, names):
        if _times(name, said) != _times(name, original):
            return "entity"
    bare_original, bare_said = (_without(text, names) for text in (original, said))
    if _numbers(bare_original) != _numbers(bare_said):
        return "number"
    for kind, words in rules.words.items():
        if any(_times(word, bare_original) != _times(word, bare_said) for word in words):
            return kind
    return None


def _by_model(question: str, chosen: ModelSettings) -> str:
    return " ".join(endpoint.say(chosen, PROMPT, question, WHERE).lower().split())


def _times(words: str, text: str) -> int:
    return len(re.findall(rf"(?<![\w-]){re.escape(words)}(?![\w-])", text))


def _without(text: str, names: tuple[str, ...]) -> str:
    for name in sorted(filter(None, names), key=len, reverse=True):
        text = re.sub(rf"(?<![\w-]){re.escape(name)}(?![\w-])", " ", text)
    return text


def _numbers(text: str) -> Counter[str]:
    return Counter(" ".join(found.split()) for found in NUMBER.findall(text))
