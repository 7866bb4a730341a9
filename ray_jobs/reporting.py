"""How a job speaks: checks, metadata, log lines and traces, to Dagster through Pipes, to the catalog and to its log file."""

from __future__ import annotations

import contextlib
import logging
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from dagster_pipes import PipesContext, PipesEnvVarParamsLoader, open_dagster_pipes

from orchestration import catalog
from ray_jobs.config import GATE_CHECK, JobConfig


class Markdown(str):
    """Metadata shown as Markdown in the UI; in a version directory it is also kept as `<name>.md`."""


@dataclass(frozen=True)
class Check:
    """The verdict of one sentence about one asset. A failed ERROR check keeps everything from being published; the
    severity that the job's YAML gives to the check counts, if it names it."""

    asset: str
    name: str
    passed: bool
    severity: str = "ERROR"
    metadata: Mapping[str, object] = field(default_factory=dict)


def check_id(check: Check) -> str:
    return f"{check.asset}:{check.name}"


def gate_checks(verdicts: Mapping[str, object]) -> list[Check]:
    return [
        Check(key, GATE_CHECK, verdict.passed, metadata=verdict.metadata())
        for key, verdict in verdicts.items()
    ]


def for_pipes(metadata: Mapping[str, object]) -> dict[str, object]:
    """Metadata as Pipes understands it."""
    return {
        key: {"raw_value": value, "type": "json"} if isinstance(value, list) or _is_mapping(value) else value
        for key, value in as_json(metadata).items()
    }


def as_json(metadata: Mapping[str, object]) -> dict[str, object]:
    """Metadata as JSON for the catalog; Markdown is marked as such, what is not known (None) is left out."""
    return {
        key: {"raw_value": str(value), "type": "md"} if isinstance(value, Markdown) else _plain(value)
        for key, value in metadata.items()
        if value is not None
    }


def _is_mapping(value: object) -> bool:
    return isinstance(value, dict) and value.get("type") != "md"


def _plain(value: object) -> object:
    """Numbers of numpy become Python's, paths become text."""
    if hasattr(value, "item") and getattr(value, "ndim", None) == 0:
        return value.item()
    return str(value) if isinstance(value, os.PathLike) else value


def frames(error: BaseException) -> list[str]:
    """Places and classes of an error's trace, also of one that came from a Ray worker; never its messages or code."""
    if os.environ.get("WARDLINE_DEBUG"):  # for developers: whole traces, which may quote data
        return "".join(traceback.format_exception(error)).splitlines()
    text = "".join(traceback.format_exception(error))
    places = re.findall(r"^\s*(File \"[^\"\n]+\", line \d+, in [\w<>.]+)", text, flags=re.MULTILINE)
    classes = re.findall(r"^([A-Za-z_][\w.]*(?:Error|Exception|Interrupt))\b", text, flags=re.MULTILINE)
    return [*classes, *places]


@contextlib.contextmanager
def pipes_session() -> Iterator[PipesContext | None]:
    if not PipesEnvVarParamsLoader().is_dagster_pipes_process():
        yield None
        return
    with open_dagster_pipes() as pipes:
        yield pipes


class _Forward(logging.Handler):
    """Hands the job's own lines to Dagster's event log."""

    def __init__(self, pipes: PipesContext):
        super().__init__()
        self._pipes = pipes

    def emit(self, record: logging.LogRecord) -> None:
        self._pipes.log.log(record.levelno, record.getMessage())


@contextlib.contextmanager
def logger(settings: JobConfig, scratch: Path, pipes: PipesContext | None) -> Iterator[logging.Logger]:
    """Lines go to Dagster or else to stdout, and to `<job>.log` in the data root (line by line if the root is local)."""
    url = settings.beside(".log")
    file = Path(url) if catalog.is_local(url) else scratch / "job.log"
    log = logging.getLogger(f"wardline.{settings.job}")
    log.setLevel(logging.INFO)
    log.propagate = False
    shown = _Forward(pipes) if pipes else logging.StreamHandler(sys.stdout)
    for handler in (shown, logging.FileHandler(file, encoding="utf-8")):
        handler.setFormatter(logging.Formatter(f"%(asctime)s {settings.job}: %(message)s", "%H:%M:%S"))
        log.addHandler(handler)
    try:
        yield log
    finally:
        for handler in log.handlers[:]:
            handler.close()
            log.removeHandler(handler)
        if not catalog.is_local(url):
            catalog.write_bytes(url, file.read_bytes())
