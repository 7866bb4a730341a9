"""Two ways to start a Ray job under Dagster Pipes: as a process group on this machine, or through a cluster's Jobs API."""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from urllib.parse import urlsplit

import dagster as dg

from orchestration import catalog, locks, quiet
from orchestration.messages import WholeMessages

ANSWERS_WITHIN_S = 5
ENDS_WITHIN_S = 20
ASKS_EVERY_S = 0.5


class LaunchError(RuntimeError):
    """The job could not be started; one line that names what to mend."""


class JobFailed(RuntimeError):
    """The job started and did not end well."""


FAULTS = (LaunchError, JobFailed)


def address_of(own: str | None = None) -> str | None:
    """The cluster's Jobs API: a component's own `ray_address`, else RAY_ADDRESS; None is this machine."""
    return own or os.environ.get("RAY_ADDRESS") or None


class ProcessGroupClient(dg.PipesSubprocessClient):
    """PipesSubprocessClient whose process leads its own group; whatever ends the step ends the whole group."""

    def run(
        self,
        *,
        context: dg.AssetExecutionContext,
        command: Sequence[str],
        env: Mapping[str, str] | None = None,
        cwd: str | None = None,
        extras: Mapping[str, object] | None = None,
    ) -> dg.PipesClientCompletedInvocation:
        """Run the command to its end. Raises JobFailed with its exit code if that is not 0."""
        with dg.open_pipes_session(context, self.context_injector, self.message_reader, extras) as session:
            process = subprocess.Popen(
                command,
                cwd=cwd,
                env={
                    **os.environ,
                    **(env or {}),
                    **session.get_bootstrap_env_vars(),
                    locks.PARENT: str(os.getpid()),
                },
                start_new_session=True,
            )
            try:
                code = process.wait()
            finally:
                end_group(process)
        if code:
            raise JobFailed(f"exit code {code}")
        return dg.PipesClientCompletedInvocation(session)


def end_group(process: subprocess.Popen) -> None:
    """Ask the process to end, give it time to tidy up, then kill what is left of its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=ENDS_WITHIN_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def here(context: dg.AssetExecutionContext, module: str, url: str) -> dg.PipesClientCompletedInvocation:
    """Run `python -m <module> --config <url>` on this machine. Raises JobFailed."""
    command = [sys.executable, "-m", module, "--config", url]
    with tempfile.TemporaryDirectory() as folder:
        client = ProcessGroupClient(message_reader=WholeMessages(os.path.join(folder, "messages")))
        return client.run(context=context, command=command, cwd=str(catalog.REPOSITORY))


def on_cluster(
    context: dg.AssetExecutionContext, module: str, url: str, address: str
) -> dg.PipesClientCompletedInvocation:
    """Submit the same command to a cluster whose image holds the code. Raises JobFailed."""
    from dagster_ray.core.pipes import PipesRayJobClient

    from orchestration.ray_messages import WholeRayMessages

    submission = _submission(module, url, address, f"{context.run.run_id}-{context.retry_number}")
    try:
        client = PipesRayJobClient(address=address, message_reader=WholeRayMessages())
        return client.run(context=context, submit_job_params=submission)
    except RuntimeError as error:
        raise JobFailed(
            f"Ray job {submission['submission_id']}, {type(error).__name__}; its log is on the cluster"
        ) from None


def submit(module: str, url: str, address: str, start: str, variables: Mapping[str, str]) -> None:
    """The same without Pipes, for a step that reads the outcome itself: submit and wait, under the name of this `start`.

    variables: what the job's environment needs besides the project's own. Raises JobFailed; whatever ends the wait stops
    the job.
    """
    from ray.job_submission import JobStatus, JobSubmissionClient

    submission = _submission(module, url, address, start, variables)
    name = submission["submission_id"]
    try:
        client = JobSubmissionClient(address)
        client.submit_job(**submission)
        try:
            while not (status := client.get_job_status(name)).is_terminal():
                time.sleep(ASKS_EVERY_S)
        except BaseException:
            client.stop_job(name)
            raise
    except (RuntimeError, OSError) as error:
        raise JobFailed(f"Ray job {name}, {type(error).__name__}; its log is on the cluster") from None
    if status != JobStatus.SUCCEEDED:
        raise JobFailed(f"Ray job {name} ended as {status}; its log is on the cluster")


def _submission(
    module: str, url: str, address: str, start: str, variables: Mapping[str, str] | None = None
) -> dict[str, object]:
    environment, python = {**quiet.SETTINGS, **(variables or {})}, "python"
    if is_loopback(address):  # a head on this machine runs this code
        environment["PYTHONPATH"], python = str(catalog.REPOSITORY), sys.executable
    return {
        "entrypoint": shlex.join([python, "-m", module, "--config", url]),
        "submission_id": f"wardline-{module.rsplit('.', 1)[-1]}-{start}",
        "runtime_env": {"env_vars": environment},
    }


def check_address(address: str, root: str) -> None:
    """Refuse what cannot work before anything starts: raises LaunchError naming the setting and its mend."""
    if urlsplit(address).scheme not in ("http", "https"):
        raise LaunchError(
            f"RAY_ADDRESS (or ray_address in the job's defs.yaml) is {address!r}; "
            "give the cluster's Jobs API, such as http://ray-head:8265, or leave it empty for this machine"
        )
    if catalog.is_local(root) and not is_loopback(address):
        raise LaunchError(
            f"the data root {root} is a folder of this machine, which the cluster at {address} cannot read; "
            "set WARDLINE_DATA to a URL that both reach, such as s3://bucket/wardline"
        )
    try:
        urllib.request.urlopen(f"{address.rstrip('/')}/api/version", timeout=ANSWERS_WITHIN_S).close()
    except urllib.error.HTTPError:
        return  # it answers; whether it lets us in is said when the job is submitted
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise LaunchError(
            f"no Ray answers at {address} within {ANSWERS_WITHIN_S} s ({type(reason).__name__}); "
            "start the cluster or mend RAY_ADDRESS (or ray_address in the job's defs.yaml)"
        ) from None


def is_loopback(address: str) -> bool:
    host = urlsplit(address).hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
