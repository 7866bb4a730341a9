"""Promotes stage 2 to `weights/champion` if it beats the standing champion, or the blind control if none stands.

The rule: the lower 95 % bound of the paired patient bootstrap, taken by `evaluate` on the frozen tuning questions, lies
above 0. Not promoting is a normal night. By hand, with WARDLINE_DATA set as for a night:

    python -m ray_jobs.champion --list
    python -m ray_jobs.champion --back-to <version>

Going back sets the versions that came after aside: a night does not promote the same version again.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import fsspec

from orchestration import catalog, locks
from ray_jobs.config import JobError
from ray_jobs.runtime import Check, Job, main

KEY, CANDIDATE = "weights/champion", "weights/stage2"
SETS = ("evaluation/schema_alignment", "evaluation/clinical_reasoning")


def run(job: Job) -> None:
    decision = decision_of(job)
    accepted = catalog.load(job.config.root).accepted.get(KEY)
    version = job.entry(CANDIDATE)["version"]
    if accepted and accepted["version"] == version:
        beaten = accepted["metadata"].get("decision", decision)
        job.stands(KEY, {"why": "the candidate is the standing champion", **figures(beaten)})
        job.report(
            Check(
                KEY, "beats_the_champion", True, "WARN", {"why": "it stands since it did", **figures(beaten)}
            )
        )
        return
    aside = accepted["metadata"].get("set_aside", []) if accepted else []
    why = verdict(decision, version, aside)
    check = Check(
        KEY, "beats_the_champion", why is None, "WARN", {**figures(decision), **({"why": why} if why else {})}
    )
    if why:
        job.log.info("not promoted: %s", why)
        job.stands(KEY, {"why": why, **figures(decision)})
        job.report(check)
        return
    promote(job, decision, accepted, check)


def decision_of(job: Job) -> dict:
    """The decision that both evaluations carry. Raises JobError if they differ or are about other weights."""
    found = [json.loads((job.path(key) / "metrics.json").read_text())["decision"] for key in SETS]
    if any(other != found[0] for other in found):
        raise JobError("the evaluations of the two sets are not of one run; materialise evaluation/ again")
    version = job.entry(CANDIDATE)["version"]
    if found[0]["candidate"]["version"] != version:
        raise JobError(
            f"the evaluation is of another version than {CANDIDATE} {version}; materialise evaluation/ again"
        )
    return found[0]


def verdict(decision: Mapping, version: str, set_aside: list[str]) -> str | None:
    """None to promote, else why not."""
    if version in set_aside:
        return f"version {version} was set aside by hand"
    if decision["difference"]["low"] is None or decision["difference"]["low"] <= 0:
        return f"the lower 95 % bound of its gain over {decision['other']['row']} is not above 0"
    return None


def figures(decision: Mapping) -> dict[str, object]:
    """Both numbers, and what lies between them."""
    return {
        "candidate_version": decision["candidate"]["version"],
        "candidate_exact": decision["candidate"]["exact"],
        "compared_with": decision["other"]["row"],
        "compared_version": decision["other"]["version"] or "none",
        "compared_exact": decision["other"]["exact"],
        "difference": decision["difference"]["value"],
        "difference_low_95": decision["difference"]["low"],
        "difference_high_95": decision["difference"]["high"],
    }


def promote(job: Job, decision: Mapping, accepted: Mapping | None, check: Check) -> None:
    """Publish a copy of the candidate's version directory with its model card, under the same version."""
    candidate = job.entry(CANDIDATE)
    kept = {
        **figures(decision),
        "decision": dict(decision),
        "replaced": accepted["version"] if accepted else None,
        "set_aside": accepted["metadata"].get("set_aside", []) if accepted else [],
        "promoted_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    inputs = {CANDIDATE: candidate["version"]}
    folder = with_card(job, candidate["version"])
    copy = catalog.Candidate(KEY, folder, candidate["fingerprint"], inputs, kept, table=False)
    job.publish({KEY: figures(decision)}, [check], [copy])


def with_card(job: Job, version: str) -> Path:
    """A folder of the candidate's files and the card, sealed anew."""
    from ray_jobs import card
    from ray_jobs.llemr.checkpoint import seal  # torch, which going back by hand does not need

    folder = job.scratch / "promoted"
    shutil.copytree(job.path(CANDIDATE), folder)
    found = {key.split("/")[-1]: json.loads((job.path(key) / "metrics.json").read_text()) for key in SETS}
    card.write(folder, version, found)
    seal(folder)
    return folder


def versions(root: str) -> list[dict]:
    """Every champion that still lies in the data root, oldest first: the manifests."""
    fs, base = fsspec.core.url_to_fs(root)
    folder = f"{base}/{KEY}"
    if not fs.exists(folder):
        return []
    found = [json.loads(fs.cat_file(p)) for p in fs.ls(folder, detail=False) if p.endswith(".manifest.json")]
    return sorted(found, key=lambda entry: entry["published_at"])


def back_to(root: str, version: str) -> str:
    """Let an earlier champion stand again; returns one line about it.

    Raises JobError if there is no such version, if it stands already, or if a file of it is not what was published.
    """
    known = {entry["version"]: entry for entry in versions(root)}
    accepted = catalog.load(root).accepted.get(KEY)
    if version not in known or accepted is None:
        raise JobError(f"no champion {version} in {root}; there are: {', '.join(known) or 'none'}")
    if accepted["version"] == version:
        raise JobError(f"champion {version} stands already")
    for record in known[version]["files"]:
        if catalog.sha256_of(catalog.join(root, record["path"])) != record["sha256"]:
            raise JobError(f"{record['path']} is not the file that was published; take another version")
    with locks.night_lock(root, f"back-to-{version}"), catalog.edit(root) as content:
        standing = content["accepted"][KEY]
        aside = {*standing["metadata"].get("set_aside", []), standing["version"]} - {version}
        entry = known[version]
        content["accepted"][KEY] = {**entry, "metadata": {**entry["metadata"], "set_aside": sorted(aside)}}
    return f"champion {version} stands again; set aside: {', '.join(sorted(aside))}"


def listing(root: str) -> str:
    """One line a champion."""
    accepted = catalog.load(root).accepted.get(KEY, {})
    lines = []
    for entry in versions(root):
        known = entry["metadata"]
        mark = "*" if entry["version"] == accepted.get("version") else " "
        aside = "  set aside" if entry["version"] in accepted.get("metadata", {}).get("set_aside", []) else ""
        lines.append(
            f"{mark} {entry['version']}  {known['promoted_at']}  exact match {known['candidate_exact']}{aside}"
        )
    return "\n".join(lines) or "no champion yet"


def by_hand() -> int:
    """The command line of going back."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    choice = parser.add_mutually_exclusive_group(required=True)
    choice.add_argument("--back-to", metavar="VERSION", help="let this earlier champion stand again")
    choice.add_argument("--list", action="store_true", help="show the champions that are kept, * stands")
    given = parser.parse_args()
    try:
        print(back_to(catalog.data_root(), given.back_to) if given.back_to else listing(catalog.data_root()))
    except (JobError, catalog.CatalogError) as error:
        print(f"wardline: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    if any(argument.startswith("--config") for argument in sys.argv[1:]):
        main(run)
    sys.exit(by_hand())
