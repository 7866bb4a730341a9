"""The mapping language: how one hospital's raw files become the input layer, as YAML and CSV.

A layout is `orchestration/schemas/<layout>/{tables.yaml,items.csv}`; a hospital's folder may hold the same two files and
may extend a layout. What the hospital says wins: raw tables are merged key by key, an input table's list of sources is
replaced as a whole, `null` removes, an item of `items.csv` replaces the layout's. All is checked before anything runs;
every mistake is one line that names file, key and mend.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from orchestration import catalog, input_layer
from orchestration.items_csv import load_items
from orchestration.layout_check import checked, origin_of
from orchestration.layout_words import Layout, OptOut, RawTable, Source, Tables
from orchestration.wording import LayoutError, near, relative

SCHEMAS = catalog.REPOSITORY / "orchestration" / "schemas"


def load(folder: Path | None, extends: str | None) -> Layout:
    """Load and check the mapping of a hospital's folder, of the layout that it extends, or of both merged.

    Raises LayoutError: one line naming file, key and mend.
    """
    chain = _chain(folder, extends)
    merged: dict[str, Any] = {}
    origin: dict[str, str] = {}
    for file, content in chain["tables.yaml"]:
        merged = _merge(merged, content, origin, relative(file))
    if not merged:
        raise LayoutError(
            f"{relative(folder or SCHEMAS)}: there is no tables.yaml; write one or set extends: {_layouts()}"
        )
    tables = _validated(Tables, merged, origin)
    return checked(tables, origin, load_items(file for file, _ in chain["items.csv"]))


def person_group(folder: Path | None, extends: str | None) -> str | None:
    """The `person_group` of a mapping, read without checking the rest. Raises LayoutError if its files are not there."""
    said = [content.get("person_group") for _, content in _chain(folder, extends)["tables.yaml"]]
    return next((group for group in reversed(said) if group), None)


def _chain(folder: Path | None, extends: str | None) -> dict[str, list[tuple[Path, Any]]]:
    """The files that count, the farthest ancestor first."""
    own = _read_yaml(folder / "tables.yaml") if folder and (folder / "tables.yaml").is_file() else {}
    parents, seen = [], []
    name, named_in = own.pop("extends", None) or extends, folder
    while name:
        if not (SCHEMAS / name / "tables.yaml").is_file():
            raise LayoutError(
                f"{relative(named_in)}: extends: no layout is called {name}; {near(name, _layout_names())}"
            )
        if name in seen:
            raise LayoutError(
                f"{relative(SCHEMAS / name)}/tables.yaml: extends: {name} extends itself; remove one extends"
            )
        seen.append(name)
        content = _read_yaml(SCHEMAS / name / "tables.yaml")
        parents.insert(0, (SCHEMAS / name, content))
        name, named_in = content.pop("extends", None), SCHEMAS / name
    places = [*parents, *([(folder, own)] if folder else [])]
    return {
        "tables.yaml": [(place / "tables.yaml", content) for place, content in places if content],
        "items.csv": [(place / "items.csv", None) for place, _ in places if (place / "items.csv").is_file()],
    }


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise LayoutError(
            f"{relative(path)}: line {line} is not valid YAML; check its indentation and quotes"
        ) from None
    if not isinstance(content, dict):
        raise LayoutError(
            f"{relative(path)}: must hold keys such as raw and input; {near('', Tables.model_fields)}"
        )
    return content


def _merge(below: dict[str, Any], above: dict[str, Any], origin: dict[str, str], file: str) -> dict[str, Any]:
    merged = {**below, **{k: v for k, v in above.items() if k not in ("raw", "input")}}
    origin.update({k: file for k in above})
    for part in ("raw", "input"):
        entries = above.get(part) or {}
        if not isinstance(entries, dict):
            raise LayoutError(f"{file}: {part}: must map names to their definition")
        target = dict(below.get(part, {}))
        for name, entry in entries.items():
            origin[f"{part}.{name}"] = file
            both = part == "raw" and isinstance(entry, dict) and isinstance(target.get(name), dict)
            target[name] = {**target[name], **entry} if both else entry
        merged[part] = {name: entry for name, entry in target.items() if entry is not None}
    return merged


def _validated(model: type[Tables], content: dict[str, Any], origin: dict[str, str]) -> Tables:
    for name in content.get("input", {}):
        if name not in input_layer.tables():
            file = origin_of(origin, f"input.{name}")
            raise LayoutError(f"{file}: input.{name} is no input table; {near(name, input_layer.tables())}")
    try:
        return model.model_validate(content)
    except ValidationError as error:
        first = error.errors()[0]
        loc = [p for p in first["loc"] if p != "str" and not str(p).startswith("list[")]
        where = _dotted(loc)
        file = origin_of(origin, where)
        if first["type"] == "extra_forbidden":
            known = (
                {"raw": RawTable, "input": Source, "opt_out": OptOut}.get(str(loc[0]), Tables)
                if len(loc) > 1
                else Tables
            )
            names = [f.alias or n for n, f in known.model_fields.items()]
            raise LayoutError(f"{file}: {where} is an unknown key; {near(str(loc[-1]), names)}") from None
        raise LayoutError(f"{file}: {where}: {first['msg'][:1].lower() + first['msg'][1:]}") from None


def _dotted(loc: Iterable[str | int]) -> str:
    return "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in loc).lstrip(".")


def _layout_names() -> list[str]:
    return sorted(p.parent.name for p in SCHEMAS.glob("*/tables.yaml"))


def _layouts() -> str:
    return ", ".join(_layout_names()) or "(there is none yet)"
