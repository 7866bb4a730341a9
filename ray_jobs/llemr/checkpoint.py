"""A weights directory: everything that answering needs, saved and loaded as one thing.

model.safetensors, config.json   the language model in the Hugging Face layout (or language_model.json: where it lies)
tokenizer.json, ...              its tokenizer with chat template
projector.safetensors            the projector
llemr.json                       how events become features, the event budget, the dialect
recipe.yaml, metrics.json, versions.json, MANIFEST.sha256.json
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import json
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import fsspec
import safetensors.torch
import torch
import yaml
from torch import nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from ray_jobs.config import JobError
from ray_jobs.llemr.model import Llemr, Projector
from ray_jobs.llemr.tokens import Features

MANIFEST = "MANIFEST.sha256.json"
transformers_logging.disable_progress_bar()
PACKAGES = ("torch", "transformers", "tokenizers", "safetensors", "deepspeed", "ray")


@dataclass
class Weights:
    """A language model with its tokenizer and, once stage 1 has run, a projector."""

    lm: nn.Module
    tokenizer: PreTrainedTokenizerBase
    features: Features
    projector: Projector | None = None
    settings: Mapping[str, object] = field(default_factory=dict)  # event_budget, dialect (or null)
    lm_at: str | None = None  # where the language model lies, if it is a local model that is only pointed to

    def model(self) -> Llemr:
        """Language model and projector as one module; a new projector (by the seed in force) if there is none yet."""
        projector = self.projector or Projector(self.features.width, self.lm.config.hidden_size)
        return Llemr(self.lm, projector)


def save(
    folder: Path,
    weights: Weights,
    recipe: Mapping[str, object],
    metrics: Mapping[str, object],
    inputs: Mapping[str, str],
    lm_at: str | None = None,
    hospitals: Iterable[str] = (),
) -> None:
    """Write a weights directory. `lm_at`: do not write the language model, say where it lies (relative or absolute);
    hospitals: whose records these weights, and those that they began as, learned from."""
    folder.mkdir(parents=True, exist_ok=True)
    if lm_at:
        _write(folder / "language_model.json", {"path": lm_at})
    else:
        weights.lm.save_pretrained(folder)
        weights.tokenizer.save_pretrained(folder)
    if weights.projector is not None:
        state = {name: tensor.contiguous() for name, tensor in weights.projector.state_dict().items()}
        safetensors.torch.save_file(state, folder / "projector.safetensors")
    _write(folder / "llemr.json", {"features": asdict(weights.features), **weights.settings})
    (folder / "recipe.yaml").write_text(yaml.safe_dump(dict(recipe), sort_keys=False), encoding="utf-8")
    _write(folder / "metrics.json", metrics)
    packages = {name: importlib.metadata.version(name) for name in PACKAGES}
    learned_from = {"hospitals": sorted(hospitals)} if hospitals else {}
    _write(folder / "versions.json", {"inputs": dict(inputs), "packages": packages, **learned_from})


def seal(folder: Path) -> None:
    """Write the manifest: sha256 of every file below, once all are there."""
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.name != MANIFEST)
    _write(folder / MANIFEST, {p.relative_to(folder).as_posix(): _sha256(p) for p in files})


def verify(folder: Path) -> None:
    """Raises JobError naming the first file that is missing or not as it was sealed."""
    if not (folder / MANIFEST).is_file():
        raise JobError(f"{folder} has no {MANIFEST}; it is no finished weights directory")
    for name, sha in json.loads((folder / MANIFEST).read_text()).items():
        if not (folder / name).is_file():
            raise JobError(f"{folder}: {name} is missing; materialise these weights again")
        if _sha256(folder / name) != sha:
            raise JobError(
                f"{folder}: {name} was changed after it was sealed; materialise these weights again"
            )


def fetched(url: str) -> Path:
    """A local copy of a weights directory at any fsspec URL; a local directory is its own copy."""
    if "://" not in url:
        return Path(url)
    target = Path(tempfile.gettempdir(), f"wardline-weights-{hashlib.sha256(url.encode()).hexdigest()[:16]}")
    if not (target / MANIFEST).is_file():
        fs, path = fsspec.core.url_to_fs(url)
        part = Path(tempfile.mkdtemp(dir=target.parent))
        fs.get(path.rstrip("/") + "/", f"{part}/", recursive=True)
        with contextlib.suppress(OSError):  # another worker of this machine was first
            part.rename(target)
    return target


def load_weights(folder: Path | str, dtype: torch.dtype = torch.float32, attention: str = "sdpa") -> Weights:
    """Read a weights directory, or the Hugging Face directory that its `language_model.json` points to."""
    folder = Path(folder)
    settings = json.loads((folder / "llemr.json").read_text())
    pointer = folder / "language_model.json"
    lm_at = json.loads(pointer.read_text())["path"] if pointer.is_file() else "."
    lm_folder = folder / lm_at
    lm = AutoModelForCausalLM.from_pretrained(
        lm_folder, dtype=dtype, attn_implementation=attention, local_files_only=True
    )
    tokenizer = AutoTokenizer.from_pretrained(lm_folder, local_files_only=True)
    features = Features(**settings.pop("features"))
    weights = Weights(lm, tokenizer, features, None, settings, lm_at if Path(lm_at).is_absolute() else None)
    if (folder / "projector.safetensors").is_file():
        projector = Projector(features.width, lm.config.hidden_size)
        projector.load_state_dict(safetensors.torch.load_file(folder / "projector.safetensors"))
        weights = replace(weights, projector=projector)
    return weights


def encoder_of(folder: Path | str) -> str:
    """Key of the embeddings (`embeddings/<encoder>`) with which these weights were trained."""
    versions = json.loads((Path(folder) / "versions.json").read_text())
    (encoder,) = [key for key in versions["inputs"] if key.startswith("embeddings/")]
    return encoder


def learned_from(folder: Path | str) -> list[str] | None:
    """Hospitals whose records these weights learned from; None of weights that do not say so."""
    return json.loads((Path(folder) / "versions.json").read_text()).get("hospitals")


def load(folder: Path | str):
    """Weights ready to answer: see `ray_jobs.llemr.answer.Answerer`."""
    from ray_jobs.llemr.answer import Answerer

    return Answerer(load_weights(folder))


def _write(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=1, sort_keys=True), encoding="utf-8")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
