"""Bytes in and out: files, audio, images; and the lists beside them."""

import base64
import hashlib
import random

from .generation import CREATED, TEXT
from .wire import Answer, Request, cut, error, of_events, of_json

SPEECH = random.Random(1).randbytes(300_001)
PICTURE = random.Random(2).randbytes(100_003)
MODELS = ["tide-1", "tide-reason", "org/tide:2@ü"]


class Files:
    """What was uploaded. The id is made of the content, so it is the same whichever way the content came."""

    def __init__(self):
        self._kept: dict[str, tuple[dict, bytes]] = {}

    def create(self, request: Request) -> Answer:
        form = request.form()
        content = form["file"]
        digest = hashlib.sha256(content).hexdigest()
        entry = {
            "id": f"file-{digest[:24]}",
            "object": "file",
            "bytes": len(content),
            "created_at": CREATED,
            "filename": "tides.jsonl",
            "purpose": form["purpose"].decode(),
            "status": "processed",
            "sha256": digest,
            "fields": sorted(form),
        }
        self._kept[entry["id"]] = (entry, content)
        return of_json(entry)

    def of(self, request: Request) -> tuple[dict, bytes] | None:
        return self._kept.get(request.path.split("/")[3])

    def retrieve(self, request: Request) -> Answer:
        found = self.of(request)
        return of_json(found[0]) if found else error(404, "No such File object: 🌊", param="id")

    def content(self, request: Request) -> Answer:
        found = self.of(request)
        if not found:
            return error(404, "No such File object: 🌊", param="id")
        said = [("content-type", "application/octet-stream"), ("content-disposition", 'attachment; filename="ü.bin"')]
        return Answer(cut(found[1], 65_537), 200, said)

    def delete(self, request: Request) -> Answer:
        return of_json({"id": request.path.split("/")[3], "object": "file", "deleted": True})


def page(items: list[dict]) -> Answer:
    return of_json({"object": "list", "data": items, "has_more": False, "first_id": None, "last_id": None})


def models(_request: Request) -> Answer:
    return page([{"id": name, "object": "model", "created": CREATED, "owned_by": "tide"} for name in MODELS])


def model(request: Request) -> Answer:
    name = request.path.removeprefix("/v1/models/")
    if request.method == "DELETE":
        return of_json({"id": name, "object": "model", "deleted": True})
    return of_json({"id": name, "object": "model", "created": CREATED, "owned_by": "tide"})


def speech(_request: Request) -> Answer:
    return Answer(cut(SPEECH, 9_973), 200, [("content-type", "audio/mpeg")])


def transcription(request: Request) -> Answer:
    form = request.form()
    heard = f"{TEXT} {hashlib.sha256(form['file']).hexdigest()}"
    if form.get("stream") == b"true":
        deltas = [{"type": "transcript.text.delta", "delta": word} for word in heard.split(" ")]
        return of_events([*deltas, {"type": "transcript.text.done", "text": heard}, "data: [DONE]\n\n"])
    if form.get("response_format") == b"text":
        return Answer(heard.encode(), 200, [("content-type", "text/plain; charset=utf-8")])
    return of_json({"text": heard, "usage": {"type": "duration", "seconds": 3}})


def images(request: Request) -> Answer:
    return of_json({"created": CREATED, "data": [{"b64_json": base64.b64encode(PICTURE).decode()}]})


def moderations(_request: Request) -> Answer:
    result = {"flagged": False, "categories": {"tide": False}, "category_scores": {"tide": 1.5e-7}}
    return of_json({"id": "modr-1", "model": "tide-moderation", "results": [result]})


def batch(status: str) -> dict:
    common = {"id": "batch_1", "object": "batch", "endpoint": "/v1/chat/completions", "input_file_id": "file-1"}
    return common | {"completion_window": "24h", "created_at": CREATED, "status": status}
