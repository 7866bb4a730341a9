"""From a configuration to a hospital's export: its files, and a manifest that is written last."""

from __future__ import annotations

import hashlib
import json
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType

import fsspec
import numpy as np

from orchestration import catalog
from orchestration.synthetic import north, south
from orchestration.synthetic.truth import hospital_truth
from orchestration.synthetic.writing import Export, to_bytes

STYLES: dict[str, ModuleType] = {"north": north, "south": south}
MANIFEST = "manifest.json"


@dataclass(frozen=True)
class DemoExport:
    """What an export is made from. Hospitals that are given one seed and one number of twins share these persons."""

    hospital: str
    style: str
    patients: int
    twins: int
    seed: int

    @property
    def fingerprint(self) -> str:
        """sha256 of the settings and of the generator's code and dictionaries."""
        return catalog.fingerprint(settings=asdict(self), code=catalog.code_hash(Path(__file__).parent))

    def build(self) -> tuple[Export, dict[str, int]]:
        """The tables by file name, and how many errors were planted by kind. Same settings, same tables."""
        rng = np.random.default_rng([self.seed, zlib.crc32(f"{self.hospital}/{self.style}".encode())])
        truth = hospital_truth(self.seed, self.hospital, self.patients, self.twins)
        return STYLES[self.style].export(rng, truth)

    def write(self, location: str) -> dict:
        """Write the export below `location` (a folder or any fsspec URL) and return its manifest.

        A folder with a manifest is whole: the manifest goes first and comes last. Same settings, same bytes.
        """
        fs, base = fsspec.core.url_to_fs(location)
        manifest = catalog.join(location, MANIFEST)
        former = read_manifest(location)
        if former:
            fs.rm_file(f"{base}/{MANIFEST}")
        tables, planted = self.build()
        files = {}
        for name, rows in tables.items():
            content = to_bytes(rows, name, STYLES[self.style].SEPARATOR)
            catalog.write_bytes(catalog.join(location, name), content)
            files[name] = {
                "rows": len(rows),
                "bytes": len(content),
                "sha256": hashlib.sha256(content).hexdigest(),
            }
        for name in set(former["files"] if former else ()) - set(files):
            fs.rm_file(f"{base}/{name}")
        record = {"fingerprint": self.fingerprint, **asdict(self), "files": files, "planted": planted}
        catalog.write_bytes(manifest, json.dumps(record, indent=1, sort_keys=True).encode())
        return record

    def standing(self, location: str) -> dict | None:
        """The manifest of an export that was made from just these settings and is still all there, else None."""
        manifest = read_manifest(location)
        if manifest is None or manifest["fingerprint"] != self.fingerprint:
            return None
        fs, base = fsspec.core.url_to_fs(location)
        there = all(
            fs.exists(f"{base}/{name}") and fs.size(f"{base}/{name}") == file["bytes"]
            for name, file in manifest["files"].items()
        )
        return manifest if there else None


def read_manifest(location: str) -> dict | None:
    """The manifest of the export at `location`, or None if there is none or it cannot be read."""
    try:
        return json.loads(catalog.read_bytes(catalog.join(location, MANIFEST)))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
