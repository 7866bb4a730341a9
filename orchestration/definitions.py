"""The one code location: everything below `orchestration/defs/` is loaded from YAML, nothing is wired by hand."""

from pathlib import Path

from dagster import Definitions, load_from_defs_folder

import orchestration.quiet  # noqa: F401  nothing calls home, whatever is imported next
from orchestration import faults
from orchestration.dead_runs import after_the_dead

FOLDER = Path(__file__).resolve().parent


def load() -> Definitions:
    """Raises faults.WrongDefinition: one line that names file, key and mend, before anything runs."""
    try:
        faults.check(FOLDER / "defs")
        return Definitions.merge(
            load_from_defs_folder(path_within_project=FOLDER), Definitions(executor=after_the_dead)
        )
    except Exception as error:
        raise faults.of(error) from None


defs = load()
