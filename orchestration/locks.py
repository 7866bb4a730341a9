"""Locks in the data root: one night at a time, one writer of the catalog at a time.

A lock is a small file that is created exclusively; it names host, process and time, so that a lock whose process has died
on this host is taken over.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import fsspec

PARENT = "WARDLINE_PARENT"
PR_SET_PDEATHSIG = 1  # prctl(2)


class CatalogError(RuntimeError):
    """A named, actionable fault of the data root; the message carries no patient's value."""


@contextlib.contextmanager
def night_lock(root: str, run_id: str) -> Iterator[None]:
    """Keep two nights apart, whatever started them; steps of the same run share the lock.

    Raises CatalogError if another run holds it and its process still lives (or lives on another host).
    """
    url = f"{root.rstrip('/')}/night.lock"
    mine = {"run_id": run_id, **me(), "since": time.time()}
    fs, path = fsspec.core.url_to_fs(url)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    taken = _create(fs, path, mine)
    if not taken:
        holder = _read_lock(fs, path)
        same_run = holder.get("run_id") == run_id
        if not same_run and is_alive(holder):
            raise CatalogError(
                f"another run ({holder.get('run_id')}) works on {root} since "
                f"{datetime.fromtimestamp(holder.get('since', 0), UTC):%Y-%m-%d %H:%M} UTC on host {holder.get('host')}, "
                f"process {holder.get('pid')}; wait for it, or if it is dead remove {url}"
            )
        if not same_run:
            fs.rm_file(path)
            taken = _create(fs, path, mine)
            if not taken:
                raise CatalogError(f"another run took {url} just now; start again when it has ended")
    try:
        yield
    finally:
        if taken and fs.exists(path):
            fs.rm_file(path)


@contextlib.contextmanager
def exclusive(url: str, wait_s: float, stale_s: float) -> Iterator[None]:
    """Hold the lock file `url`; wait for it at most `wait_s`. Raises CatalogError if another still holds it then.

    A lock that is older than `stale_s`, or whose process died on this host, is taken over.
    """
    fs, path = fsspec.core.url_to_fs(url)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    mine = {**me(), "since": time.time()}
    deadline = time.monotonic() + wait_s
    while not _create(fs, path, mine):
        holder = _read_lock(fs, path)
        if not is_alive(holder) or time.time() - holder.get("since", time.time()) > stale_s:
            with contextlib.suppress(FileNotFoundError):
                fs.rm_file(path)
        elif time.monotonic() > deadline:
            raise CatalogError(
                f"{url} is held by process {holder.get('pid')} on {holder.get('host')}; remove it if dead"
            )
        time.sleep(0.05)
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            fs.rm_file(path)


def _create(fs: fsspec.AbstractFileSystem, path: str, content: dict) -> bool:
    try:
        with fs.open(path, "xb") as file:
            file.write(json.dumps(content).encode())
        return True
    except FileExistsError:
        return False


def _read_lock(fs: fsspec.AbstractFileSystem, path: str) -> dict:
    try:
        return json.loads(fs.cat_file(path) or b"{}")
    except (FileNotFoundError, json.JSONDecodeError):
        return {**me(), "since": time.time()}  # being written or gone: look again


def is_alive(holder: dict) -> bool:
    """Whether the process of this host and pid may still run; that of another host may."""
    if holder.get("host") != socket.gethostname():
        return True
    try:
        os.kill(int(holder.get("pid", 0)), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def me() -> dict:
    """Host and pid of this process."""
    return {"host": socket.gethostname(), "pid": os.getpid()}


def end_with_parent() -> None:
    """Where PARENT names the process that started this one: be terminated when that is killed (on Linux), for nobody would see
    what this one then does, and it would keep the night's lock. Raises SystemExit if that is gone already."""
    parent = os.environ.pop(PARENT, None)
    if parent is None:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.getppid() != int(parent):
        sys.exit(143)
