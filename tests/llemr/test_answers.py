"""What the model says: greedy decoding, the controls, and weights that come back from a folder as they were."""

import numpy as np
import pytest
import torch

from ray_jobs.config import JobError
from ray_jobs.llemr import checkpoint
from ray_jobs.llemr.answer import Answerer
from ray_jobs.llemr.data import questions_of
from ray_jobs.llemr.model import Llemr
from ray_jobs.llemr.packing import pack
from ray_jobs.llemr.tokenizer import prompt_parts
from ray_jobs.llemr.tokens import EventFeatures
from tests.llemr.conftest import asked


def test_greedy_answers_equal_step_by_step_decoding(weights, store, vectors):
    answerer = Answerer(weights)
    said = answerer.answer(asked(), store, vectors)
    features = EventFeatures(weights.features, store, vectors)
    parts = prompt_parts(weights.tokenizer)
    q = questions_of(asked(), store, weights.tokenizer, parts, 96)
    model = weights.model().eval()
    for i in (0, 7, 17):
        ids: list[int] = []
        while len(ids) < 24:
            row = pack(parts[0], [(q.records[q.record[i]], [(q.prompt[i], np.array([*ids, 0], np.int32))])])
            with torch.inference_mode():
                token = int(model(row, features[row.events])[0][-1].argmax())
            if token == weights.tokenizer.eos_token_id:
                break
            ids.append(token)
        assert said[i] == weights.tokenizer.decode(ids, skip_special_tokens=True).strip()


def test_withheld_answers_do_not_depend_on_the_record_and_swaps_read_the_other(weights, store, vectors):
    answerer, frame = Answerer(weights), asked()
    withheld = answerer.answer(frame, store, vectors, control="withheld")
    assert all(withheld[i] == withheld[i % 3] for i in range(len(withheld)))
    same = [frame.row(0)[:3]] * frame.height
    swapped = answerer.answer(frame, store, vectors, swap=same)
    assert all(swapped[i] == swapped[i % 3] for i in range(len(swapped)))
    assert swapped[:3] == answerer.answer(frame.head(3), store, vectors)


def test_saved_weights_give_identical_logits_and_changes_are_noticed(weights, store, vectors, tmp_path):
    checkpoint.save(tmp_path / "w", weights, {"name": "small"}, {"loss": 1.0}, {"weights/base_model": "abc"})
    checkpoint.save(tmp_path / "w" / "aligned", weights, {"name": "small"}, {}, {}, lm_at="..")
    checkpoint.seal(tmp_path / "w")
    checkpoint.verify(tmp_path / "w")
    features = EventFeatures(weights.features, store, vectors)
    batch = pack([1], [(np.array([0, 1, 2]), [(np.array([11, 5]), np.array([12, 2]))])])
    expected, _ = Llemr(weights.lm, weights.projector)(batch, features[batch.events])
    for folder in (tmp_path / "w", tmp_path / "w" / "aligned"):
        again, _ = checkpoint.load_weights(folder).model()(batch, features[batch.events])
        assert torch.equal(again, expected)
    (tmp_path / "w" / "metrics.json").write_text("{}")
    with pytest.raises(JobError, match=r"metrics\.json was changed"):
        checkpoint.verify(tmp_path / "w")
