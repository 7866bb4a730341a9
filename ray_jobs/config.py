"""The one JSON that a Ray job is started with, on this machine or on a cluster, and the hash of the code it runs.

The configuration lies in the data root (`candidates/<run_id>/<job>.json`), so a job needs nothing but its URL. Beside it
the job leaves `<job>.log` and, if it did not end well, `<job>.failure.json` with one line that says what to mend.
"""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

from orchestration import catalog

PACKAGE = Path(__file__).resolve().parent
PLUMBING = {
    "ray_jobs",
    "ray_jobs.runtime",
    "ray_jobs.reporting",
    "ray_jobs.config",
}  # start and report jobs; no number depends on them
GATE_CHECK = "the_gate_accepts"


class JobError(RuntimeError):
    """A fault that the reader can mend; the message is one line that names what to mend and holds no patient's value."""


@dataclass(frozen=True)
class JobConfig:
    """What a job reads (`inputs`: asset key to accepted version), writes (`outputs`) and is told (`params`; where the
    job's YAML names a recipe, `params["recipe"]` is its content)."""

    job: str
    run_id: str
    root: str
    fingerprint: str
    inputs: Mapping[str, str]
    outputs: list[str]
    params: Mapping[str, object]
    ray_address: str | None = None
    checks: Mapping[str, str] = field(default_factory=dict)
    """Severity (ERROR or WARN) of the checks that the orchestrator knows, by `<asset key>:<name>`; others are only logged."""

    @property
    def url(self) -> str:
        return catalog.join(self.root, "candidates", self.run_id, f"{self.job}.json")

    def beside(self, suffix: str) -> str:
        """URL of a file that belongs to this start of the job, such as its log."""
        return self.url.removesuffix(".json") + suffix

    def write(self) -> str:
        """Write the configuration into the data root; returns its URL."""
        catalog.write_bytes(self.url, json.dumps(asdict(self), indent=1, sort_keys=True).encode())
        return self.url


def read(url: str) -> JobConfig:
    """Read a configuration. Raises JobError naming the file and the key if it is missing or not one."""
    try:
        content = json.loads(catalog.read_bytes(url))
    except FileNotFoundError:
        raise JobError(f"no configuration at {url}; give --config the URL of an existing JSON file") from None
    except json.JSONDecodeError as error:
        raise JobError(f"{url}: line {error.lineno} is not valid JSON") from None
    try:
        return JobConfig(**content)
    except TypeError:
        known, given = set(JobConfig.__dataclass_fields__), set(content)
        missing = sorted(known - given - {"ray_address", "checks"})
        raise JobError(f"{url}: missing keys {missing}, unknown keys {sorted(given - known)}") from None


def code_of(job: str, package: str = "ray_jobs", home: Path = catalog.REPOSITORY) -> str:
    """sha256 of the job's module and of every module that it imports, however deep, from its package and `ray_jobs`.

    Read without running; comments and line breaks do not count. Raises JobError if there is no such module in `home`.
    """
    if _file(f"{package}.{job}", {package}, home) is None:
        modules = {p.stem for p in home.joinpath(*package.split(".")).glob("*.py")} - {
            "__init__",
            *(n.split(".")[-1] for n in PLUMBING),
        }
        raise JobError(f"no job {job!r} in {package}/; the jobs are: {', '.join(sorted(modules))}")
    digest = hashlib.sha256()
    for name, tree in sorted(_closure(f"{package}.{job}", {package, "ray_jobs"}, home).items()):
        digest.update(f"{name}\0{ast.dump(tree)}\0".encode())
    return digest.hexdigest()


def _closure(first: str, packages: set[str], home: Path) -> dict[str, ast.Module]:
    found: dict[str, ast.Module] = {}
    waiting = [first]
    while waiting:
        name = waiting.pop()
        file = _file(name, packages, home)
        if file is None or name in found or name in PLUMBING:
            continue
        found[name] = ast.parse(file.read_text(encoding="utf-8"), filename=str(file))
        waiting.extend(_imports(found[name], name, is_package=file.name == "__init__.py"))
    return found


def _imports(tree: ast.Module, module: str, is_package: bool) -> list[str]:
    """Dotted names that the module may import; names that are no module are dropped by the caller."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = _absolute(node, module, is_package)
            names += [base, *(f"{base}.{alias.name}" for alias in node.names)]
    return [".".join(name.split(".")[:depth]) for name in names for depth in range(1, name.count(".") + 2)]


def _absolute(node: ast.ImportFrom, module: str, is_package: bool) -> str:
    if not node.level:
        return node.module or ""
    parts = module.split(".")
    kept = parts[: len(parts) - node.level + (1 if is_package else 0)]
    return ".".join([*kept, node.module] if node.module else kept)


def _file(name: str, packages: set[str], home: Path) -> Path | None:
    if not any(f"{name}.".startswith(f"{package}.") for package in packages):
        return None
    path = home.joinpath(*name.split("."))
    if path.with_suffix(".py").is_file():
        return path.with_suffix(".py")
    return path / "__init__.py" if (path / "__init__.py").is_file() else None
