"""Which path gets which answer."""

import re

from . import generation, media, odd, responses
from .wire import Answer, Request, error

FILES = media.Files()
ROUTES = [
    ("POST", r"/v1/chat/completions", generation.chat),
    ("POST", r"/v1/completions", generation.completions),
    ("POST", r"/v1/embeddings", generation.embeddings),
    ("POST", r"/v1/responses", responses.create),
    ("GET", r"/v1/responses/[^/]+", responses.retrieve),
    ("DELETE", r"/v1/responses/[^/]+", responses.delete),
    ("POST", r"/v1/files", FILES.create),
    ("GET", r"/v1/files", lambda _: media.page([])),
    ("GET", r"/v1/files/[^/]+", FILES.retrieve),
    ("GET", r"/v1/files/[^/]+/content", FILES.content),
    ("DELETE", r"/v1/files/[^/]+", FILES.delete),
    ("GET", r"/v1/models", media.models),
    ("GET|DELETE", r"/v1/models/.+", media.model),
    ("POST", r"/v1/audio/speech", media.speech),
    ("POST", r"/v1/audio/(transcriptions|translations)", media.transcription),
    ("POST", r"/v1/images/(generations|edits)", media.images),
    ("POST", r"/v1/moderations", media.moderations),
    ("POST", r"/v1/batches", lambda _: media.of_json(media.batch("validating"))),
    ("GET", r"/v1/batches", lambda _: media.page([media.batch("completed")])),
    ("GET", r"/v1/batches/[^/]+", lambda _: media.of_json(media.batch("in_progress"))),
    ("POST", r"/v1/batches/[^/]+/cancel", lambda _: media.of_json(media.batch("cancelling"))),
    (".*", r"/v1/odd/.*", odd.odd),
]


def answer(request: Request) -> Answer:
    for method, path, handler in ROUTES:
        if re.fullmatch(method, request.method) and re.fullmatch(path, request.path):
            try:
                return handler(request)
            except (KeyError, ValueError) as mistake:
                return error(400, f"we could not parse that: {mistake!r}")
    return odd.echo(request)


async def app(scope: dict, receive, send) -> None:
    if scope["type"] != "http":
        raise NotImplementedError(scope["type"])
    request = await Request.read(scope, receive)
    await answer(request).write(request, send)
