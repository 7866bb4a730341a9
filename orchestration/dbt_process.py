"""dbt's process: imports, the parsed manifest and dbt's own schemas are paid once, and every command runs in a fork of it.

`python -m orchestration.dbt_process` reads one command a line of its input, as JSON, and answers each with its exit code. It
ends with its input. What dbt says goes to a file that the command names, as it may quote rows.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import io
import json
import os
import signal
import subprocess
import sys
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

PARSED = "partial_parse.msgpack"
RESULTS = "run_results.json"


class DbtProcess:
    """The process of this one: started by the first command, ended by `close` or with this process."""

    def __init__(self) -> None:
        self._process: subprocess.Popen | None = None
        self._lock = threading.Lock()
        atexit.register(self.close)

    def run(self, arguments: Sequence[str], environment: Mapping[str, str], target: Path, said: Path) -> int:
        """Run dbt's command line in the folder `target`, with the manifest that lies there; returns its exit code.

        said: file for what dbt prints. Whatever interrupts the wait ends the command.
        """
        call = {
            "arguments": list(arguments),
            "environment": dict(environment),
            "target": str(target),
            "said": str(said),
        }
        with self._lock:
            if self._process is None or self._process.poll() is not None:
                command = [sys.executable, "-m", "orchestration.dbt_process"]
                self._process = subprocess.Popen(
                    command, env=dict(environment), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
                )
            try:
                print(json.dumps(call), file=self._process.stdin, flush=True)
                answer = self._process.stdout.readline()
            except BaseException:
                self._process.terminate()
                self._process.wait()
                raise
        return int(answer or 1)

    def close(self) -> None:
        if self._process is not None:
            with contextlib.suppress(BrokenPipeError):
                self._process.stdin.close()
            self._process.wait()
            self._process.stdout.close()
            self._process = None


def serve() -> None:
    """Fork for every command on the input, until it ends; SIGTERM ends the command that runs, too."""
    import pandas  # noqa: F401  (DuckDB and the Python models ask for it)
    from dbt.cli.main import dbtRunner  # noqa: F401

    manifests: dict[str, object] = {}
    child = 0

    def end(*_: object) -> None:
        if child:
            os.kill(child, signal.SIGKILL)
        os._exit(143)

    signal.signal(
        signal.SIGINT, signal.SIG_IGN
    )  # of a terminal: the process that waits for the answer decides
    signal.signal(signal.SIGTERM, end)
    for line in sys.stdin:
        call = json.loads(line)
        manifest = _manifest(call, manifests)
        child = os.fork()
        if child == 0:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            _end(call, manifest)
        _, status = os.waitpid(child, 0)
        child = 0
        print(os.waitstatus_to_exitcode(status), flush=True)


def _manifest(call: Mapping[str, object], read: dict[str, object]) -> object | None:
    """The manifest of a parse, read once for all its copies; None if nothing has been parsed there.

    With it dbt lists nothing once, so that the schemas which it makes at their first use are there in every fork.
    """
    from dbt.cli.main import dbtRunner
    from dbt.contracts.graph.manifest import Manifest
    from dbt.parser.manifest import extended_mashumuro_decoder

    file = Path(call["target"], PARSED)
    if not file.exists():
        return None
    content = file.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    if digest not in read:
        read.clear()
        read[digest] = Manifest.from_msgpack(content, decoder=extended_mashumuro_decoder)
        places = call["arguments"][call["arguments"].index("--profile") :]
        with contextlib.redirect_stdout(io.StringIO()):
            dbtRunner(manifest=read[digest]).invoke(["ls", "--select", "nothing", *places])
    return read[digest]


def _end(call: Mapping[str, object], manifest: object | None) -> NoReturn:
    """In the fork: run the command and end at once; to take all modules down would cost as much as a small command."""
    code = 1
    try:
        done = _command(call, manifest)
        atexit._run_exitfuncs()  # DuckDB's is among them, which closes the database
        code = done
    except BaseException:
        traceback.print_exc()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _command(call: Mapping[str, object], manifest: object | None) -> int:
    """In the fork: run one command; returns the exit code."""
    from dbt.artifacts.schemas.run import RunExecutionResult
    from dbt.cli.main import dbtRunner

    os.environ.clear()
    os.environ.update(call["environment"])
    os.chdir(call["target"])
    said = os.open(call["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    os.dup2(said, 1)
    os.dup2(said, 2)
    arguments = call["arguments"]
    for node in manifest.nodes.values() if manifest else ():
        if node.resource_type == "seed":  # parsed elsewhere: it is read from where the project lies now
            node.root_path = arguments[arguments.index("--project-dir") + 1]
    done = dbtRunner(manifest=manifest).invoke(arguments)
    if isinstance(done.result, RunExecutionResult):  # dbt's --write-json would write the manifest as well
        done.result.write(str(Path(call["target"], RESULTS)))
    return 0 if done.success else 1


if __name__ == "__main__":
    serve()
