"""A language model at an OpenAI-compatible chat endpoint of the hospital's own choosing. Nothing leaves unless a job's YAML
names the endpoint and lists its host under `allowed_hosts`; proxies and redirects are not followed."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from typing import TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, ValidationError

from ray_jobs.config import JobError

S = TypeVar("S", bound=BaseModel)


class EndpointSettings(BaseModel):
    """Where questions or notes may be sent: the URL of `/chat/completions`, the hosts allowed, the model's name, the
    environment variable that holds a key, seconds to wait."""

    model_config = ConfigDict(extra="forbid")
    endpoint: str
    allowed_hosts: list[str]
    model: str
    key_env: str | None = None
    timeout_s: float = 60.0


def checked(kind: type[S], params: dict, where: str) -> S:
    """`params` as settings. Raises JobError naming the key, or the host if it is not allowed. where: `params.notes`."""
    try:
        chosen = kind(**params)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "entry"
        raise JobError(f"{where}.{key}: {first['msg']}") from None
    if isinstance(chosen, EndpointSettings):
        host = urlsplit(chosen.endpoint).hostname
        if host not in chosen.allowed_hosts:
            raise JobError(
                f"{where}.endpoint: host {host} is not in allowed_hosts; add it there if text may be sent to it"
            )
    return chosen


def say(chosen: EndpointSettings, instruction: str, text: str, where: str) -> str:
    """The model's reply to `text`, at temperature 0. Raises JobError, without the text, if the endpoint fails."""
    messages = [{"role": "system", "content": instruction}, {"role": "user", "content": text}]
    body = json.dumps({"model": chosen.model, "temperature": 0, "messages": messages}).encode()
    headers = {"Content-Type": "application/json"}
    if chosen.key_env:
        headers["Authorization"] = f"Bearer {os.environ.get(chosen.key_env, '')}"
    request = urllib.request.Request(chosen.endpoint, body, headers)
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirect)
    try:
        with opener.open(request, timeout=chosen.timeout_s) as response:
            return json.load(response)["choices"][0]["message"]["content"] or ""
    except (urllib.error.URLError, TimeoutError, KeyError, IndexError, json.JSONDecodeError) as error:
        raise JobError(
            f"{where}.endpoint: {chosen.endpoint} failed ({type(error).__name__}); mend it or remove {where}"
        ) from None


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A redirect could lead to a host that is not allowed."""

    def redirect_request(self, *_args: object) -> None:
        return None
