"""What every Ray job is given: its parameters, its inputs, a folder for its outputs, a Ray, and the one way to publish.

A job is a module with `def run(job: Job) -> None` that ends with

    if __name__ == "__main__":
        main(run)

and is started as `python -m ray_jobs.<job> --config <url>`. Under Dagster it reports through Pipes; alone it does the
same work and publishes the same files. Exit codes: 0 well; 2 something to mend, said in one line; 3 refused by a gate or
by an ERROR check, nothing published; 1 a fault in the program; 130 or 143 interrupted.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import logging
import re
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import fsspec
from dagster_pipes import PipesContext

from orchestration import catalog, locks
from ray_jobs import cluster, config
from ray_jobs.config import JobConfig, JobError
from ray_jobs.reporting import (
    Check,
    Markdown,
    as_json,
    check_id,
    for_pipes,
    frames,
    gate_checks,
    logger,
    pipes_session,
)

OUT_OF_MEMORY = re.compile(r"^[\w.]*(MemoryError|OutOfMemoryError)$")


class Refused(JobError):
    """A gate or an ERROR check said no; nothing was published."""


class Job:
    """One start of a job: made by `main`, handed to `run`."""

    def __init__(self, settings: JobConfig, scratch: Path, log: logging.Logger, pipes: PipesContext | None):
        self.config = settings
        self.params = settings.params
        self.scratch = scratch
        self.log = log
        self.failed_checks: list[Check] = []
        self._pipes = pipes

    @property
    def threads(self) -> int:
        """The parameter `threads` (2 by default), at most the cores that this process may use: threads that wait for one
        another on one core are several times slower than one."""
        return min(int(self.params.get("threads", 2)), cluster.cores())

    def entry(self, key: str) -> dict:
        """The catalog's record of the version of `key` that this job was started with.

        Raises JobError if the key is no input of the job, or if that version is gone.
        """
        if key not in self.config.inputs:
            raise JobError(f"{key} is no input of {self.config.job}; add it to deps in the job's defs.yaml")
        version = self.config.inputs[key]
        accepted = catalog.load(self.config.root).accepted.get(key)
        if accepted and accepted["version"] == version:
            return accepted
        manifest = catalog.join(self.config.root, key, f"{version}.manifest.json")
        try:
            return json.loads(catalog.read_bytes(manifest))
        except FileNotFoundError:
            raise JobError(
                f"version {version} of {key} was replaced since the job was planned; start it again"
            ) from None

    def files(self, key: str) -> list[str]:
        """Absolute URLs of the input's files."""
        return [catalog.join(self.config.root, f["path"]) for f in self.entry(key)["files"]]

    def path(self, key: str) -> Path:
        """Local folder of an input that is a version directory, such as weights; fetched first if the root is remote."""
        version, root = self.entry(key)["version"], self.config.root
        if catalog.is_local(root):
            return Path(root, key, version)
        target = self.scratch / "inputs" / key / version
        if not target.exists():
            fs, base = fsspec.core.url_to_fs(root)
            for record in self.entry(key)["files"]:
                file = target / record["path"].removeprefix(f"{key}/{version}/")
                file.parent.mkdir(parents=True, exist_ok=True)
                fs.get_file(f"{base}/{record['path']}", str(file))
        return target

    def output(self, key: str) -> Path:
        """Local empty folder to fill with the new version of `key`: only Parquet files make a table, anything else a
        version directory. Raises JobError if the key is no output of the job."""
        if key not in self.config.outputs:
            raise JobError(
                f"{key} is no output of {self.config.job}; it writes {', '.join(self.config.outputs)}"
            )
        folder = self.scratch / "outputs" / key
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def publish(
        self,
        metadata: Mapping[str, Mapping[str, object]],
        checks: Sequence[Check] = (),
        candidates: Sequence[catalog.Candidate] = (),
    ) -> None:
        """Publish the outputs named as keys of `metadata`, all or none, and report them with their checks.

        metadata: asset key to what the catalog and the UI show of it: counts, figures, `Markdown`; no patient's value.
        checks: verdicts of this job; they are kept with the version and shown again when it is reused.
        candidates: ready-made candidates for outputs that are not in `output(key)` or have their own version.
        Raises Refused, with nothing published, if a gate or a check of severity ERROR says no.
        """
        checks = [replace(c, severity=self.config.checks.get(check_id(c), c.severity)) for c in checks]
        given = {c.key: c for c in candidates}
        ready = [given.get(key) or self._candidate(key, values, checks) for key, values in metadata.items()]
        failed = [c for c in checks if not c.passed and c.severity == "ERROR"]
        if failed:
            self._refuse(failed, "; ".join(f"{c.asset} fails {c.name}" for c in failed))
        try:
            verdicts = catalog.publish(self.config.root, self.config.run_id, ready) if ready else {}
        except catalog.GateRefused as refusal:
            gate = gate_checks(refusal.verdicts)
            self._refuse(
                [c for c in gate if not c.passed], "; ".join(v.line() for v in refusal.verdicts.values())
            )
        for candidate in ready:
            shown = {
                **metadata[candidate.key],
                "version": candidate.version,
                "path": f"{candidate.key}/{candidate.version}",
            }
            self._report(candidate.key, shown, candidate.version)
        self.report(*checks, *gate_checks(verdicts))

    def stands(self, key: str, metadata: Mapping[str, object]) -> None:
        """Say that the accepted version of `key` stays as it is, and why; a normal end."""
        version = catalog.load(self.config.root).accepted.get(key, {}).get("version")
        self._report(key, {**metadata, "published": False}, version)

    def report(self, *checks: Check) -> None:
        """Log checks and show them in the UI, without publishing anything."""
        for check in checks:
            check = replace(check, severity=self.config.checks.get(check_id(check), check.severity))
            self.log.info(
                "%s of %s: %s",
                check.name,
                check.asset,
                "passed" if check.passed else f"failed ({check.severity})",
            )
            if self._pipes and check_id(check) in self.config.checks:
                self._pipes.report_asset_check(
                    check_name=check.name,
                    passed=check.passed,
                    severity=check.severity,
                    metadata=for_pipes(check.metadata),
                    asset_key=check.asset,
                )

    @contextlib.contextmanager
    def ray(self, num_cpus: int | None = None, log_to_driver: bool = False) -> Iterator[None]:
        """A Ray to run on: an own local one that ends with the block, or the cluster on which the job was submitted.

        num_cpus: CPUs of the local Ray; by default the parameter `num_cpus`, else all that this process may use.
        Raises JobError if the cluster does not answer.
        """
        cpus = num_cpus or self.params.get("num_cpus") or cluster.cores()
        with cluster.connect(self.config.ray_address, int(cpus), log_to_driver):
            yield

    def _candidate(
        self, key: str, metadata: Mapping[str, object], checks: Sequence[Check]
    ) -> catalog.Candidate:
        folder = self.output(key)
        files = [p for p in folder.rglob("*") if p.is_file()]
        if not files:
            raise JobError(f"{self.config.job} wrote no file for {key}")
        table = all(p.suffix == ".parquet" for p in files)
        if not table:
            for name, text in metadata.items():
                if isinstance(text, Markdown):
                    (folder / f"{name}.md").write_text(text, encoding="utf-8")
        kept = {k: v for k, v in as_json(metadata).items() if table or not isinstance(metadata[k], Markdown)}
        kept["checks"] = [{**asdict(c), "metadata": as_json(c.metadata)} for c in checks if c.asset == key]
        return catalog.Candidate(key, folder, self.config.fingerprint, self.config.inputs, kept, table)

    def _refuse(self, failed: list[Check], why: str) -> None:
        self.failed_checks = failed
        raise Refused(f"nothing published: {why}")

    def _report(self, key: str, metadata: Mapping[str, object], version: str | None) -> None:
        self.log.info("%s: %s", key, version or "no version")
        if self._pipes:
            self._pipes.report_asset_materialization(for_pipes(metadata), data_version=version, asset_key=key)


def main(run: Callable[[Job], None]) -> None:
    """Read `--config <url>`, hold the night's lock, run the job, report, and exit with a code that says how it went."""
    parser = argparse.ArgumentParser(description=sys.modules[run.__module__].__doc__)
    parser.add_argument(
        "--config", required=True, help="URL of the job's JSON configuration in the data root"
    )
    url = parser.parse_args().config
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    locks.end_with_parent()
    try:
        settings = config.read(url)
    except JobError as error:
        sys.exit(_say(str(error), 2))
    with (
        catalog.scratch(settings.job) as scratch,
        pipes_session() as pipes,
        logger(settings, scratch, pipes) as log,
    ):
        job = Job(settings, scratch, log, pipes)
        code = _guarded(run, job)
    sys.exit(code)


def _guarded(run: Callable[[Job], None], job: Job) -> int:
    """Run the job and turn whatever goes wrong into an exit code and one line; frames go to the log, values nowhere."""
    try:
        with locks.night_lock(job.config.root, job.config.run_id):
            job.log.info("starts, run %s, fingerprint %s", job.config.run_id, job.config.fingerprint[:12])
            run(job)
            job.log.info("ends well")
            return 0
    except Refused as error:
        return _fail(job, str(error), 3)
    except (JobError, catalog.CatalogError) as error:
        return _fail(
            job, str(getattr(error, "cause", error)), 2
        )  # one from a Ray task has its trace and a cause
    except KeyboardInterrupt:
        return _fail(job, "interrupted", 130)
    except SystemExit:  # from the handler of SIGTERM, ours or Ray's
        return _fail(job, "terminated", 143)
    except Exception as error:
        found = frames(error)
        for line in found:
            job.log.error(line)
        if any(OUT_OF_MEMORY.search(line) for line in [type(error).__name__, *found]):
            return _fail(
                job, "not enough memory; make the recipe's batch or model smaller, or use a larger machine", 2
            )
        where = found[-1].strip() if found else "unknown place"
        return _fail(
            job,
            f"unexpected {type(error).__name__} at {where}; the frames are in {job.config.beside('.log')}",
            1,
        )


def _fail(job: Job, line: str, code: int) -> int:
    job.log.error(line)
    failure = {
        "error": line,
        "code": code,
        "checks": [{**asdict(c), "metadata": as_json(c.metadata)} for c in job.failed_checks],
    }
    catalog.write_bytes(job.config.beside(".failure.json"), json.dumps(failure, indent=1).encode())
    return _say(line, code)


def _say(line: str, code: int) -> int:
    print(f"wardline: {line}", file=sys.stderr, flush=True)
    return code
