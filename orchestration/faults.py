"""Mistakes in the YAML below `orchestration/defs/`, said in one line that names file, key and mend."""

import difflib
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import yaml
from dagster.components.core.component_tree import ComponentTreeException
from pydantic import BaseModel, ValidationError

from orchestration import components

REPOSITORY = Path(__file__).resolve().parent.parent
PREFIX = "orchestration.components."


class WrongDefinition(Exception):
    """One line: the file, the key, and how to mend it."""


def check(folder: Path) -> None:
    """Look at every `defs.yaml` before Dagster does: syntax, component, keys and types. Raises WrongDefinition."""
    for path in sorted(folder.rglob("defs.yaml")):
        for document in documents(path):
            check_document(relative(path), document)


def documents(path: Path) -> Iterator[Any]:
    try:
        yield from yaml.safe_load_all(path.read_text(encoding="utf-8"))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise WrongDefinition(
            f"{relative(path)}: line {line} is not valid YAML; mend its indentation, colon or quotes"
        ) from None
    except UnicodeDecodeError:
        raise WrongDefinition(f"{relative(path)}: is not UTF-8; save it as UTF-8") from None


def check_document(file: str, document: Any) -> None:
    if not isinstance(document, dict) or not {"type", "attributes"} >= set(document) - {
        "requirements",
        "post_processing",
    }:
        raise WrongDefinition(
            f"{file}: a document has the keys type and attributes, and no others; mend its indentation"
        )
    named = str(document.get("type", ""))
    if not named.startswith(PREFIX):
        return
    name = named.removeprefix(PREFIX)
    if name not in components.__all__:
        raise WrongDefinition(
            f"{file}: type: there is no component {name!r}; {meant(name, components.__all__)}"
        )
    check_attributes(file, getattr(components, name).get_model_cls(), document.get("attributes") or {})


def check_attributes(file: str, model: type[BaseModel] | None, attributes: Any) -> None:
    if model is None:
        return
    try:
        model.model_validate(attributes)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(
            [
                "attributes",
                *(str(part) for part in first["loc"] if not str(part).startswith(("function-", "union"))),
            ]
        )
        if first["type"] == "extra_forbidden":
            mend = f"there is no such key; {meant(str(first['loc'][-1]), model.model_fields)}"
        elif first["type"] == "missing":
            mend = "is missing; add it"
        else:
            mend = f"{first['msg'].lower()}; mend its value"
        raise WrongDefinition(f"{file}: {key}: {mend}") from None


def meant(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f"did you mean {near[0]!r}?" if near else f"write one of: {', '.join(sorted(known))}"


def of(error: BaseException) -> WrongDefinition:
    """The fault behind an error of Dagster's loader: its first cause, as one line."""
    where = re.match(r"Error while loading component ([\w/]+)", str(error))
    while (
        cause := error.__cause__ or (error.__context__ if isinstance(error, ComponentTreeException) else None)
    ) is not None:
        error = cause
    if isinstance(error, WrongDefinition):
        return error
    line = " ".join(str(error).split()).replace(f"{REPOSITORY}/", "") or type(error).__name__
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        line = f"attributes.{'.'.join(map(str, first['loc']))}: {first['msg'].lower()}; mend its value"
    named = re.search(r"[\w./-]+\.(ya?ml|csv|sql)\b", line)
    return WrongDefinition(line if named or not where else f"orchestration/defs/{where[1]}/defs.yaml: {line}")


def relative(path: Path) -> str:
    return path.resolve().relative_to(REPOSITORY).as_posix()
