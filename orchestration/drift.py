"""Drift: tonight's extract of a hospital beside the last accepted one. What moved too far holds the hospital back.

`compare` writes one row a comparison; `expectations/input/drift.yaml` says how far each may move, and the gate judges it
like any other table. The profile of the accepted extract is published beside its tables, as `input/<hospital>/profile`.
Where the change is true, a human says so, and the extract that was held back becomes what the next one is compared with:

    python -m orchestration.drift accept <hospital>
"""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from orchestration import catalog, input_layer, suites
from orchestration.distances import SCHEMA, distances
from orchestration.extract_profile import ALWAYS, Extract, edges_of, measured_how
from orchestration.wording import near

TABLES = ("profile", "drift")
FIRST = "nothing: it is the first"


def key(hospital: str, table: str) -> str:
    return f"input/{hospital}/{table}"


def is_judged(hospital: str) -> bool:
    """False in a house that has no suite for it."""
    return suites.has_suite(key(hospital, "drift"))


def compare(
    accepted: catalog.Catalog, hospital: str, out: Path, scratch: Path, memory: str
) -> dict[str, dict]:
    """Write profile and drift of the extract whose tables lie below `out`; returns their metadata by table."""
    tonight = {t: _parquet(out / key(hospital, t)) for t in input_layer.tables()}
    how = measured_how(tonight["items"])
    before, last_before, compared_with = _before(accepted, hospital, tonight["items"], how, scratch, memory)
    with Extract(scratch / "tonight", tonight, memory) as extract:
        profile, last_day = extract.profile(), extract.last_day
        if before is not None:
            scopes = {"whole": ALWAYS, "new": (last_before, last_day)}
            moved = distances(before, extract.counts(scopes, edges_of(before)))
        else:
            moved = SCHEMA.empty_table()
    for table, content in (("profile", profile), ("drift", moved)):
        folder = out / key(hospital, table)
        folder.mkdir(parents=True)
        pq.write_table(content, folder / "data.parquet", compression="zstd")
    return {"profile": {"how": how, "last_day": last_day}, "drift": {"compared_with": compared_with}}


def _before(
    accepted: catalog.Catalog, hospital: str, items: list[str], how: str, scratch: Path, memory: str
) -> tuple[pa.Table | None, str, str]:
    """The accepted profile, its last day, its version. Accepted under another mapping or dictionary, the rows themselves
    are looked at again as tonight's are, so that a mapping that was mended is no drift."""
    if key(hospital, "items") not in accepted.accepted:
        return None, "", FIRST
    stands = accepted.accepted.get(key(hospital, "profile"))
    if stands and stands["metadata"]["how"] == how:
        file = catalog.fetched(accepted.files(key(hospital, "profile"))[0], scratch)
        return pq.read_table(file), stands["metadata"]["last_day"], stands["version"]
    former = {
        t: [catalog.fetched(url, scratch) for url in accepted.files(key(hospital, t))]
        for t in input_layer.tables()
    }
    with Extract(scratch / "before", former | {"items": items}, memory) as extract:
        return extract.profile(), extract.last_day, accepted.version(key(hospital, "items"))


def _parquet(folder: Path) -> list[str]:
    return sorted(map(str, folder.rglob("*.parquet")))


def keep(root: str, hospital: str, out: Path, fingerprint: str, metadata: dict) -> dict[str, object]:
    """Keep the profile of an extract that is held back, for `accept`; returns what the catalog notes of it."""
    path = f"{key(hospital, 'profile')}/held_back.parquet"
    (file,) = _parquet(out / key(hospital, "profile"))
    catalog.write_bytes(catalog.join(root, path), Path(file).read_bytes())
    return {"path": path, "fingerprint": fingerprint, "metadata": metadata}


def accept(hospital: str, root: str | None = None) -> str:
    """Compare the next extract with the one that is held back for drift; returns a line. Raises CatalogError if none is."""
    root = root or catalog.data_root()
    held_back = catalog.load(root).held_back
    drifted = sorted(name for name, record in held_back.items() if "profile" in record)
    if hospital not in drifted:
        raise catalog.CatalogError(
            f"{hospital} is not held back for drift; {near(hospital, drifted) if drifted else 'no hospital is'}"
        )
    record = held_back[hospital]["profile"]
    with catalog.scratch("drift") as folder:
        content = catalog.read_bytes(catalog.join(root, record["path"]))
        (folder / "data.parquet").write_bytes(content)
        made = catalog.Candidate(
            key(hospital, "profile"), folder, record["fingerprint"], metadata=record["metadata"]
        )
        catalog.publish(root, "accepted-by-hand", [made])
    return f"{hospital}: the extract held back at {held_back[hospital]['at']} is what the next one is compared with"


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "accept":
        sys.exit("usage: python -m orchestration.drift accept <hospital>")
    try:
        print(accept(sys.argv[2]))
    except catalog.CatalogError as error:
        sys.exit(str(error))
