"""What a worker loads to train on."""

import numpy as np
import polars as pl
import pytest

from ray_jobs.config import JobError
from ray_jobs.llemr.corpus import Corpus
from ray_jobs.llemr.recipe import Recipe
from tests.llemr.conftest import asked, events


@pytest.fixture
def source(tmp_path, store, vectors) -> dict:
    frame = asked().rename({"says": "answer"})
    frame = frame.with_columns(says=pl.lit("76, 105: ") + pl.col("answer"), split=pl.lit("train"))
    rest = frame.head(1).with_columns(split=pl.lit("tuning"))
    pl.concat([frame, rest]).write_parquet(tmp_path / "questions.parquet")
    events().write_parquet(tmp_path / "events.parquet")
    texts = pl.DataFrame({"row": range(len(store.texts)), "text": store.texts})
    texts.write_parquet(tmp_path / "texts.parquet")
    np.save(tmp_path / "vectors.npy", vectors)
    return {
        "events": [str(tmp_path / "events.parquet")],
        "instructions": {"schema_alignment": [str(tmp_path / "questions.parquet")]},
        "embeddings": str(tmp_path),
        "dictionary": {"glucose": (0, 70, 140), "heart_rate": (0, 60, 100)},
    }


@pytest.mark.parametrize(
    ("recipe", "first"), [("tiny", "105 mg/dl"), ("small", "76, 105: 105 mg/dl"), ("qwen3-4b", "76, 105: ")]
)
def test_a_recipe_says_whether_the_working_is_taught(source, weights, recipe, first):
    corpus = Corpus.load(source | {"says": Recipe.named(recipe).says}, weights)
    assert len(corpus.questions) == asked().height, "the tuning split is not trained on"
    said = weights.tokenizer.decode(corpus.questions.answer[0], skip_special_tokens=True)
    assert said.startswith(first)
    assert corpus.questions.frame["says"][0].startswith(first)


def test_without_a_train_question_it_says_so(source, weights, tmp_path):
    file = tmp_path / "questions.parquet"
    pl.read_parquet(file).filter(pl.col("split") == "tuning").write_parquet(file)
    with pytest.raises(JobError, match="no train question in schema_alignment"):
        Corpus.load(source | {"says": "says"}, weights)
