"""The catalog: what is accepted, where it lies, and the only door by which anything is published.

`catalog.json` in the data root maps each asset key (`input/north/visits`, `weights/stage1`) to one accepted version:
its files with sha256 and row counts, the fingerprint of what it was made from, and the versions of its inputs. Readers
read what the catalog names, never a glob. Steps write candidates below `candidates/<run>/`; `publish` lets the gate judge
them, adds their files under names that carry the version (a file whose bytes are published already stays where it is),
writes their manifest, replaces `catalog.json` and then lets the old files go. A crash at any point leaves the old catalog
or the new one, and files that no reader knows.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import fsspec
import pyarrow.parquet as pq

from orchestration import locks
from orchestration.locks import CatalogError

REPOSITORY = Path(__file__).resolve().parent.parent
FORMAT = 1
SCRATCH, OWNER = "wardline-", ".owner"  # a local folder of a process, and who that is
KEPT_VERSIONS = {
    "weights/champion": 5
}  # how many versions stay on disk; all other keys keep the accepted one


class NotPublished(CatalogError):
    """An asset has no accepted version yet."""


class GateRefused(CatalogError):
    """A candidate failed its expectations; nothing was published. `verdicts` maps asset key to the gate's verdict."""

    def __init__(self, message: str, verdicts: Mapping[str, object]):
        super().__init__(message)
        self.verdicts = verdicts


def data_root() -> str:
    """Absolute URL of the data root: `WARDLINE_DATA`, any fsspec URL, by default `.wardline` in the repository."""
    url = os.environ.get("WARDLINE_DATA") or ".wardline"
    if "://" in url and not url.startswith("file://"):
        return url.rstrip("/")
    return str((REPOSITORY / url.removeprefix("file://")).resolve())


def is_local(root: str) -> bool:
    return "://" not in root


def join(root: str, *parts: str) -> str:
    return "/".join([root.rstrip("/"), *parts])


def filesystem(url: str) -> fsspec.AbstractFileSystem:
    return fsspec.core.url_to_fs(url)[0]


def read_bytes(url: str) -> bytes:
    with fsspec.open(url, "rb") as file:
        return file.read()


def fetched(url: str, folder: Path) -> str:
    """Local path of a published file; one of a remote data root is fetched into `folder`, once."""
    if is_local(url):
        return url
    path = folder / "input" / re.sub(r"^\w+://", "", url)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        fs, remote = fsspec.core.url_to_fs(url)
        fs.get_file(remote, str(path))
    return str(path)


def write_bytes(url: str, content: bytes) -> None:
    """Replace one object as a whole: by rename on a local disk, by one PUT elsewhere."""
    fs, path = fsspec.core.url_to_fs(url)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if is_local(url):
        temporary = f"{path}.{os.getpid()}.tmp"
        Path(temporary).write_bytes(content)
        os.replace(temporary, path)
    else:
        fs.pipe_file(path, content)


def fingerprint(**parts: object) -> str:
    """sha256 over a canonical JSON of everything that an output depends on: input versions, recipe or SQL, code."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def code_hash(*paths: Path | str) -> str:
    """sha256 over names and bytes of files; a folder stands for every tracked kind of source file below it."""
    digest = hashlib.sha256()
    for path in map(Path, paths):
        files = (
            [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file() and _is_source(p))
        )
        for file in files:
            digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def _is_source(path: Path) -> bool:
    generated = {"__pycache__", "target", "logs", "dbt_packages"}
    return not generated.intersection(path.parts) and path.suffix in {".py", ".sql", ".yml", ".yaml", ".csv"}


@dataclass(frozen=True)
class Candidate:
    """One asset's output, not yet accepted. `folder` is local; a `table` is Parquet files, else a version directory.

    `unchanged` are records of accepted files that belong to this version too and were not made again.
    """

    key: str
    folder: Path
    fingerprint: str
    inputs: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, object] = field(default_factory=dict)
    table: bool = True
    unchanged: Sequence[Mapping[str, object]] = ()

    @property
    def version(self) -> str:
        return self.fingerprint[:12]

    def parquet(self) -> list[str]:
        return sorted(str(p) for p in self.folder.rglob("*.parquet"))


@dataclass(frozen=True)
class Catalog:
    """A read-only view of one `catalog.json`."""

    root: str
    content: Mapping[str, dict]

    @property
    def accepted(self) -> dict[str, dict]:
        return self.content["accepted"]

    @property
    def held_back(self) -> dict[str, dict]:
        return self.content["held_back"]

    def entry(self, key: str) -> dict:
        if key not in self.accepted:
            raise NotPublished(f"{key} has no accepted version in {self.root}; materialise it first")
        return self.accepted[key]

    def version(self, key: str) -> str:
        return self.entry(key)["version"]

    def files(self, key: str) -> list[str]:
        return [join(self.root, f["path"]) for f in self.entry(key)["files"]]

    def folder(self, key: str) -> str:
        """The version directory of an asset that is no table, such as weights."""
        return join(self.root, key, self.version(key))

    def rows(self, key: str) -> int:
        return sum(f.get("rows", 0) for f in self.entry(key)["files"])

    def reusable(self, key: str, fingerprint: str) -> bool:
        """True if the accepted version was made from just this: nothing new means nothing done."""
        return key in self.accepted and self.accepted[key]["fingerprint"] == fingerprint


def load(root: str | None = None) -> Catalog:
    root = root or data_root()
    url = join(root, "catalog.json")
    fs, path = fsspec.core.url_to_fs(url)
    if not fs.exists(path):
        return Catalog(root, {"format": FORMAT, "accepted": {}, "held_back": {}, "retired": {}})
    content = json.loads(read_bytes(url))
    if content.get("format") != FORMAT:
        raise CatalogError(
            f"{url} has format {content.get('format')}, this release reads {FORMAT}; upgrade Wardline"
        )
    return Catalog(root, content)


@contextlib.contextmanager
def edit(root: str) -> Iterator[dict]:
    """Change `catalog.json` as one replacement; writers wait for each other, readers never wait."""
    with locks.exclusive(join(root, "catalog.lock"), wait_s=60, stale_s=60):
        content = json.loads(json.dumps(load(root).content))
        yield content
        write_bytes(join(root, "catalog.json"), json.dumps(content, indent=1, sort_keys=True).encode())


def publish(root: str, run_id: str, candidates: Iterable[Candidate]) -> dict[str, object]:
    """Judge the candidates, then publish all of them or none; returns the gate's verdicts by asset key.

    Raises GateRefused if any suite in `expectations/` refuses; the accepted versions then stay as they are.
    """
    from orchestration import gate

    candidates = list(candidates)
    verdicts = {
        c.key: gate.judge(c.key, c.parquet() + [join(root, str(f["path"])) for f in c.unchanged])
        for c in candidates
        if gate.has_suite(c.key)
    }
    refused = sorted(key for key, verdict in verdicts.items() if not verdict.passed)
    if refused:
        raise GateRefused(f"not published, refused by the gate: {', '.join(refused)}", verdicts)
    entries = {c.key: _add_files(root, run_id, c) for c in candidates}
    with edit(root) as content:
        content["accepted"].update(entries)
    for candidate in candidates:
        _let_old_files_go(root, candidate.key)
    return verdicts


def _add_files(root: str, run_id: str, candidate: Candidate) -> dict:
    fs, base = fsspec.core.url_to_fs(root)
    stands = load(root).accepted.get(candidate.key, {"files": []})["files"] if candidate.table else []
    by_content = {(_folder(f["path"]), f.get("sha256")): f for f in stands}
    files = list(candidate.unchanged)
    for source in sorted(p for p in candidate.folder.rglob("*") if p.is_file()):
        relative = source.relative_to(candidate.folder).as_posix()
        path = _published_path(candidate, relative)
        record = {"path": path, "bytes": source.stat().st_size, "sha256": sha256_of(source)}
        same = by_content.get((_folder(path), record["sha256"]))
        if same and fs.exists(f"{base}/{same['path']}"):
            files.append(same)
            continue
        if source.suffix == ".parquet":
            record["rows"] = pq.read_metadata(source).num_rows
        fs.makedirs(f"{base}/{_folder(path)}", exist_ok=True)
        fs.put_file(str(source), f"{base}/{path}")
        files.append(record)
    entry = {
        "version": candidate.version,
        "fingerprint": candidate.fingerprint,
        "files": sorted(files, key=lambda f: f["path"]),
        "inputs": dict(candidate.inputs),
        "metadata": dict(candidate.metadata),
        "run_id": run_id,
        "published_at": datetime.now(UTC).isoformat(timespec="microseconds"),
    }
    manifest = f"{candidate.key}/{candidate.version}.manifest.json"
    write_bytes(join(root, manifest), json.dumps(entry, indent=1, sort_keys=True).encode())
    return entry


def _published_path(candidate: Candidate, relative: str) -> str:
    """`bucket=0/data.parquet` becomes `<key>/bucket=0/<version>.parquet`; a version directory keeps its own names."""
    if not candidate.table:
        return f"{candidate.key}/{candidate.version}/{relative}"
    folder, _, name = relative.rpartition("/")
    stem = Path(name).stem
    name = candidate.version if stem == "data" else f"{candidate.version}-{stem}"
    return "/".join(filter(None, [candidate.key, folder, f"{name}.parquet"]))


def _folder(path: str) -> str:
    return path.rpartition("/")[0]


def _let_old_files_go(root: str, key: str) -> None:
    fs, base = fsspec.core.url_to_fs(root)
    folder = f"{base}/{key}"
    manifests = [p for p in fs.ls(folder, detail=False) if p.endswith(".manifest.json")]
    entries = sorted((json.loads(fs.cat_file(p)) for p in manifests), key=lambda e: e["published_at"])
    accepted = load(root).entry(key)
    others = [e for e in entries if e["version"] != accepted["version"]]
    going = others[: max(0, len(others) - (KEPT_VERSIONS.get(key, 1) - 1))]
    kept = {f["path"] for e in entries if e not in going for f in e["files"]} | {
        f["path"] for f in accepted["files"]
    }
    for entry in going:
        fs.rm_file(f"{folder}/{entry['version']}.manifest.json")
        for record in entry["files"]:
            if record["path"] not in kept and fs.exists(f"{base}/{record['path']}"):
                fs.rm_file(f"{base}/{record['path']}")
        if is_local(root):
            shutil.rmtree(f"{folder}/{entry['version']}", ignore_errors=True)


def forget_runs(root: str, older_than: timedelta = timedelta(days=14)) -> int:
    """Remove what old runs left below `candidates/` (settings, logs, unpublished output); returns how many runs."""
    fs, base = fsspec.core.url_to_fs(join(root, "candidates"))
    before, gone = datetime.now(UTC) - older_than, 0
    for run in fs.ls(base, detail=False) if fs.exists(base) else []:
        files = fs.find(run)
        if all(fs.modified(file).astimezone(UTC) < before for file in files):
            fs.rm(run, recursive=True)
            gone += 1
    return gone


def sha256_of(path: Path | str) -> str:
    digest = hashlib.sha256()
    with fsspec.open(str(path), "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextlib.contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A local folder for DuckDB, dbt and Ray: mode 700, removed at the end, whatever happens; if its process is killed, by the
    next one on this host."""
    _remove_what_the_dead_left()
    folder = Path(tempfile.mkdtemp(prefix=f"{SCRATCH}{name}-", dir=os.environ.get("WARDLINE_SCRATCH")))
    folder.chmod(stat.S_IRWXU)
    owner = Path(f"{folder}{OWNER}")
    owner.write_text(json.dumps(locks.me()), encoding="utf-8")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        owner.unlink(missing_ok=True)


def _remove_what_the_dead_left() -> None:
    where = Path(os.environ.get("WARDLINE_SCRATCH") or tempfile.gettempdir())
    for owner in where.glob(f"{SCRATCH}*{OWNER}"):
        with contextlib.suppress(
            OSError, json.JSONDecodeError
        ):  # of another user, or just written or removed
            if not locks.is_alive(json.loads(owner.read_text(encoding="utf-8"))):
                shutil.rmtree(str(owner).removesuffix(OWNER), ignore_errors=True)
                owner.unlink()
