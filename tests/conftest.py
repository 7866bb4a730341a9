"""`House`: a fresh copy of the repository, as a clone would be, in which a test may edit YAML and run whole nights."""

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"
LEFT_BEHIND = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".wardline",
    ".dagster",
    ".env",
    "__pycache__",
    ".*_cache",
    ".hypothesis",
    "target",
    "logs",
    "*.duckdb",
)

# Loaded by every Python process of a night: writes down each connection that leaves this machine.
WATCHER = """
import os, sys
def watch(event, args):
    if event == "socket.connect" and isinstance(args[1], tuple):
        host = str(args[1][0])
        if host == "169.254.169.254":  # link-local: Ray asks which cloud it runs on, even with its usage statistics off
            return
        if not (host.startswith("127.") or host in ("::1", "localhost", "0.0.0.0") or host in os.environ["OWN_HOSTS"].split()):
            with open(os.environ["CALLS_HOME"], "a") as file:
                file.write(f"{host} {sys.argv[:3]}\\n")
sys.addaudithook(watch)
"""


@dataclass
class House:
    """A copy of the repository with its own data root, state and environment; everything runs in subprocesses."""

    folder: Path
    extra: dict[str, str] = field(default_factory=dict)
    calls: Path | None = None

    @property
    def data(self) -> Path:
        return self.folder / ".wardline"

    @property
    def environment(self) -> dict[str, str]:
        kept = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith(("WARDLINE_", "DAGSTER_", "MIMIC_", "RAY_"))
        }
        state = self.folder / ".dagster"
        state.mkdir(exist_ok=True)
        return (
            kept
            | {
                "PATH": f"{Path(sys.executable).parent}:{kept['PATH']}",
                "DAGSTER_HOME": str(self.folder),
                "WARDLINE_STATE": str(state),
            }
            | self.extra
        )

    def run(self, *command: str, timeout: float = 600) -> subprocess.CompletedProcess:
        return subprocess.run(
            command,
            cwd=self.folder,
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def job(self, name: str, timeout: float = 900) -> subprocess.CompletedProcess:
        return self.run(
            "dagster", "job", "execute", "-m", "orchestration.definitions", "-j", name, timeout=timeout
        )

    @property
    def catalog(self) -> dict:
        return json.loads((self.data / "catalog.json").read_text())

    def edit(self, path: str, pattern: str, replacement: str) -> None:
        """Change a YAML or CSV as a user would; the pattern must be there."""
        file = self.folder / path
        text, count = re.subn(pattern, replacement, file.read_text(), flags=re.MULTILINE)
        assert count, f"{path} has no {pattern}"
        file.write_text(text)

    def watch_connections(self, folder: Path) -> Path:
        """Write down every connection that leaves this machine; returns the file, which exists only if there was one."""
        import socket

        (folder / "sitecustomize.py").write_text(WATCHER)
        own = {i[4][0] for i in socket.getaddrinfo(socket.gethostname(), None)}
        self.extra |= {
            "PYTHONPATH": str(folder),
            "CALLS_HOME": str(folder / "calls"),
            "OWN_HOSTS": " ".join(own),
        }
        return folder / "calls"


def fresh_house(folder: Path) -> House:
    shutil.copytree(REPOSITORY, folder, ignore=LEFT_BEHIND)
    return House(folder)


@pytest.fixture
def house(tmp_path: Path) -> House:
    return fresh_house(tmp_path / "wardline")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The long files first, so that at the end neither of two workers waits for the other."""
    long = ("test_night", "test_warehouse_runs", "test_layouts", "test_cases", "test_warehouse")
    items.sort(key=lambda item: item.path.stem not in long)
