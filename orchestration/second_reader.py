"""The second reader: it counts the records of a raw file and shares no code with the reader that stages them."""

from __future__ import annotations

import io
from pathlib import Path

import pyarrow.parquet as pq

from orchestration.layout_words import RawTable
from orchestration.raw_text import RawFile, open_bytes, open_text, records_of

LINE_END_IS_ONE_BYTE = frozenset({"utf-8", "utf8", "ascii", "latin-1", "iso-8859-1", "cp1252", "iso-8859-15"})
BLOCK = 1 << 22


def count_records(file: RawFile, local: Path, raw: RawTable, thorough: bool = False) -> int:
    """Records of the file without its header. Line ends outside quotes are counted; `thorough` reads every record,
    as a quote amid a field (5" tube) is none that opens. Raises IngestError for a truncated file."""
    if file.is_parquet:
        return pq.read_metadata(local).num_rows
    if raw.encoding.lower() in LINE_END_IS_ONE_BYTE and not thorough:
        with open_bytes(local, file) as stream:
            counted = _count_line_ends(stream)
        if counted is not None:
            return max(0, counted - 1)
    with open_text(local, file, raw, errors="surrogateescape") as lines:
        return max(0, sum(1 for record in records_of(lines, raw, file) if record != []) - 1)


def _count_line_ends(stream: io.BufferedIOBase) -> int | None:
    """Line ends outside quotes; None where that is not the number of records (blank lines, lone CR, odd quotes)."""
    records, inside, last = 0, False, b"\n"
    while block := stream.read(BLOCK):
        if b"\r" in block:
            if block.endswith(b"\r"):
                block += stream.read(1)
            block = block.replace(b"\r\n", b"\n")
            if b"\r" in block:
                return None
        for position, part in enumerate(block.split(b'"')):
            inside ^= position > 0
            if not inside:
                if b"\n\n" in part or (position == 0 and last == b"\n" and part.startswith(b"\n")):
                    return None
                records += part.count(b"\n")
        last = block[-1:]
    if inside:
        return None
    return records + (last != b"\n")
