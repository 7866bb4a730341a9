"""Which hospitals there are: the folders `orchestration/defs/hospitals/<hospital>/defs.yaml`, read without Dagster.

A hospital whose `location_env` is not set is absent. `WARDLINE_HOSPITALS` (a comma list) limits a run to some. A hospital
that has accepted tables and is neither configured nor limited away has vanished: that stops a run, until

    python -m orchestration.hospitals retire <hospital>

takes its tables out of the catalog and off the disk.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import fsspec
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from orchestration import catalog
from orchestration.layout import NAME, person_group
from orchestration.wording import LayoutError, near, relative

FOLDER = catalog.REPOSITORY / "orchestration" / "defs" / "hospitals"
COMPONENT = "orchestration.components.HospitalSource"


class HospitalConfig(BaseModel):
    """The attributes of one HospitalSource; `folder` may hold the hospital's own tables.yaml and items.csv."""

    model_config = ConfigDict(extra="forbid")
    hospital: str = Field(pattern=NAME.pattern)
    extends: str | None = None
    location: str | None = None
    location_env: str | None = None
    buckets: int = Field(default=1, ge=1, le=4096)
    max_rejected: float = Field(default=0.05, ge=0, le=1)
    deps: list[str] = []
    folder: Path | None = Field(default=None, exclude=True)

    @model_validator(mode="after")
    def _one_location(self) -> HospitalConfig:
        if (self.location is None) == (self.location_env is None):
            raise ValueError("set one of location and location_env")
        return self

    @property
    def url(self) -> str | None:
        """Where the export lies, any fsspec URL; None if `location_env` names a variable that is not set."""
        url = self.location or os.environ.get(self.location_env or "")
        if not url:
            return None
        if "://" in url and not url.startswith("file://"):
            return url.rstrip("/")
        return str((catalog.REPOSITORY / url.removeprefix("file://")).resolve())


def configured(folder: Path | None = None) -> list[HospitalConfig]:
    """The hospitals of this run, by name. Raises LayoutError if WARDLINE_HOSPITALS names one that no folder has, or if
    hospitals that share persons differ in their number of buckets.
    """
    everyone = known(folder)
    limit = [name.strip() for name in os.environ.get("WARDLINE_HOSPITALS", "").split(",") if name.strip()]
    for name in limit:
        if name not in everyone:
            raise LayoutError(f"WARDLINE_HOSPITALS: no hospital is called {name}; {near(name, everyone)}")
    for name in limit:
        if everyone[name].url is None:
            variable = everyone[name].location_env
            raise LayoutError(
                f"WARDLINE_HOSPITALS: {name} has no location; set {variable} to where its export lies"
            )
    chosen = [c for name, c in everyone.items() if c.url is not None and (not limit or name in limit)]
    _persons_lie_in_one_bucket(chosen)
    return chosen


def _persons_lie_in_one_bucket(configs: list[HospitalConfig]) -> None:
    """Raises LayoutError where hospitals of one person_group differ in `buckets`: a person's records would be apart."""
    if len({config.buckets for config in configs}) < 2:
        return
    first: dict[str, HospitalConfig] = {}
    for config in configs:
        group = person_group(config.folder, config.extends) or config.hospital
        other = first.setdefault(group, config)
        if config.buckets != other.buckets:
            raise LayoutError(
                f"{relative(config.folder / 'defs.yaml')}: attributes.buckets: is {config.buckets}, but {other.hospital}, which "
                f"shares its persons (person_group {group}), has {other.buckets}; give both the same number"
            )


def configured_names() -> list[str]:
    return [config.hospital for config in configured()]


def known(folder: Path | None = None) -> dict[str, HospitalConfig]:
    """Every hospital that has a folder, with or without a location. Raises LayoutError with file, key and mend."""
    found: dict[str, HospitalConfig] = {}
    for file in sorted((folder or FOLDER).glob("*/defs.yaml")):
        for attributes in _sources(file):
            config = read(attributes, file)
            if config.hospital in found:
                raise LayoutError(f"{relative(file)}: hospital {config.hospital} is there twice; rename one")
            found[config.hospital] = config
    return found


def read(attributes: dict, file: Path) -> HospitalConfig:
    """Check the attributes of one HospitalSource. Raises LayoutError with file, key and mend."""
    try:
        config = HospitalConfig.model_validate({**attributes, "folder": file.parent})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "attributes"
        names = [n for n in HospitalConfig.model_fields if n != "folder"]
        mend = near(key, names) if first["type"] == "extra_forbidden" else first["msg"]
        raise LayoutError(f"{relative(file)}: attributes.{key}: {mend}") from None
    if config.hospital != file.parent.name:
        raise LayoutError(
            f"{relative(file)}: attributes.hospital: {config.hospital} lies in the folder {file.parent.name}; "
            "give both the same name"
        )
    return config


def vanished(accepted: catalog.Catalog) -> list[str]:
    """Hospitals with accepted tables that are no longer configured, whatever WARDLINE_HOSPITALS says."""
    present = {name for name, config in known().items() if config.url is not None}
    with_tables = {key.split("/")[1] for key in accepted.accepted if key.startswith("input/")}
    return sorted(with_tables - present)


def require_all(accepted: catalog.Catalog) -> None:
    """Raises CatalogError if a hospital has vanished: its patients would leave the training set without a word."""
    if gone := vanished(accepted):
        raise catalog.CatalogError(
            f"{', '.join(gone)} has accepted tables but is no longer configured; set its location again, or retire it: "
            f"python -m orchestration.hospitals retire {gone[0]}"
        )


def retire(hospital: str, root: str | None = None) -> list[str]:
    """Take a hospital's tables out of the catalog, then off the disk; returns the keys that were taken out."""
    root = root or catalog.data_root()
    prefixes = (f"input/{hospital}/", f"raw/{hospital}/")
    with catalog.edit(root) as content:
        keys = sorted(key for key in content["accepted"] if key.startswith(prefixes))
        if not keys:
            names = sorted({k.split("/")[1] for k in content["accepted"] if k.startswith("input/")})
            raise catalog.CatalogError(f"{root}: no accepted tables of {hospital}; {near(hospital, names)}")
        for key in keys:
            del content["accepted"][key]
        content["held_back"].pop(hospital, None)
        content["retired"][hospital] = {"at": datetime.now(UTC).isoformat(timespec="seconds")}
    fs, base = fsspec.core.url_to_fs(root)
    for prefix in prefixes:
        if fs.exists(f"{base}/{prefix}"):
            fs.rm(f"{base}/{prefix}", recursive=True)
    return keys


def _sources(file: Path) -> Iterator[dict]:
    text = re.sub(r"\{\{\s*data_root\s*\}\}", lambda _: catalog.data_root(), file.read_text())
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        line = getattr(getattr(error, "problem_mark", None), "line", 0) + 1
        raise LayoutError(
            f"{relative(file)}: line {line} is not valid YAML; check its indentation and quotes"
        ) from None
    for document in documents:
        if isinstance(document, dict) and document.get("type") == COMPONENT:
            yield document.get("attributes") or {}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "retire":
        sys.exit("usage: python -m orchestration.hospitals retire <hospital>")
    try:
        print(f"retired {sys.argv[2]}: {len(retire(sys.argv[2]))} tables taken out")
    except (catalog.CatalogError, LayoutError) as error:
        sys.exit(str(error))
