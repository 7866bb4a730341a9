"""The standing champion and the accepted records, ready to be asked about one patient at a time.

Every question reads the catalog anew, so that after a night the new champion answers from the new records. What a question
sees is what it would see in an evaluation: the events of one visit with `available_at <= at`, thinned to the event budget.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import fsspec
import numpy as np
import polars as pl
import pyarrow.dataset

from orchestration import catalog
from ray_jobs.config import JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.answer import LONGEST_ANSWER, Answerer
from ray_jobs.llemr.data import EVENT_COLUMNS, EventStore, Questions, dictionary, text_vectors
from ray_jobs.questions.choose import ABSENT
from ray_jobs.questions.wording import final
from ray_jobs.scoring import normal

KEY, EVENTS = "weights/champion", "harmonised/events"
CONCEPTS = str(catalog.REPOSITORY / "dbt_project/seeds/concepts.csv")


class CannotAnswer(JobError):
    """A question that cannot be asked; `status` as of HTTP, `code` in a word, `field` the part of the question to mend.

    The message names neither patient nor visit.
    """

    def __init__(self, status: int, code: str, message: str, field: str | None = None):
        super().__init__(message)
        self.status, self.code, self.field = status, code, field


@dataclass(frozen=True)
class Asked:
    """A question about one patient's record.

    patient: `<hospital>/<patient_id>`. at: what was known by then, naive UTC as records are stored; None: all that is known.
    visit: by default the last that had begun. whole: refuse a record that would be thinned.
    """

    patient: str
    question: str
    at: datetime | None = None
    visit: str | None = None
    whole: bool = False


class Reading:
    """One question with the record that it reads; iterate it for the pieces of the answer."""

    def __init__(self, answerer: Answerer, version: str, store: EventStore, vectors, asked: Questions, limit):
        self.version, self.limit, self.said, self.tokens = version, limit, "", 0
        self.answerer, self._store, self._vectors, self._asked = answerer, store, vectors, asked
        self.view = asked.records[0]
        self.visit, cutoff = asked.frame["visit_id"][0], asked.frame["cutoff_at"][0]
        self.at: datetime = cutoff
        micro = asked.frame["cutoff_at"].cast(pl.Datetime("us")).to_physical()[0]
        visit = store.visits[asked.frame["hospital"][0], self.visit]
        self.known = int((store.available[store.start[visit] : store.start[visit + 1]] <= micro).sum())
        unknown = answerer.weights.tokenizer.unk_token_id
        self.unknown_words = int((asked.prompt[0] == unknown).sum()) if unknown is not None else 0
        self.positions = len(answerer.parts[0]) + len(self.view) + len(asked.prompt[0])

    def __iter__(self) -> Iterator[str]:
        for piece in self.answerer.stream(self._asked, self._store, self._vectors, self.limit):
            self.tokens += 1
            self.said += piece
            yield piece

    def verdict(self) -> dict[str, object]:
        """`answer`, without the numbers that are said before it, and `in_record`, whether it is anything but "not in the
        record"; known once all is said."""
        answer = final(self.said)
        return {"answer": answer, "in_record": normal(answer) != ABSENT}

    def events(self) -> list[dict[str, object]]:
        """The events in view, in order of time and as the model reads them: what the answer can rest on."""
        store = self._store
        return [
            {
                "row_id": store.row_id[i],
                "hour": round(float(store.hours[i]), 2),
                "kind": store.kinds[store.kind[i]],
                "text": store.texts[store.text[i]],
                "value": None
                if np.isnan(store.value[i])
                else round(float(store.value[i]), int(store.digits[i])),
                "unit": store.units[store.unit[i]] or None,
            }
            for i in self.view
        ]


class Champion:
    """Asks the champion that stands in this data root."""

    def __init__(self, root: str):
        self.root = root
        self._lock = threading.Lock()
        self._loaded: tuple[str, str, Answerer] | None = None

    def published_at(self) -> datetime:
        """When the champion that stands was published. Raises CatalogError if none stands."""
        return datetime.fromisoformat(catalog.load(self.root).entry(KEY)["published_at"])

    def read(self, asked: Asked, limit: int = LONGEST_ANSWER) -> Reading:
        """The question, ready to be answered with at most `limit` tokens.

        Raises CannotAnswer, or CatalogError if no champion stands.
        """
        try:
            return self._read(asked, limit)
        except FileNotFoundError:  # a night has just replaced these files
            return self._read(asked, limit)

    def _read(self, asked: Asked, limit: int) -> Reading:
        accepted = catalog.load(self.root)
        version, encoder, answerer = self._standing(accepted)
        record = record_of(accepted, asked.patient)
        cutoff = asked.at or record["available_at"].max()
        visit = visit_of(record, cutoff, asked.visit)
        store = EventStore.of(record.filter(pl.col("visit_id") == visit), dictionary(CONCEPTS))
        frame = pl.DataFrame(
            {
                "hospital": record["hospital"][:1],
                "visit_id": [visit],
                "cutoff_at": pl.Series([cutoff], dtype=pl.Datetime("us")),
                "question": [asked.question],
            }
        )
        questions = answerer.asked(frame, store)
        vectors = text_vectors(accepted.folder(encoder), answerer.weights.features.texts_of(store))
        reading = Reading(answerer, version, store, vectors, questions, limit)
        self._fits(reading, asked)
        return reading

    def _fits(self, reading: Reading, asked: Asked) -> None:
        """Raises CannotAnswer if the model's window, or a reader who wants the whole record, says no."""
        window = getattr(reading.answerer.weights.lm.config, "max_position_embeddings", None)
        if window and reading.positions + reading.limit > window:
            raise CannotAnswer(
                400,
                "context_length_exceeded",
                f"record, question and answer take {reading.positions + reading.limit} positions and the model has "
                f"{window}; ask a shorter question",
                "messages",
            )
        if asked.whole and reading.known > len(reading.view):
            raise CannotAnswer(
                400,
                "context_length_exceeded",
                f"the record holds {reading.known} events by then and the model reads {len(reading.view)}; take an "
                "earlier `at`, or leave out `whole_record` to have it thinned",
                "metadata.whole_record",
            )

    def _standing(self, accepted: catalog.Catalog) -> tuple[str, str, Answerer]:
        """(version, encoder, model) of the standing champion, loaded when it is another than before."""
        version = accepted.version(KEY)
        with self._lock:
            if self._loaded is None or self._loaded[0] != version:
                folder = checkpoint.fetched(accepted.folder(KEY))
                checkpoint.verify(folder)
                self._loaded = version, checkpoint.encoder_of(folder), checkpoint.load(folder)
            return self._loaded


def record_of(accepted: catalog.Catalog, patient: str) -> pl.DataFrame:
    """All events of `<hospital>/<patient_id>` that belong to a visit. Raises CannotAnswer if there is none."""
    hospital, _, name = patient.partition("/")
    fs, base = fsspec.core.url_to_fs(accepted.root)
    files = [f"{base}/{record['path']}" for record in accepted.entry(EVENTS)["files"]]
    field = pyarrow.dataset.field
    one = (field("hospital") == hospital) & (field("patient_id") == name) & ~field("visit_id").is_null()
    source = pyarrow.dataset.dataset(files, filesystem=fs, format="parquet")
    record = pl.from_arrow(source.to_table(columns=EVENT_COLUMNS, filter=one))
    if record.is_empty():
        raise CannotAnswer(
            404,
            "patient_not_found",
            "no such patient in the accepted records; give <hospital>/<patient_id> as they are written there",
            "metadata.patient",
        )
    return record


def visit_of(record: pl.DataFrame, cutoff: datetime, wanted: str | None) -> str:
    """The wanted visit, or the last that had begun by the cut-off. Raises CannotAnswer if nothing of it was known then."""
    known = record.filter(pl.col("available_at") <= cutoff)
    if wanted is not None:
        known = known.filter(pl.col("visit_id") == wanted)
    if known.is_empty():
        raise CannotAnswer(
            404,
            "record_not_found",
            "nothing was known of such a visit of this patient by then; mend `visit` or take a later `at`",
            "metadata.visit" if wanted is not None else "metadata.at",
        )
    began = known.group_by("visit_id").agg(
        pl.col("event_at").filter(pl.col("kind") == "admission").min().alias("admitted"),
        pl.col("event_at").min().alias("first"),
    )
    return began.sort(pl.coalesce("admitted", "first"), "visit_id")["visit_id"][-1]
