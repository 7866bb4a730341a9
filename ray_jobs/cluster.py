"""Where a Ray job computes: an own Ray on this machine, which ends with the job, or the cluster it was submitted to."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import secrets
from collections.abc import Iterator

from orchestration import catalog
from ray_jobs.config import JobError

OBJECT_STORE_BYTES = 512 << 20
LONGEST_FOLDER = 40  # a UNIX socket's path holds 107 bytes, of which Ray adds up to 66


def cores() -> int:
    """CPU cores that this process may use, which may be fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def connect(address: str | None, num_cpus: int, log_to_driver: bool = False) -> Iterator[None]:
    """Connect to Ray for the length of the block.

    address: None starts a local Ray with `num_cpus` CPUs in a private folder; anything else means that this process runs
    on the cluster (the Jobs API started it there), whose own address Ray finds.
    Raises JobError if the cluster does not answer.
    """
    if address:
        with _cluster(address, log_to_driver):
            yield
    else:
        with _local(num_cpus, log_to_driver):
            yield


@contextlib.contextmanager
def _local(num_cpus: int, log_to_driver: bool) -> Iterator[None]:
    """An own Ray: own folder, own token, no dashboard. Others on this machine are neither joined nor stopped."""
    import ray
    from ray._raylet import Config

    with catalog.scratch("ray") as folder, _environment() as environment:
        if len(str(folder)) > LONGEST_FOLDER:
            raise JobError(
                f"Ray's sockets need a shorter scratch folder; set WARDLINE_SCRATCH to one like /tmp, not {folder}"
            )
        environment.update(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=_token())
        environment.pop("RAY_ADDRESS", None)
        Config.initialize(
            ""
        )  # Ray reads RAY_AUTH_MODE once, at its import; this makes it look again (Ray 2.60)
        try:
            ray.init(
                address="local",
                num_cpus=num_cpus,
                include_dashboard=False,
                object_store_memory=OBJECT_STORE_BYTES,
                log_to_driver=log_to_driver,
                logging_level=logging.WARNING,
                _temp_dir=str(folder),
                _node_ip_address="127.0.0.1",  # listens on loopback only
            )
            environment["RAY_ADDRESS"] = (
                ray.get_runtime_context().gcs_address
            )  # so that libraries join just this one
            yield
        finally:
            ray.shutdown()


@functools.cache
def _token() -> str:
    """One secret a process: Ray keeps the first that it has seen."""
    return secrets.token_hex(32)


@contextlib.contextmanager
def _cluster(address: str, log_to_driver: bool) -> Iterator[None]:
    import ray

    try:
        ray.init(address="auto", log_to_driver=log_to_driver, logging_level=logging.WARNING)
    except (ConnectionError, RuntimeError):
        raise JobError(
            f"no Ray cluster answers here; jobs for {address} are started on it by its Jobs API"
        ) from None
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _environment() -> Iterator[os._Environ]:
    """The process's environment, put back as it was afterwards."""
    before = dict(os.environ)
    try:
        yield os.environ
    finally:
        os.environ.clear()
        os.environ.update(before)
