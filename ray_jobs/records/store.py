"""Vectors of texts that are kept between runs: float16, by sha256 of the text, one folder a model and serialiser.

    <root>/vectors/<encoder>-<sha of the model>/<serialiser>/<part>.npz     text_sha256, vector
    <root>/vectors/<encoder>-<sha of the model>/<serialiser>/model.json

A part is written once and never changed, so a run that was broken off goes on where it was. What a text is worth as a
vector depends on the model and on the text alone, but for its last bits, which depend on the padding and so on the texts that
were in its batch: a part may be deleted at any time and is then computed again, near to what it was and not byte for byte.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterable, Sequence

import numpy as np

from orchestration import catalog
from ray_jobs.config import JobError

MODEL = "model.json"


def text_sha(*texts: str) -> str:
    """sha256 of a text, or of a record and its instruction."""
    return hashlib.sha256(chr(31).join(texts).encode()).hexdigest()


class VectorStore:
    """url: the folder, any fsspec URL; model: what made the vectors (its sha and its settings), as JSON.

    Raises JobError if another model wrote the folder.
    """

    def __init__(self, url: str, model: dict[str, object]):
        self.url = url
        file = catalog.join(url, MODEL)
        content = json.dumps(model, indent=1, sort_keys=True).encode()
        try:
            found = catalog.read_bytes(file)
        except FileNotFoundError:
            catalog.write_bytes(file, content)
            return
        if json.loads(found) != json.loads(content):
            differing = sorted(k for k in model if json.loads(found).get(k) != model[k])
            raise JobError(
                f"{url} was written by another model (it differs in {', '.join(differing)}); give params.store another "
                "folder, or delete this one"
            )

    def of(self, wanted: Iterable[str]) -> dict[str, np.ndarray]:
        """Vectors by text_sha256, of those that are there: float16 [dimensions]."""
        wanted, found = {sha.encode() for sha in wanted}, {}
        for part in self._parts():
            with np.load(io.BytesIO(catalog.read_bytes(part)), allow_pickle=False) as kept:
                shas, vectors = kept["text_sha256"].tolist(), kept["vector"]
            found |= {sha.decode(): vectors[i] for i, sha in enumerate(shas) if sha in wanted}
        return found

    def add(self, texts: Sequence[str], vectors: np.ndarray) -> None:
        """texts: their text_sha256, [n]; vectors: float16 [n, dimensions]. The same texts make the same part."""
        buffer = io.BytesIO()
        np.savez(buffer, text_sha256=np.array(texts, "S64"), vector=vectors.astype(np.float16, copy=False))
        name = text_sha(*texts)[:16]
        catalog.write_bytes(catalog.join(self.url, f"{name}.npz"), buffer.getvalue())

    def _parts(self) -> list[str]:
        fs = catalog.filesystem(self.url)
        base = fs._strip_protocol(self.url)
        found = sorted(fs.glob(f"{base}/*.npz"))
        return found if catalog.is_local(self.url) else [fs.unstrip_protocol(f) for f in found]
