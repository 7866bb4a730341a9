"""A part of the dbt project: its own models of measurements, diagnoses and two tasks, so that a night is short."""

from __future__ import annotations

import shutil
from pathlib import Path

from orchestration import dbt

KEPT = {
    "models/harmonised": {"diagnoses", "fates", "harmonised", "measurements"},
    "models/harmonised/steps": {"copies", "items_mapped", "meanings", "steps"},
    "models/features": set(),
    "models/features/steps": set(),
    "models/labels/steps": {"cohort_visits", "steps"},
    "tasks": {"in_hospital_mortality", "readmission_30d"},
    "grids": set(),
    "tests": {"no_row_is_lost"},
    "tests/dictionary": set(),
    "seeds": {"concepts", "rescues", "seeds", "units"},
}


def write(folder: Path, kept: dict[str, set[str]] = KEPT) -> Path:
    """Copy the project to `folder` and leave of each named part only the files with these stems."""
    shutil.copytree(dbt.PROJECT, folder, ignore=shutil.ignore_patterns(*dbt.GENERATED))
    for part, stems in kept.items():
        for file in (folder / part).iterdir():
            if file.is_file() and file.stem not in stems:
                file.unlink()
    return folder
