"""Ask the standing champion about one patient's record.

    python -m ray_jobs.chat --patient north/123 [--at 2150-01-02T10:00] [question ...]

Without a question it reads one a line. `--evidence` lists the events in view with every answer.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from datetime import UTC, datetime

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.serving.champion import Asked, Champion, Reading


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patient", required=True, help="<hospital>/<patient_id>")
    parser.add_argument("--at", type=moment, help="what was known by then; by default all")
    parser.add_argument("--visit", help="by default the last that had begun by then")
    parser.add_argument("--evidence", action="store_true", help="list the events in view")
    parser.add_argument("question", nargs="*")
    given = parser.parse_args()
    champion, alone = Champion(catalog.data_root()), bool(given.question)
    for question in [" ".join(given.question)] if alone else lines():
        try:
            reading = champion.read(Asked(given.patient, question, given.at, given.visit))
        except (JobError, catalog.CatalogError) as error:
            print(f"wardline: {error}", file=sys.stderr)
            return 2
        say(reading, given.evidence)
    return 0


def moment(text: str) -> datetime:
    """ISO 8601; with a zone it becomes UTC, without one it is time as the records have it."""
    at = datetime.fromisoformat(text)
    return at.astimezone(UTC).replace(tzinfo=None) if at.tzinfo else at


def lines() -> Iterable[str]:
    """Questions from the terminal, until it ends."""
    prompt = "> " if sys.stdin.isatty() else ""
    while True:
        try:
            line = input(prompt).strip()
        except EOFError:
            return
        if line:
            yield line


def say(reading: Reading, evidence: bool) -> None:
    """Print the answer as it grows, and what it rests on."""
    for piece in reading:
        print(piece, end="", flush=True)
    print(f"\n  [{len(reading.view)} of {reading.known} events in view]")
    for event in reading.events() if evidence else ():
        value = "" if event["value"] is None else f": {event['value']:g} {event['unit'] or ''}"
        print(f"  {event['hour']:8.2f} h  {event['text']}{value}  ({event['row_id']})")


if __name__ == "__main__":
    sys.exit(main())
