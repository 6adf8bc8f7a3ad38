"""A request and an answer, and what is between them and ASGI."""

import asyncio
import collections
import dataclasses
import gzip
import hashlib
import json
import re

from wires import OF_REQUESTS

SERVER = [("server", "provider"), ("x-request-id", "req_0001"), ("openai-processing-ms", "7")]
LIMITS = [
    ("x-ratelimit-limit-requests", "10000"),
    ("x-ratelimit-remaining-requests", "9999"),
    ("x-ratelimit-reset-requests", "6ms"),
]

# What a test and the provider tell each other, by name.
SIGNALS: dict[str, asyncio.Event] = collections.defaultdict(asyncio.Event)


@dataclasses.dataclass
class Request:
    method: str
    target: str
    headers: list[tuple[str, str]]
    body: bytes
    version: str

    @classmethod
    async def read(cls, scope: dict, receive) -> "Request":
        """Reads it whole; that a part of its body has come is told to whoever waits for its path."""
        pieces = []
        while True:
            message = await receive()
            if message.get("body"):
                SIGNALS[f"begun {scope['path']}"].set()
            if message["type"] == "http.disconnect":
                raise ConnectionError("the client left")
            pieces.append(message.get("body", b""))
            if not message.get("more_body"):
                break
        return cls(scope["method"], target_of(scope), headers_of(scope), b"".join(pieces), scope["http_version"])

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    def header(self, name: str, default: str = "") -> str:
        return next((value for key, value in self.headers if key == name), default)

    def json(self) -> dict:
        return json.loads(self.body)

    def form(self) -> dict[str, bytes]:
        """The parts of a multipart body; of a file, its content."""
        parts = {}
        for part in self.body.split(b"--" + self.boundary())[1:-1]:
            head, _, content = part.partition(b"\r\n\r\n")
            parts[re.search(rb'name="([^"]*)"', head)[1].decode()] = content.removesuffix(b"\r\n")
        return parts

    def boundary(self) -> bytes:
        found = re.search(r"boundary=\"?([^\";]+)", self.header("content-type"))
        return found[1].encode("latin-1") if found else b""

    def steady_body(self) -> bytes:
        """The body; a boundary is random, so another stands in its place."""
        boundary = self.boundary()
        return self.body.replace(boundary, b"BOUNDARY") if boundary else self.body

    def compares(self, name: str) -> bool:
        """That there is no body can be said with a length or without one."""
        return name not in OF_REQUESTS and (name != "content-length" or bool(self.body))

    def seen(self) -> str:
        """What arrived, as ASCII."""
        boundary = self.boundary()
        headers = [
            [name, value.replace(boundary.decode("latin-1"), "BOUNDARY") if boundary else value]
            for name, value in self.headers
            if self.compares(name)
        ]
        headers.sort(key=lambda field: field[0])  # fields of one name keep their order
        digest = hashlib.sha256(self.steady_body()).hexdigest()
        return json.dumps({"method": self.method, "target": self.target, "headers": headers, "body": digest})


@dataclasses.dataclass
class Answer:
    """A body that is `bytes` goes with its length, a list piece by piece; between pieces it may wait for a signal."""

    body: bytes | list[bytes | asyncio.Event] = b""
    status: int = 200
    headers: list[tuple[str, str]] = dataclasses.field(default_factory=list)
    limits: bool = True

    async def write(self, request: Request, send) -> None:
        pieces = self.body if isinstance(self.body, list) else [self.body]
        headers = [*SERVER, *(LIMITS if self.limits else []), ("x-seen", request.seen()), *self.headers]
        if isinstance(self.body, bytes) and self.status not in (204, 304):
            headers.append(("content-length", str(len(self.body))))
        raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
        await send({"type": "http.response.start", "status": self.status, "headers": raw})
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
                continue
            await send({"type": "http.response.body", "body": piece, "more_body": True})
            await asyncio.sleep(0)
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def target_of(scope: dict) -> str:
    target = scope["raw_path"].decode("latin-1")
    query = scope["query_string"].decode("latin-1")
    return f"{target}?{query}" if query else target


def headers_of(scope: dict) -> list[tuple[str, str]]:
    return [(name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in scope["headers"]]


def of_json(value: object, status: int = 200, headers: list[tuple[str, str]] | None = None) -> Answer:
    body = json.dumps(value, ensure_ascii=False).encode()
    return Answer(body, status, [("content-type", "application/json"), *(headers or [])])


def of_events(events: list[object], named: bool = False) -> Answer:
    """Server-sent events, in pieces that respect neither events nor characters. A string goes as it is."""
    text = ""
    for event in events:
        if isinstance(event, str):
            text += event
        else:
            name = f"event: {event['type']}\n" if named else ""
            text += f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n"
    return Answer(cut(text.encode(), 61), 200, [("content-type", "text/event-stream; charset=utf-8")])


def cut(body: bytes, size: int) -> list[bytes]:
    return [body[start : start + size] for start in range(0, len(body), size)]


def gzipped(answer: Answer) -> Answer:
    answer.headers += [("content-encoding", "gzip"), ("vary", "accept-encoding")]
    if isinstance(answer.body, bytes):
        answer.body = gzip.compress(answer.body, mtime=0)
    else:
        answer.body = cut(gzip.compress(b"".join(answer.body), mtime=0), 61)
    return answer


def error(status: int, message: str, headers: list[tuple[str, str]] | None = None, **more) -> Answer:
    said = {"message": message, "type": "invalid_request_error", "param": None, "code": None, **more}
    return of_json({"error": said}, status, headers)
