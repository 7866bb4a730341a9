"""The HTTP application: /v1/models and /v1/chat/completions behind a bearer token. Nothing of a request is logged."""

from __future__ import annotations

import hashlib
import hmac
import logging

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from orchestration.locks import CatalogError
from ray_jobs.reporting import frames
from ray_jobs.serving.champion import CannotAnswer, Champion
from ray_jobs.serving.wire import Reply, Request, models, refusal

LONGEST_BODY = 1 << 20  # bytes
log = logging.getLogger("wardline.serve")


def app(champion: Champion, token_sha256: str) -> Starlette:
    """`token_sha256`: hex digest of the token that every request must bear."""

    async def list_models(request: HttpRequest) -> Response:
        _authorise(request, token_sha256)
        return JSONResponse(await run_in_threadpool(models, champion))

    async def complete(request: HttpRequest) -> Response:
        _authorise(request, token_sha256)
        asked = Request.read(await _body(request))
        reading = await run_in_threadpool(champion.read, asked.asked, asked.limit)
        reply = Reply(asked, reading)
        if asked.stream:
            return StreamingResponse(reply.pieces(), media_type="text/event-stream")
        return JSONResponse(await run_in_threadpool(reply.whole))

    return Starlette(
        routes=[
            Route("/v1/models", list_models),
            Route("/v1/chat/completions", complete, methods=["POST"]),
        ],
        exception_handlers={
            CannotAnswer: lambda _, error: _refused(error),
            CatalogError: lambda _, __: _refused(
                CannotAnswer(503, "no_champion", "no champion stands yet; run the nightly job first")
            ),
            HTTPException: lambda _, error: _refused(
                CannotAnswer(error.status_code, "not_found", "there are /v1/models and /v1/chat/completions")
            ),
            Exception: _failed,
        },
    )


def _authorise(request: HttpRequest, token_sha256: str) -> None:
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    given = hashlib.sha256(token.strip().encode()).hexdigest()
    if scheme.lower() != "bearer" or not hmac.compare_digest(given, token_sha256):
        raise CannotAnswer(401, "invalid_api_key", "send the server's token: Authorization: Bearer <token>")


async def _body(request: HttpRequest) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > LONGEST_BODY:
            raise CannotAnswer(
                413, "request_too_large", f"a request holds at most {LONGEST_BODY >> 10} KiB", "messages"
            )
    return body


def _refused(error: CannotAnswer) -> Response:
    log.info("refused: %d %s", error.status, error.code)
    return JSONResponse(refusal(error), error.status)


def _failed(_: HttpRequest, error: Exception) -> Response:
    for line in frames(error):
        log.error(line)
    return _refused(CannotAnswer(500, "server_error", "the answer failed; the server's log has the frames"))
