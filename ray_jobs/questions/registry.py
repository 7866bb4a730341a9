"""The registry: reads `templates/*.yaml` and refuses what it does not know, in one line naming file, key and mend."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import polars as pl
import yaml
from pydantic import ValidationError

from ray_jobs.questions import lookups, reasoning, series, spans
from ray_jobs.questions.facts import Subject
from ray_jobs.questions.template import Template

FOLDER = Path(__file__).resolve().parent.parent / "templates"
SETS = ("schema_alignment", "clinical_reasoning")
FORMS = ("core", "all")  # the forms of the default night, or these and the ones under templates/more/
OPERATORS: dict[str, Callable[..., pl.DataFrame]] = (
    lookups.OPERATORS | reasoning.OPERATORS | spans.OPERATORS | series.OPERATORS
)
NEEDS = {
    "value_end": "end",
    "time_end": "end",
    "item_end": "end",
    "status_end": "end",
    "extreme": "statistic",
    "extreme_side": "statistic",
    "known": "pool",
    "trend": "compare",
    **dict.fromkeys(("threshold_after", "change_after", "place_at", "next_drug"), "drug"),
    **dict.fromkeys(("value_before", "value_after", "status_before", "status_after"), "drug"),
    **dict.fromkeys(("duration", "running_at", "gap", "previous_item", "mean_shift"), "drug"),
    **dict.fromkeys(("extreme_beside", "count_beside"), "side"),
    "extreme_time": "statistic",
    "difference": "compare",
    "computed": "terms",
    "attribute_over": "limits",
}
SHORTCUTS = {
    "value_at": {"last_value"},
    "value_end": {"other_end"},
    "time_end": {"other_end"},
    "item_end": {"other_end"},
    "status_end": {"other_end"},
    "item_at": {"last_item"},
    "count": {"whole_record"},
    "extreme": {"last_value"},
    "exists": {"seen_at_all"},
    "known": {"always_no"},
    "status_at": {"last_status"},
    "trend": {"last_against_mean", "last_step"},
    "threshold_after": {"any_value"},
    "change_after": {"last_against_first"},
    "value_before": {"last_value"},
    "value_after": {"first_value"},
    "status_before": {"last_status"},
    "status_after": {"first_status"},
    "place_at": {"last_place"},
    "extreme_side": {"drug_in_first_half"},
    "order": {"in_first_half"},
    "next_drug": {"first_drug"},
    "extreme_time": {"last_time"},
    "running_at": {"was_started"},
    "state_at": {"last_item"},
    "previous_item": {"first_item"},
    "different": {"whole_record"},
    "count_beyond": {"all_values"},
    "first_beyond": {"first_time"},
    "returned": {"last_normal"},
    "difference": {"last_step", "whole"},
    "computed": {"last_computed"},
    "both_outside": {"first_outside"},
    "extreme_beside": {"whole_record"},
    "count_beside": {"whole_record"},
    "mean_shift": {"last_against_first"},
}
RESTS_ON = {
    **dict.fromkeys(("status_at", "status_end", "status_before", "status_after"), "values"),
    **dict.fromkeys(("trend", "change_after", "threshold_after"), "values"),
    **dict.fromkeys(("order", "extreme_side"), "hours"),
}
SLOTS = {"item", "other", "at", "period", "direction", "threshold"}


class RegistryError(ValueError):
    """A template or subject is wrong; the message names file, key and mend."""


@dataclass(frozen=True)
class Registry:
    """All question forms of both sets, the subjects they speak of, and how units are spoken."""

    templates: dict[str, list[Template]]
    subjects: dict[str, Subject]
    units: dict[str, str] = field(default_factory=dict)


def load(folder: Path = FOLDER, forms: str = "core") -> Registry:
    """Read subjects.yaml and one file a set; with forms="all" also its namesake under more/. Raises RegistryError."""
    if forms not in FORMS:
        raise RegistryError(f"params.forms: unknown '{forms}'; use one of {', '.join(FORMS)}")
    common = _read(folder / "subjects.yaml")
    pools = common.get("pools", {})
    subjects = {}
    for name, entry in common["subjects"].items():
        try:
            items = (
                pools[_known(entry["items"], pools, f"subjects.yaml: {name}", "items")]
                if "items" in entry
                else ()
            )
            subjects[name] = Subject(**entry | {"kinds": tuple(entry["kinds"]), "items": tuple(items)})
            for pattern in (subjects[name].item, subjects[name].word):
                if pattern and re.compile(pattern).groups != 1:
                    raise RegistryError(f"subjects.yaml: {name}: '{pattern}' needs exactly one group")
        except (TypeError, KeyError, re.error) as error:
            raise RegistryError(
                f"subjects.yaml: {name}: {error}; a subject has kinds, and may have item, word, items"
            ) from None
    places = [folder] if forms == "core" else [folder, folder / "more"]
    templates = {
        name: _templates([place / f"{name}.yaml" for place in places], subjects, pools) for name in SETS
    }
    return Registry(templates, subjects, common.get("units", {}))


def _read(path: Path) -> dict:
    try:
        return yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise RegistryError(f"{path.name}: no such file in {path.parent.name}/; restore it") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        raise RegistryError(
            f"{path.name}: line {mark.line + 1 if mark else '?'}: not YAML; mend the indentation or quotes"
        ) from None


def _templates(
    paths: list[Path], subjects: dict[str, Subject], pools: dict[str, list[str]]
) -> list[Template]:
    found: dict[str, Template] = {}
    for path, entry in ((p, e) for p in paths for e in _read(p)["templates"]):
        where = f"{path.name}: {entry.get('id', 'a template without id')}"
        for key in ("pool", "absent_pool"):
            if isinstance(entry.get(key), str):
                entry[key] = pools[_known(entry[key], pools, where, key)]
        try:
            template = Template(**entry)
        except ValidationError as error:
            problem = error.errors()[0]
            key = ".".join(map(str, problem["loc"])) or "entry"
            raise RegistryError(
                f"{where}: {key}: {problem['msg']}{_nearest(key, Template.model_fields)}"
            ) from None
        _check(template, subjects, where)
        if template.id in found:
            raise RegistryError(f"{where}: id is used twice; rename one")
        found[template.id] = template
    return list(found.values())


def _check(template: Template, subjects: dict[str, Subject], where: str) -> None:
    _known(template.operator, OPERATORS, where, "operator")
    _known(template.subject, subjects, where, "subject")
    if template.drug:
        _known(template.drug, subjects, where, "drug")
    need = NEEDS.get(template.operator)
    if need and not getattr(template, need):
        raise RegistryError(f"{where}: operator {template.operator} needs the key '{need}'; add it")
    if template.shortcut:
        _known(template.shortcut, SHORTCUTS.get(template.operator, set()), where, "shortcut")
    if template.working:
        _known(template.operator, RESTS_ON, where, "working, operator")
        _known(template.working, [RESTS_ON[template.operator]], where, "working")
    if template.absent and not template.absent_pool:
        raise RegistryError(f"{where}: 'absent' needs 'absent_pool'; add the items that may be asked in vain")
    for sentence in template.wording:
        for slot in re.findall(r"{(\w*)}", sentence):
            _known(slot, SLOTS, where, "wording")


def _known(value: str, allowed, where: str, key: str) -> str:
    if value not in allowed:
        raise RegistryError(f"{where}: {key}: unknown '{value}'{_nearest(value, allowed)}")
    return value


def _nearest(value: str, allowed) -> str:
    near = difflib.get_close_matches(value, list(allowed), n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; use one of {', '.join(sorted(allowed))}"
