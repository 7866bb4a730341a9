"""Run dbt on `dbt_project/` as it is now. Its manifest lives beside the repository's other local state and follows the folder.

The text of dbt's and DuckDB's errors quotes rows of patients, so none of it leaves this module: a fault is reported as
model, kind and line.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from orchestration import expressions, feature_contracts, grids, tasks
from orchestration.catalog import REPOSITORY, code_hash
from orchestration.dbt_process import RESULTS, DbtProcess
from orchestration.grids import models as grid_models
from orchestration.tasks import models as task_models

PROJECT = REPOSITORY / "dbt_project"
STATE = Path(os.environ.get("WARDLINE_STATE") or REPOSITORY / ".dagster") / "dbt"
PROCESS = DbtProcess()
FORGOTTEN_AFTER = 3600  # seconds that a parse is kept after its last use
DATABASE = "warehouse.duckdb"  # the parsed manifest knows the database by this name, wherever the file lies
PARSED_AS = (
    "--profile",
    "wardline",
    "--target",
    "scratch",
    "--vars",
    "{}",
)  # all vars stand in dbt_project.yml
# What decides the fate of a measurement is compiled as well, so that an extract can be judged without a dbt run.
PARSE = ("compile", "--select", "+harmonised.measurements")
GENERATED = {"target", "logs", "dbt_packages", "__pycache__"}
COMPILES = [
    *(Path(package.__file__).parent for package in (tasks, grids)),
    *(Path(module.__file__) for module in (expressions, feature_contracts)),
]
KIND = re.compile(r"\b([A-Z][A-Za-z-]+(?: [A-Z][a-z]+)? (?:Error|Exception))\b")
LINE = re.compile(r"(?:\bLINE |\bline )(\d+)")
NODE = re.compile(r"\b(model|test|seed|macro|source) '?([a-z][a-z0-9_.]*)'?")


class DbtError(RuntimeError):
    """dbt failed; the message names models, kinds and lines and quotes no data."""


@dataclass(frozen=True)
class NodeResult:
    """What became of one model, seed or test. `status` is dbt's: success, pass, warn, fail, error or skipped."""

    unique_id: str
    status: str
    seconds: float
    failures: int
    fault: str | None

    @property
    def name(self) -> str:
        return self.unique_id.split(".")[2]

    @property
    def failed(self) -> bool:
        return self.status in ("error", "fail", "runtime error")


def project_hash(project: Path = PROJECT) -> str:
    """sha256 over every file that dbt reads; it changes when any of them does."""
    digest = hashlib.sha256()
    for path in sorted(project.rglob("*")):
        inside = path.relative_to(project)
        if path.is_file() and not GENERATED.intersection(inside.parts) and not path.name.startswith("."):
            digest.update(inside.as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def parse_key(project: Path = PROJECT) -> str:
    """Names one parse: what is parsed (every file, profiles.yml and vars among them) and how (where, by which dbt)."""
    how = [
        str(project.resolve()),
        *PARSED_AS,
        *(f"{name}=={version(name)}" for name in ("dbt-core", "dbt-duckdb", "duckdb")),
        code_hash(Path(__file__), *COMPILES),
    ]
    return f"{project_hash(project)[:16]}-{hashlib.sha256(chr(31).join(how).encode()).hexdigest()[:16]}"


def target(project: Path = PROJECT, state: Path = STATE) -> Path:
    """Folder with manifest.json and dbt's parse cache of the project as it is now; parsed if it has changed.

    `project/` in it is what dbt reads: the project's files and the models that its tasks and grids compile to.
    Raises DbtError, or wording.LayoutError if a task or a grid is wrong.
    """
    folder = state / parse_key(project)
    if (folder / "manifest.json").exists():
        os.utime(folder)
    else:
        state.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="parse-", dir=state))
        try:
            shutil.copytree(project, fresh / "project", ignore=shutil.ignore_patterns(*GENERATED))
            task_models.write(project, fresh / "project")
            grid_models.write(project, fresh / "project")
            _dbt(PARSE, fresh, fresh / DATABASE)
            (fresh / DATABASE).unlink(missing_ok=True)
            try:
                fresh.rename(folder)
            except OSError:
                if not (folder / "manifest.json").exists():
                    raise  # else another process has parsed the same meanwhile
            _forget(state, time.time() - FORGOTTEN_AFTER)
        finally:
            PROCESS.close()
            shutil.rmtree(fresh, ignore_errors=True)
    return folder


def _forget(state: Path, before: float) -> None:
    """Remove parses last used before that time. Younger ones may be in use by other processes, of other projects too."""
    for old in state.iterdir():
        with contextlib.suppress(FileNotFoundError):  # another process removes it, too
            if old.stat().st_mtime < before:
                shutil.rmtree(old, ignore_errors=True)


def manifest(project: Path = PROJECT) -> dict:
    return json.loads((target(project) / "manifest.json").read_text())


def build(
    database: Path,
    scratch: Path,
    arguments: Sequence[str],
    project: Path = PROJECT,
    memory: str = "1200MB",
    threads: int = 2,
) -> list[NodeResult]:
    """`dbt build` into a DuckDB file called DATABASE; returns what became of every node, failed ones too.

    Raises DbtError if dbt ends before it has run anything.
    """
    folder = scratch / "target"
    if not folder.exists():
        shutil.copytree(target(project), folder)
    (folder / RESULTS).unlink(missing_ok=True)
    _dbt(["build", "--no-write-json", *arguments], folder, database, memory, threads)
    return _results(folder / RESULTS)


def _dbt(
    command: Sequence[str], folder: Path, database: Path, memory: str = "1200MB", threads: int = 2
) -> None:
    project = folder / "project"
    from orchestration import quiet

    environment = (
        {
            name: value for name, value in os.environ.items() if not name.startswith("DBT_")
        }  # they change the parse
        | quiet.SETTINGS
        | {
            "PYTHONPATH": os.pathsep.join(filter(None, [str(REPOSITORY), os.environ.get("PYTHONPATH")])),
            "WARDLINE_SCRATCH_DB": str(database),
            "WARDLINE_SPILL": str(database.parent / "spill"),
            "WARDLINE_MEMORY_LIMIT": memory,
            "WARDLINE_THREADS": str(threads),
        }
    )
    places = [
        "--project-dir",
        project,
        "--profiles-dir",
        project,
        "--target-path",
        folder,
        "--log-path",
        folder,
    ]
    call = [*command, *PARSED_AS, *map(str, places), "--log-level-file", "none"]
    said = folder / "said.txt"
    code = PROCESS.run(call, environment, folder, said)
    text = said.read_text(errors="replace") if said.exists() else ""
    said.unlink(missing_ok=True)
    if code and (command == PARSE or not (folder / RESULTS).exists()):
        if command == PARSE:  # has read the project and no data, so its own words may be shown
            raise DbtError("dbt parse failed: " + text[max(0, text.find("Encountered an error")) :].strip())
        raise DbtError(f"dbt {command[0]} failed: {fault_of(text)}")


def _results(path: Path) -> list[NodeResult]:
    return [
        NodeResult(
            unique_id=result["unique_id"],
            status=result["status"],
            seconds=float(result["execution_time"] or 0),
            failures=int(result.get("failures") or 0),
            fault=fault_of(result["message"] or "")
            if result["status"] in ("error", "runtime error")
            else None,
        )
        for result in json.loads(path.read_text())["results"]
    ]


def fault_of(text: str) -> str:
    """Kind, node and line of an error text, and nothing else of it."""
    kinds = list(dict.fromkeys(KIND.findall(text)))
    node, line = NODE.search(text), LINE.search(text)
    parts = [kinds[-1] if kinds else "unknown error"]
    if node:
        parts.append(f"in {node[1]} {node[2]}")
    if line:
        parts.append(f"at line {line[1]}")
    return " ".join(parts)


def require_success(results: Sequence[NodeResult]) -> None:
    """Raise DbtError if a model or seed failed; failed tests are judged by the caller."""
    broken = [r for r in results if r.failed and not r.unique_id.startswith(("test.", "unit_test."))]
    if broken:
        raise DbtError("; ".join(f"{r.unique_id.split('.')[0]} {r.name}: {r.fault}" for r in broken))
