"""One hospital's night: its raw files become the ten tables of the input layer, accepted together or not at all.

    python -m orchestration.ingest <hospital> [...]

does it without Dagster, into the data root that WARDLINE_DATA names. An export that cannot be read, loses a row, is
rejected beyond `max_rejected` or fails its expectations is held back: the accepted version stays, `catalog.json` says why.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from orchestration import (
    accounting,
    catalog,
    data_docs,
    drift,
    gate,
    input_layer,
    locks,
    mapped_tables,
    mapping,
    raw_files,
    raw_tables,
)
from orchestration.expressions import literal, quoted
from orchestration.hospitals import HospitalConfig, configured, known
from orchestration.layout import load
from orchestration.layout_words import Layout
from orchestration.raw_text import IngestError
from orchestration.wording import LayoutError, near

MEMORY = "800MB"
SIDE_TABLES = ("rejected", "accounting")
CODE = (
    "accounting",
    "expressions",
    "ingest",
    "input_layer",
    "items_csv",
    "layout",
    "layout_check",
    "layout_words",
    "mapped_tables",
    "mapping",
    "raw_files",
    "raw_tables",
    "raw_text",
    "second_reader",
)


@dataclass
class Outcome:
    """How a hospital's night went. `status`: published, reused, held_back (an earlier version stays) or left_out."""

    hospital: str
    status: str
    reason: str = ""
    version: str | None = None
    rows: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    remarks: dict[str, dict[str, int]] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    conserved: bool | None = None
    files: int = 0
    verdicts: dict[str, gate.Verdict] = field(default_factory=dict)
    compared_with: str = ""
    drifted: dict[str, object] = field(default_factory=dict)

    @property
    def accepted(self) -> bool:
        return self.status in ("published", "reused")

    def line(self) -> str:
        rows = f"{sum(self.rows.values())} rows in {len(self.rows)} tables, {sum(self.rejected.values())} rejected"
        return (
            f"{self.hospital}: {self.status}"
            + (f", {rows}" if self.rows else "")
            + (f": {self.reason}" if self.reason else "")
        )


class Drifted(catalog.GateRefused):
    """The extract lies too far from the accepted one; `kept` is what a human may accept."""

    def __init__(self, refusal: catalog.GateRefused, kept: dict[str, object]):
        super().__init__(str(refusal), refusal.verdicts)
        self.kept = kept


class RowsLost(IngestError):
    """Records of a raw file are neither in the input layer nor rejected; `lost` says where."""

    def __init__(self, lost: list[str]):
        super().__init__(f"rows are lost: {'; '.join(lost)}; do not use this export before it is explained")
        self.lost = lost


def keys(hospital: str) -> list[str]:
    """The catalog's keys of a hospital: ten tables, and what was rejected, counted and compared beside them."""
    compared = drift.TABLES if drift.is_judged(hospital) else ()
    return [f"input/{hospital}/{table}" for table in [*input_layer.tables(), *SIDE_TABLES, *compared]]


def run(config: HospitalConfig, root: str | None = None, run_id: str = "by-hand") -> Outcome:
    """Ingest one hospital; raises only for a mistake in its mapping (LayoutError) or in the data root (CatalogError)."""
    root = root or catalog.data_root()
    layout = load(config.folder, config.extends)
    with locks.night_lock(root, run_id):
        try:
            outcome = _run(config, layout, root, run_id)
        except RowsLost as error:
            reason = f"{config.hospital}: {error}"
            outcome = Outcome(config.hospital, "held_back", reason, lost=error.lost, conserved=False)
        except IngestError as error:
            outcome = Outcome(config.hospital, "held_back", f"{config.hospital}: {error}")
        except duckdb.Error as error:  # its text may quote rows
            kind = type(error).__name__
            reason = f"{config.hospital}: DuckDB stopped ({kind}); check memory and disk of this machine, then run again"
            outcome = Outcome(config.hospital, "held_back", reason)
        except (OSError, ImportError) as error:
            kind = type(error).__name__
            reason = f"{config.hospital}: {config.url} cannot be read ({kind}); check its address, rights and driver"
            outcome = Outcome(config.hospital, "held_back", reason)
        except catalog.GateRefused as refusal:
            lines = [v.line() for v in refusal.verdicts.values() if not v.passed]
            outcome = Outcome(config.hospital, "held_back", "; ".join(lines), verdicts=dict(refusal.verdicts))
            if isinstance(refusal, Drifted):
                outcome.drifted = refusal.kept
        _note(root, run_id, outcome)
    if outcome.verdicts:
        data_docs.write_docs(root, outcome.verdicts)
    return outcome


def _run(config: HospitalConfig, layout: Layout, root: str, run_id: str) -> Outcome:
    accepted = catalog.load(root)
    files = raw_files.locate(config.url, layout)
    fingerprint = _fingerprint(config, layout, files, accepted)
    if all(accepted.reusable(key, fingerprint) for key in keys(config.hospital)):
        return _kept(accepted, config.hospital, "reused")
    with catalog.scratch("ingest") as scratch, _connect(scratch, config.url) as connection:
        records = raw_tables.load(connection, layout, files, accepted, config.hospital, scratch)
        mapped_tables.map_all(connection, config, layout, records)
        outcome = _write(connection, config, layout, records, scratch, fingerprint)
        if outcome.lost:
            raise RowsLost(outcome.lost)
        accounting.refuse_damage(connection, config.max_rejected, records)
        metadata = {"rejected": outcome.rejected, "remarks": outcome.remarks, "files": outcome.files}
        compared = {}
        if drift.is_judged(config.hospital):
            compared = drift.compare(accepted, config.hospital, scratch / "out", scratch, MEMORY)
            outcome.compared_with = compared["drift"]["compared_with"]
        candidates = [
            catalog.Candidate(
                key,
                scratch / "out" / key,
                fingerprint,
                metadata=compared.get(key.rsplit("/", 1)[1], metadata),
            )
            for key in keys(config.hospital)
        ]
        for name, raw in layout.tables.raw.items():
            if name in records and raw.delivery != "full":
                key = raw_tables.key(config.hospital, name)
                kept = {"files": [record.to_keep() for record in records[name]]}
                candidates.append(catalog.Candidate(key, scratch / "out" / key, fingerprint, metadata=kept))
        try:
            outcome.verdicts = catalog.publish(root, run_id, candidates)
        except catalog.GateRefused as refusal:
            verdict = refusal.verdicts.get(drift.key(config.hospital, "drift"))
            if verdict is None or verdict.passed:
                raise
            kept = drift.keep(root, config.hospital, scratch / "out", fingerprint, compared["profile"])
            raise Drifted(refusal, kept) from None
    return outcome


def _fingerprint(config: HospitalConfig, layout: Layout, files: dict, accepted: catalog.Catalog) -> str:
    """What the tables are made from: every file ever delivered that still counts, the mapping, and this code."""
    delivered = {}
    for name, found in files.items():
        identities = {f.path: f.identity for f in found}
        if layout.tables.raw[name].delivery != "full":
            before = raw_tables.known_files(accepted, config.hospital, name)
            identities = {r.path: r.identity for r in before} | identities
        delivered[name] = identities
    here = Path(__file__).parent
    code = catalog.code_hash(*(here / f"{name}.py" for name in CODE), input_layer.CONTRACT)
    settings = [config.hospital, config.buckets, config.max_rejected]
    return catalog.fingerprint(files=delivered, layout=layout.hash, settings=settings, code=code)


def _connect(scratch: Path, location: str) -> duckdb.DuckDBPyConnection:
    """A scratch database that can read nothing but the hospital's location and the scratch folder."""
    connection = duckdb.connect(str(scratch / "ingest.duckdb"))
    allowed = [str(scratch)] + ([location] if catalog.is_local(location) else [])
    connection.execute(
        f"set memory_limit = '{MEMORY}'; set threads = {min(4, os.cpu_count() or 1)}; set timezone = 'UTC'; "
        f"set temp_directory = {literal(str(scratch / 'spill'))}; set enable_progress_bar = false"
    )
    connection.execute(f"set allowed_directories = [{', '.join(literal(a) for a in allowed)}]")
    connection.execute("set enable_external_access = false; set lock_configuration = true")
    return connection


def _write(connection, config, layout: Layout, records, scratch: Path, fingerprint: str) -> Outcome:
    """Write every candidate below `<scratch>/out/<key>` and count; an Outcome that says `conserved` if no row is lost."""
    out = scratch / "out"
    outcome = Outcome(config.hospital, "published", version=fingerprint[:12])
    for table in input_layer.tables():
        outcome.rows[table] = mapped_tables.write_table(
            connection, table, config.buckets, out / f"input/{config.hospital}/{table}"
        )
        if found := mapping.remarks(connection, table):
            outcome.remarks[table] = found
    lines = accounting.accounting(connection, layout, records)
    outcome.lost = accounting.lost_rows(connection, lines, outcome.rows)
    outcome.conserved = not outcome.lost
    outcome.files = sum(len(listed) for listed in records.values())
    outcome.rejected = accounting.write_rejected(
        connection, layout, records, out / f"input/{config.hospital}/rejected"
    )
    accounting.write(lines, out / f"input/{config.hospital}/accounting")
    for name, listed in records.items():
        if layout.tables.raw[name].delivery != "full":
            for source in (s for s in layout.sources if s.raw_table == name and layout.opt_out):
                opted = (
                    f"(__file, __row) in (select (__file, __row) from mapped.{quoted(source.table)} "
                    f"where __source = {source.position} and __reason = 'opted_out')"
                )
                raw_tables.remove(connection, name, listed, "opted_out", opted)
            raw_tables.write_kept(connection, name, listed, out / raw_tables.key(config.hospital, name))
    return outcome


def _kept(accepted: catalog.Catalog, hospital: str, status: str, reason: str = "") -> Outcome:
    """The outcome that the accepted version stands for."""
    tables = list(input_layer.tables())
    entry = accepted.entry(f"input/{hospital}/{tables[0]}")
    return Outcome(
        hospital,
        status,
        reason,
        version=entry["version"],
        rows={t: accepted.rows(f"input/{hospital}/{t}") for t in tables},
        rejected=entry["metadata"].get("rejected", {}),
        remarks=entry["metadata"].get("remarks", {}),
        files=entry["metadata"].get("files", 0),
        conserved=True,
    )


def _note(root: str, run_id: str, outcome: Outcome) -> None:
    """Say in the catalog whether the hospital is held back, and fill in the version that stands."""
    accepted = catalog.load(root)
    if outcome.accepted:
        if outcome.hospital in accepted.held_back or outcome.hospital in accepted.content["retired"]:
            with catalog.edit(root) as content:
                content["held_back"].pop(outcome.hospital, None)
                content["retired"].pop(outcome.hospital, None)
        return
    now = datetime.now(UTC).isoformat(timespec="seconds")
    drifted = {"profile": outcome.drifted} if outcome.drifted else {}
    with catalog.edit(root) as content:
        content["held_back"][outcome.hospital] = {
            "at": now,
            "run_id": run_id,
            "reason": outcome.reason,
        } | drifted
    if f"input/{outcome.hospital}/patients" not in accepted.accepted:
        outcome.status = "left_out"
        return
    stands = _kept(accepted, outcome.hospital, "held_back")
    outcome.version, outcome.rows, outcome.rejected, outcome.remarks = (
        stands.version,
        stands.rows,
        stands.rejected,
        stands.remarks,
    )


def main(names: list[str]) -> int:
    try:
        everyone = known()
        for name in names:
            if name not in everyone:
                raise LayoutError(f"no hospital is called {name}; {near(name, everyone)}")
        chosen = [everyone[name] for name in names] or configured()
        outcomes = [run(config) for config in chosen]
    except (LayoutError, catalog.CatalogError) as error:
        print(error, file=sys.stderr)
        return 2
    for outcome in outcomes:
        print(outcome.line())
        for table, rows in outcome.rows.items():
            print(f"  {table:15} {rows:>10} rows")
        for reason, rows in outcome.rejected.items():
            print(f"  rejected {reason:30} {rows:>10}")
    return 0 if all(o.accepted for o in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
