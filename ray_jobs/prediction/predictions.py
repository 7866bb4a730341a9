"""The one form in which every contestant says what it foresees, so that one report can judge them all.

    <version directory of an asset>/predictions/<contestant>/<task>/<part>.parquet

`contestant` is a name of its own, such as rich_counts_lightgbm or llemr; `task` is the name of labels/<task>, followed by
/<group> where a task has groups. A file has the columns of MEDS-evaluation's prediction schema (`SCHEMA`), is sorted by
subject and time, and holds every row of the held-out split that has a label, once. Parts:

- `all`: by the model that learned from the whole train split (and chose on tuning); every contestant has it;
- `few_shot`: the same rows for each of `shots` (labels a class) and `replicate`, two columns beside the schema's;
- `left_out`: each row by a model that learned nothing from the row's own hospital.

Beside them `tuning.json` may tell the model's AUROC on the tuning split, by which the report chooses among its baselines.

A contestant's job calls `told(labels, probabilities)` and `write(job.output(key), contestant, task, part, frame)` and names
its asset in `deps` of orchestration/defs/prediction/comparison. Whoever reads the files needs nothing else.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
import polars as pl

FOLDER = "predictions"
SCHEMA = {
    "subject_id": pl.Int64, "prediction_time": pl.Datetime("us"), "boolean_value": pl.Boolean,
    "predicted_boolean_value": pl.Boolean, "predicted_boolean_probability": pl.Float32,
}  # fmt: skip
FEW_SHOT = {"shots": pl.Int32, "replicate": pl.Int32}
TUNING = "tuning.json"
PARTS = {"all": {}, "few_shot": FEW_SHOT, "left_out": {}}
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


def told(labels: pl.DataFrame, probabilities: np.ndarray, **more: int) -> pl.DataFrame:
    """The rows of a file. labels: hospital, patient_id, prediction_at, label (0 or 1), [n]; probabilities: [n];
    more: `shots` and `replicate`, of the part few_shot."""
    people = labels.select("hospital", "patient_id").unique()
    numbers = [subject_id(*person) for person in people.iter_rows()]
    people = people.with_columns(pl.Series("subject_id", numbers, pl.Int64))
    return (
        labels.select("hospital", "patient_id", "prediction_at", "label")
        .with_columns(pl.Series("probability", np.asarray(probabilities), pl.Float64))
        .join(people, on=["hospital", "patient_id"], maintain_order="left")
        .select(
            "subject_id",
            prediction_time=pl.col("prediction_at").cast(pl.Datetime("us")),
            boolean_value=pl.col("label") == 1,
            predicted_boolean_value=pl.col("probability") >= 0.5,
            predicted_boolean_probability=pl.col("probability").cast(pl.Float32),
            **{name: pl.lit(value, FEW_SHOT[name]) for name, value in more.items()},
        )
    )


def subject_id(hospital: str, patient_id: str) -> int:
    """MEDS' number of a patient, the same as in meds/<hospital>."""
    return int(hashlib.md5((hospital + chr(31) + patient_id).encode()).hexdigest()[:15], 16)


def write(folder: Path, contestant: str, task: str, part: str, frame: pl.DataFrame) -> None:
    """Write one part. Raises ValueError, in one line, if the name or the frame is not of this form."""
    where = f"predictions of {contestant} for {task}, part {part}"
    if part not in PARTS or not all(NAME.fullmatch(name) for name in (contestant, *task.split("/"))):
        raise ValueError(f"{where}: names are letters, digits, _ . and -; parts are {', '.join(PARTS)}")
    schema = {**SCHEMA, **PARTS[part]}
    if dict(frame.schema) != schema:
        raise ValueError(f"{where}: columns are {', '.join(frame.columns)}; make the frame with told()")
    chances = frame["predicted_boolean_probability"]
    if any(frame.null_count().row(0)) or not (chances.is_finite() & chances.is_between(0, 1)).all():
        raise ValueError(f"{where}: a value is missing, or a probability is not in 0 to 1")
    file = folder / FOLDER / contestant / task / f"{part}.parquet"
    file.parent.mkdir(parents=True, exist_ok=True)
    frame.sort(
        *PARTS[part], "subject_id", "prediction_time", "boolean_value", maintain_order=True
    ).write_parquet(file)


def write_tuning(folder: Path, contestant: str, task: str, auroc: float) -> None:
    """Beside a written part: the AUROC on the tuning split; nothing where that split has one class (nan)."""
    if not np.isnan(auroc):
        file = folder / FOLDER / contestant / task / TUNING
        file.write_text(json.dumps({"auroc": round(auroc, 4)}), encoding="utf-8")


def read_tuning(folders: Iterable[Path]) -> Mapping[tuple[str, str], float]:
    """(contestant, task) to its AUROC on the tuning split, of those that tell it."""
    found = {}
    for folder in folders:
        for file in sorted((folder / FOLDER).rglob(TUNING)):
            contestant, *task, _ = file.relative_to(folder / FOLDER).parts
            found[contestant, "/".join(task)] = json.loads(file.read_text(encoding="utf-8"))["auroc"]
    return found


def read(folders: Iterable[Path]) -> pl.DataFrame:
    """All that is told in these version directories: SCHEMA and FEW_SHOT (null in the other parts) with contestant, task
    and part. Raises ValueError if two of them hold the same contestant, or if there is nothing."""
    frames, seen = [], {}
    for folder in folders:
        for file in sorted((folder / FOLDER).rglob("*.parquet")):
            contestant, *task, name = file.relative_to(folder / FOLDER).parts
            if seen.setdefault(contestant, folder) != folder:
                raise ValueError(
                    f"two assets tell predictions of {contestant}; give one of them another name"
                )
            names = {"contestant": contestant, "task": "/".join(task), "part": name.removesuffix(".parquet")}
            frames.append(pl.read_parquet(file).with_columns(pl.lit(v).alias(k) for k, v in names.items()))
    if not frames:
        raise ValueError("no asset that is read here holds predictions/<contestant>/<task>/all.parquet")
    return pl.concat(frames, how="diagonal")
