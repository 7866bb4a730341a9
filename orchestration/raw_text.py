"""One raw file as bytes, as text and as records, with its name in every fault."""

from __future__ import annotations

import csv
import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from orchestration.layout_words import SUFFIXES, RawTable

csv.field_size_limit(sys.maxsize)


class IngestError(RuntimeError):
    """An export cannot be read as its mapping says; the message is one line naming file and mend, without any value."""


@dataclass(frozen=True)
class RawFile:
    """One file of the export. `path` is relative to the hospital's location, `identity` tells its content."""

    raw_table: str
    path: str
    url: str
    identity: str

    @property
    def stem(self) -> str:
        return re.sub(rf"\.({SUFFIXES})$", "", self.path.rsplit("/", 1)[-1])

    @property
    def is_parquet(self) -> bool:
        return self.path.endswith(".parquet")


def open_bytes(local: Path, file: RawFile) -> io.BufferedIOBase:
    return _Whole(gzip.open(local, "rb") if file.path.endswith(".gz") else local.open("rb"), file)


def open_text(local: Path, file: RawFile, raw: RawTable, errors: str) -> io.TextIOBase:
    encoding = "utf-8-sig" if raw.encoding.lower() in ("utf-8", "utf8") else raw.encoding
    try:
        return io.TextIOWrapper(
            io.BufferedReader(open_bytes(local, file)), encoding=encoding, errors=errors, newline=""
        )
    except LookupError:
        raise IngestError(
            f"raw.{file.raw_table}.encoding: {raw.encoding} is no encoding; try utf-8 or latin-1"
        ) from None


def records_of(lines: io.TextIOBase, raw: RawTable, file: RawFile) -> Iterator[list[str] | None]:
    """Records of the file, None for one with broken quotes; raises IngestError for a quote that never closes."""
    reader = csv.reader(lines, delimiter=raw.delimiter, strict=True)
    while True:
        started = reader.line_num + 1
        try:
            yield next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            if "end of data" in str(error):
                raise IngestError(
                    f"{file.url} line {started}: a quote opens and never closes; deliver it again"
                ) from None
            yield None


class _Whole(io.RawIOBase):
    """A stream that names its file if it ends too early."""

    def __init__(self, stream: io.BufferedIOBase, file: RawFile):
        self._stream, self._file = stream, file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: bytearray) -> int:
        block = self._checked_read(len(buffer))
        buffer[: len(block)] = block
        return len(block)

    def read(self, size: int = -1) -> bytes:
        return self._checked_read(size)

    def close(self) -> None:
        self._stream.close()
        super().close()

    def _checked_read(self, size: int) -> bytes:
        try:
            return self._stream.read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error):
            raise IngestError(
                f"{self._file.url} is a truncated or damaged gzip file; deliver it again"
            ) from None
