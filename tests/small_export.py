"""A small hospital export and its mapping, written by a test that then damages it."""

from __future__ import annotations

import gzip
from dataclasses import dataclass, field
from pathlib import Path

from orchestration.hospitals import HospitalConfig

TABLES = """
timezone: Europe/Berlin
raw:
  people: {path: people.csv, key: [pid]}
  cases: {path: cases.csv, key: [case_no]}
  labs: {path: labs.csv.gz}
  dictionary: {path: dictionary.csv}
input:
  patients:
    - from: people
      columns: {patient_id: pid, sex: "case sex when 'w' then 'F' when 'm' then 'M' end", birth_year: born}
  visits:
    - from: cases
      columns: {patient_id: pid, visit_id: case_no, event_at: came, end_at: went, died_in_visit: "died = '1'"}
  measurements:
    - from: labs
      join: {cases: cases.case_no = labs.case_no}
      ignore: {cancelled: "status = 'X'"}
      columns:
        patient_id: coalesce(labs.pid, cases.pid)
        visit_id: case_no
        event_at: taken
        available_at: reported
        source_table: "'labs'"
        code: test
        value_text: result
        unit: unit
  items:
    - from: dictionary
      columns: {source_table: "'labs'", code: test, label: name}
"""
ITEMS = """source_table,code,label,concept,decision,reason,unit,mapped_by,note
labs,GLU,,glucose,map,,mg/dL,test,
labs,COM,comment,,ignore,text_only,,test,
"""
PEOPLE = ["pid,sex,born", "p1,w,1950", "p2,m,1960", "p3,,"]
CASES = [
    "case_no,pid,came,went,died",
    "c1,p1,2024-03-01 10:00:00,2024-03-05 12:00:00,0",
    "c2,p2,2024-07-01 10:00:00,2024-07-02 10:00:00,1",
    "c3,p3,2024-08-01 10:00:00,2024-08-09 10:00:00,0",
]
LABS = ["pid,case_no,taken,reported,test,result,unit,status"] + [
    f"p{n % 3 + 1},c{n % 3 + 1},2024-08-0{n % 8 + 1} 12:00:00,2024-08-0{n % 8 + 1} 13:00:00,GLU,{90 + n},mg/dL,F"
    for n in range(40)
]
DICTIONARY = ["test,name", "GLU,Glucose"]


@dataclass
class Export:
    """One hospital named `small` below a test's folder: `files` holds the lines of each file, `write` writes them."""

    base: Path
    tables: str = TABLES
    items: str = ITEMS
    max_rejected: float = 0.2
    files: dict[str, list[str]] = field(
        default_factory=lambda: {
            "people.csv": list(PEOPLE),
            "cases.csv": list(CASES),
            "labs.csv.gz": list(LABS),
            "dictionary.csv": list(DICTIONARY),
        }
    )

    @property
    def folder(self) -> Path:
        return self.base / "defs" / "small"

    @property
    def location(self) -> Path:
        return self.base / "export"

    @property
    def root(self) -> str:
        return str(self.base / "data")

    def write(self) -> HospitalConfig:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.location.mkdir(exist_ok=True)
        (self.folder / "tables.yaml").write_text(self.tables)
        (self.folder / "items.csv").write_text(self.items)
        for name, lines in self.files.items():
            self.write_bytes(name, ("\n".join(lines) + "\n").encode())
        return HospitalConfig(
            hospital="small", location=str(self.location), folder=self.folder, max_rejected=self.max_rejected
        )

    def write_bytes(self, name: str, content: bytes) -> None:
        (self.location / name).write_bytes(
            gzip.compress(content, mtime=0) if name.endswith(".gz") else content
        )
