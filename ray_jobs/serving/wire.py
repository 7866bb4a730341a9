"""OpenAI's chat completions as they go over the wire: what a request may hold, what an answer and an error look like.

The record is named in `metadata`, which every OpenAI client can send:

    patient       <hospital>/<patient_id>
    at            what was known by then, ISO 8601; without a zone it is time as the records have it. By default all
    visit         by default the last that had begun by then
    whole_record  "yes" refuses a record that is longer than the model reads, instead of thinning it

Beside OpenAI's own fields an answer has `wardline`: which visit and cut-off were read, whether what was asked is in the
record, and the events in view, each with its row_id.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator

from ray_jobs.llemr.answer import LONGEST_ANSWER
from ray_jobs.serving.champion import Asked, CannotAnswer, Champion, Reading

MODEL = "champion"


class _Part(BaseModel):
    type: Literal["text"]
    text: str


class _Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[_Part] | None = None

    @property
    def text(self) -> str:
        parts = self.content if isinstance(self.content, list) else []
        return "\n".join(p.text for p in parts) if parts else str(self.content or "")


class _Metadata(BaseModel):
    model_config = ConfigDict(extra="forbid")

    patient: str
    at: datetime | None = None
    visit: str | None = None
    whole_record: Literal["yes", "no"] = "no"


class _Streaming(BaseModel):
    include_usage: bool = False


class Request(BaseModel):
    """A request for one answer. Decoding is greedy, so temperature, top_p and seed are taken and change nothing."""

    model: str
    messages: list[_Message] = Field(min_length=1)
    metadata: _Metadata
    stream: bool = False
    stream_options: _Streaming | None = None
    max_tokens: PositiveInt | None = None
    max_completion_tokens: PositiveInt | None = None
    n: Literal[1] | None = None
    stop: object = None
    tools: object = None
    functions: object = None
    logprobs: object = None
    response_format: object = None

    @field_validator("stop", "tools", "functions", "logprobs", "response_format")
    @classmethod
    def _plain(cls, value: object) -> object:
        if value is None or value is False or value in ([], {"type": "text"}):
            return value
        raise ValueError("this model gives one plain answer; leave the field out")

    @classmethod
    def read(cls, body: bytes) -> Request:
        """Raises CannotAnswer naming the field; what stands in the request is not repeated."""
        try:
            request = cls.model_validate(json.loads(body))
        except ValueError as error:
            if not isinstance(error, ValidationError):
                raise CannotAnswer(400, "invalid_json", "the body is no JSON") from None
            first = error.errors(include_input=False, include_url=False)[0]
            field = ".".join(str(part) for part in first["loc"])
            missing = field == "metadata"
            why = (
                "metadata.patient is missing: it names the record" if missing else f"{field}: {first['msg']}"
            )
            raise CannotAnswer(400, "invalid_request", why, field or None) from None
        if request.model != MODEL:
            raise CannotAnswer(404, "model_not_found", f"the one model here is {MODEL}", "model")
        if request.messages[-1].role != "user" or not request.messages[-1].text.strip():
            why = "the last message is the question: role user, with a text"
            raise CannotAnswer(400, "invalid_request", why, "messages")
        return request

    @property
    def asked(self) -> Asked:
        named, at = self.metadata, self.metadata.at
        if at is not None and at.tzinfo is not None:
            at = at.astimezone(UTC).replace(tzinfo=None)
        return Asked(
            named.patient, self.messages[-1].text.strip(), at, named.visit, named.whole_record == "yes"
        )

    @property
    def limit(self) -> int:
        """The most tokens of the answer; never more than in an evaluation."""
        return min(self.max_completion_tokens or self.max_tokens or LONGEST_ANSWER, LONGEST_ANSWER)


class Reply:
    """One answer, whole or in pieces."""

    def __init__(self, request: Request, reading: Reading):
        self.request, self.reading = request, reading
        self.id, self.created = f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def whole(self) -> dict[str, object]:
        """A `chat.completion`."""
        for _ in self.reading:
            pass
        choice = {
            "index": 0,
            "message": {"role": "assistant", "content": self.reading.said},
            "logprobs": None,
            "finish_reason": self._finish,
        }
        told = {**self._view(), **self.reading.verdict()}
        return self._frame("chat.completion", [choice]) | {"usage": self._usage(), "wardline": told}

    def pieces(self) -> Iterator[str]:
        """Server-sent events: `chat.completion.chunk`s, the view with the first, the answer alone with the last."""
        yield self._event([_delta({"role": "assistant", "content": ""})], {"wardline": self._view()})
        for piece in self.reading:
            if piece:
                yield self._event([_delta({"content": piece})])
        told = {"wardline": self.reading.verdict()}
        yield self._event([_delta({}, self._finish)], told)
        if self.request.stream_options and self.request.stream_options.include_usage:
            yield self._event([], {"usage": self._usage()})
        yield "data: [DONE]\n\n"

    @property
    def _finish(self) -> str:
        return "length" if self.reading.tokens == self.reading.limit else "stop"

    def _view(self) -> dict[str, object]:
        reading = self.reading
        return {
            "visit": reading.visit,
            "at": reading.at.isoformat(),
            "events_known": reading.known,
            "unknown_words": reading.unknown_words,
            "messages_not_read": len(self.request.messages) - 1,
            "events": reading.events(),
        }

    def _usage(self) -> dict[str, int]:
        asked, said = self.reading.positions, self.reading.tokens
        return {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}

    def _frame(self, kind: str, choices: list[dict]) -> dict[str, object]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": MODEL,
            "system_fingerprint": self.reading.version,
            "choices": choices,
        }

    def _event(self, choices: list[dict], more: dict[str, object] | None = None) -> str:
        return f"data: {json.dumps(self._frame('chat.completion.chunk', choices) | (more or {}))}\n\n"


def _delta(delta: dict[str, object], finish: str | None = None) -> dict[str, object]:
    return {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}


def models(champion: Champion) -> dict[str, object]:
    """The list of models: the champion, if one stands."""
    created = int(champion.published_at().timestamp())
    return {
        "object": "list",
        "data": [{"id": MODEL, "object": "model", "created": created, "owned_by": "wardline"}],
    }


def refusal(error: CannotAnswer) -> dict[str, object]:
    """An error in OpenAI's form."""
    kind = "invalid_request_error" if error.status < 500 else "server_error"
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": error.code}}
