"""An OpenAI-compatible server over the standing champion, on Ray Serve.

    python -m ray_jobs.serve [--host 127.0.0.1] [--port 8000] [--token-file FILE]

Every request bears a token: that of WARDLINE_TOKEN, or of the token file, which is made (mode 600) if it is not there. It
listens on loopback; on any other address it wants a certificate, because records go over the wire. See docs/chat.md.
"""

from __future__ import annotations

import argparse
import hashlib
import ipaddress
import logging
import os
import secrets
import signal
import socket
import stat
import sys
import threading
from pathlib import Path

os.environ.setdefault("RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S", "60")  # of 5 s: a busy machine never started

from ray import serve as ray_serve

from orchestration import catalog
from ray_jobs import cluster
from ray_jobs.config import JobError

TOKEN, TOKEN_FILE = "WARDLINE_TOKEN", ".dagster/serve-token"
SHORTEST_TOKEN = 16
QUIET = {"enable_access_log": False, "log_level": "ERROR"}


@ray_serve.deployment
@ray_serve.ingress()
class Server:
    """One copy of the model behind the application; it is told the token's digest, not the token."""

    def __init__(self, root: str, token_sha256: str):
        from ray_jobs.serving.champion import Champion  # torch is for the replica alone

        self.champion, self.digest = Champion(root), token_sha256

    def __serve_build_asgi_app__(self):
        from ray_jobs.serving.app import app

        return app(self.champion, self.digest)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on; by default loopback")
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument(
        "--token-file", type=Path, default=catalog.REPOSITORY / TOKEN_FILE, help="file that holds the token"
    )
    parser.add_argument("--certificate", help="PEM file; with --key the server speaks TLS")
    parser.add_argument("--key", help="PEM file of the certificate's private key")
    parser.add_argument("--replicas", type=int, default=1, help="copies of the model")
    parser.add_argument("--gpus", type=float, default=0, help="GPUs a copy")
    given = parser.parse_args()
    try:
        digest = hashlib.sha256(token(given.token_file).encode()).hexdigest()
        check_address(given.host, given.port, bool(given.certificate and given.key))
        catalog.load().entry("weights/champion")
        serve(given, digest)
    except (JobError, catalog.CatalogError) as error:
        print(f"wardline: {error}", file=sys.stderr)
        return 2
    return 0


def token(file: Path) -> str:
    """The token of the environment, else of the file, which is made if it is not there.

    Raises JobError if it is short, or if others may read the file.
    """
    found = os.environ.get(TOKEN)
    if not found:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
                made.write(secrets.token_urlsafe(32) + "\n")
        if file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise JobError(f"{file} can be read by others; chmod 600 {file}")
        found = file.read_text(encoding="utf-8").strip()
    if len(found) < SHORTEST_TOKEN:
        raise JobError(
            f"the token of {TOKEN} or {file} has fewer than {SHORTEST_TOKEN} characters; make a longer one"
        )
    return found


def check_address(host: str, port: int, encrypted: bool) -> None:
    """Raises JobError if records would go over a network in the clear, or if the port is taken."""
    try:
        address = ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    except ValueError:
        raise JobError(f"--host {host} is no IP address; give one such as 127.0.0.1") from None
    if not address.is_loopback and not encrypted:
        raise JobError(
            f"--host {host} is not loopback: give --certificate and --key, so that records are encrypted"
        )
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((str(address), port))
        except OSError:
            raise JobError(f"port {port} of {host} cannot be used; give another --port") from None


def serve(given: argparse.Namespace, digest: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    stop = threading.Event()
    cpus = max(2, given.replicas + 1)
    http = {"host": given.host, "port": given.port}
    http |= {"ssl_certfile": given.certificate, "ssl_keyfile": given.key} if given.certificate else {}
    with cluster.connect(None, cpus):
        for name in (signal.SIGINT, signal.SIGTERM):  # in place of Ray's own
            signal.signal(name, lambda *_: stop.set())
        logging.getLogger("ray.serve").setLevel(logging.WARNING)
        ray_serve.start(proxy_location="HeadOnly", http_options=http, logging_config=QUIET)
        options = {"num_replicas": given.replicas, "ray_actor_options": {"num_gpus": given.gpus}}
        server = Server.options(**options).bind(catalog.data_root(), digest)
        ray_serve.run(server, name="wardline", logging_config=QUIET)
        scheme = "https" if given.certificate else "http"
        source = TOKEN if os.environ.get(TOKEN) else given.token_file
        print(f"wardline: {scheme}://{given.host}:{given.port}/v1, token in {source}", flush=True)
        stop.wait()


if __name__ == "__main__":
    sys.exit(main())
