"""What a benchmark of training measures on: the accepted files of a data root in which a night, or part of one, has run."""

import argparse

from orchestration import catalog
from orchestration.catalog import Catalog
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.corpus import Corpus
from ray_jobs.llemr.data import dictionary
from ray_jobs.llemr.recipe import Recipe

CONCEPTS = str(catalog.REPOSITORY / "dbt_project" / "seeds" / "concepts.csv")
SETS = ("schema_alignment", "clinical_reasoning")
NEEDS = ("harmonised/events", "embeddings/minilm", "weights/base_model", *(f"instructions/{s}" for s in SETS))


def parser(description: str | None) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", default=catalog.data_root(), help="data root; by default WARDLINE_DATA")
    return parser


def accepted(root: str, *keys: str) -> Catalog:
    """The catalog of `root`. Exits with one line if one of `keys` is not in it."""
    found = catalog.load(root)
    for key in keys:
        if key not in found.accepted:
            raise SystemExit(
                f"{root} has no {key}; run `make demo` first, or the job `harmonise` with MIMIC_IV_LOCATION and "
                "WARDLINE_HOSPITALS=mimic_iv, and name its data root by --data"
            )
    return found


def corpus_of(root: str, start: str, recipe: Recipe) -> Corpus:
    """What a worker of stage 2 of `recipe` loads from weights `start`."""
    found = accepted(root, *NEEDS, start)
    source = {
        "events": found.files("harmonised/events"),
        "instructions": {name: found.files(f"instructions/{name}") for name in SETS},
        "says": recipe.says,
        "embeddings": found.folder("embeddings/minilm"),
        "dictionary": dictionary(CONCEPTS),
    }
    return Corpus.load(source, checkpoint.load_weights(found.folder(start)))
