"""A provider whose streams break where a test wants them to, over HTTP/1.1 and HTTP/2, and which continues partial answers.

A test names a plan in the model it asks for. Each request of that model meets the next break of the plan, and those after
the last one get a whole answer. Each request gets an id of its own, as of a real provider.
"""

import asyncio
import collections
import contextlib
import dataclasses
import itertools
import json
import re
import socket
import struct
import threading
import urllib.parse

import h2.config
import h2.connection
import h2.events
import h2.exceptions
from saying import SAYS, said

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
STOP_TIMEOUT = 20
NAMES = itertools.count()


@dataclasses.dataclass(frozen=True)
class Break:
    """How a stream ends too early, after how many of its events, and whether half of the next one still comes.

    `reset` and `stall` are what they say; `end` is a proper end as HTTP knows it, `close` an end of the connection.
    A `reset` with `after=None` comes instead of a head.
    """

    how: str
    after: int | None
    half: bool = False


class Breaking:
    """The provider, in a thread of its own."""

    def __init__(self):
        # All bodies by model, in the order they came, and what was posted to other paths.
        self.asked: dict[str, list[dict]] = collections.defaultdict(list)
        self.told: dict[str, list[bytes]] = collections.defaultdict(list)
        self.pages: dict[str, bytes] = {}
        # What was fetched of them.
        self.fetched: set[str] = set()
        # How often somebody came with the key `sk-revoked`.
        self.unknown_keys = 0
        self._plans: dict[str, list[Break]] = {}
        self._heard = threading.Condition()
        self._loop = asyncio.new_event_loop()
        listener = socket.create_server(("127.0.0.1", 0))
        self.origin = f"http://127.0.0.1:{listener.getsockname()[1]}"
        self.base_url = f"{self.origin}/v1"
        started = asyncio.start_server(self._serve, sock=listener)
        self._server = self._loop.run_until_complete(started)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def plan(self, *breaks: Break, kind: str = "tide") -> str:
        """The name of a model that meets these breaks."""
        model = f"{kind}-{next(NAMES)}"
        self._plans[model] = list(breaks)
        return model

    def heard(self, path: str, timeout: float) -> bytes:
        """The first thing that was posted to `path`."""
        with self._heard:
            assert self._heard.wait_for(lambda: self.told[path], timeout), f"nothing was posted to {path}"
            return self.told[path][0]

    def was_fetched(self, target: str, timeout: float) -> bool:
        """Whether somebody comes for this page in time."""
        with self._heard:
            return self._heard.wait_for(lambda: target in self.fetched, timeout)

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(STOP_TIMEOUT)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        self._server.close()
        talks = asyncio.all_tasks() - {asyncio.current_task()}
        for talk in talks:
            talk.cancel()
        await asyncio.gather(*talks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, h2.exceptions.ProtocolError):
            begun = await reader.readexactly(3)
            carry = Http2(reader, writer, self) if PREFACE.startswith(begun) else Http1(reader, writer, self)
            await carry.serve(begun)
        writer.close()

    def answer(self, method: str, target: str, key: str, body: bytes) -> "Reply":
        path, _, query = target.partition("?")
        if key == "Bearer sk-revoked":
            self.unknown_keys += 1
            return refused(401, "Incorrect API key provided")
        if method == "POST" and path in SAYS:
            return self._generate(path, json.loads(body))
        if path == "/events":
            # For pages: a question that is in the URL.
            [model] = urllib.parse.parse_qs(query)["model"]
            question = {"role": "user", "content": "Wann kommt die Flut?"}
            return self._generate("/v1/chat/completions", {"model": model, "messages": [question], "stream": True})
        if method == "POST":
            with self._heard:
                self.told[path].append(body)
                self._heard.notify_all()
            return Reply(200, "text/plain", [b"heard"])
        with self._heard:
            self.fetched.add(target)
            self._heard.notify_all()
        page = self.pages.get(path)
        return Reply(404, "text/plain", [b"nothing"]) if page is None else Reply(200, "text/html; charset=utf-8", [page])

    def _generate(self, path: str, ask: dict) -> "Reply":
        model = ask["model"]
        self.asked[model].append(ask)
        time = len(self.asked[model])
        cut = next(iter(self._plans.get(model, [])[time - 1 : time]), None)
        try:
            return generated(path, ask, time, cut)
        except ValueError as mistake:
            return refused(400, str(mistake))


@dataclasses.dataclass
class Reply:
    status: int
    kind: str
    pieces: list[bytes]
    cut: Break | None = None

    @property
    def body(self) -> bytes:
        """What of it is sent."""
        if self.cut is None:
            return b"".join(self.pieces)
        sent = b"".join(self.pieces[: self.cut.after])
        return sent + self.pieces[self.cut.after][:-9] if self.cut.half else sent


class Http1:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, provider: Breaking):
        self._reader, self._writer, self._provider = reader, writer, provider

    async def serve(self, begun: bytes) -> None:
        while True:
            head = begun + await self._reader.readuntil(b"\r\n\r\n")
            length = re.search(rb"\r\ncontent-length: *(\d+)", head, re.IGNORECASE)
            body = await self._reader.readexactly(int(length[1])) if length else b""
            method, target, _ = head.split(b" ", 2)
            key = re.search(rb"\r\nauthorization: *([^\r]+)", head, re.IGNORECASE)
            key = key[1].decode() if key else ""
            reply = self._provider.answer(method.decode(), target.decode(), key, body)
            if not await self._reply(reply):
                return
            begun = b""

    async def _reply(self, reply: Reply) -> bool:
        """Whether the connection can go on."""
        if reply.cut and reply.cut.after is None:
            self._reset()
            return False
        closes = reply.cut is not None and reply.cut.how == "close"
        framing = "connection: close" if closes else "transfer-encoding: chunked"
        head = f"HTTP/1.1 {reply.status} Said\r\ncontent-type: {reply.kind}\r\n{framing}\r\n\r\n".encode()
        body = reply.body
        chunks = body if closes or not body else b"%x\r\n%s\r\n" % (len(body), body)
        # In one piece: a second one may still wait to be sent when the connection is reset, and be lost with it.
        self._writer.write(head + chunks)
        match reply.cut.how if reply.cut else "end":
            case "end":
                self._writer.write(b"0\r\n\r\n")
                await self._writer.drain()
                return True
            case "reset":
                await self._writer.drain()
                self._reset()
            case "stall":
                await self._reader.read()  # until the other side has had enough
        await self._writer.drain()
        return False

    def _reset(self) -> None:
        with contextlib.suppress(OSError):
            raw = self._writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


class Http2:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, provider: Breaking):
        self._reader, self._writer, self._provider = reader, writer, provider
        self._h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False, header_encoding="utf-8"))
        self._bodies: dict[int, tuple[dict, bytearray]] = {}

    async def serve(self, begun: bytes) -> None:
        self._h2.initiate_connection()
        received = begun
        while received:
            for event in self._h2.receive_data(received):
                match event:
                    case h2.events.RequestReceived():
                        self._bodies[event.stream_id] = dict(event.headers), bytearray()
                    case h2.events.DataReceived():
                        self._bodies[event.stream_id][1].extend(event.data)
                        self._h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                    case h2.events.StreamEnded():
                        if not await self._reply(event.stream_id):
                            return
            self._writer.write(self._h2.data_to_send())
            await self._writer.drain()
            received = await self._reader.read(65_536)

    async def _reply(self, stream: int) -> bool:
        head, body = self._bodies.pop(stream)
        reply = self._provider.answer(head[":method"], head[":path"], head.get("authorization", ""), bytes(body))
        if reply.cut and reply.cut.after is None:
            self._h2.reset_stream(stream, 2)
            return True
        self._h2.send_headers(stream, [(":status", str(reply.status)), ("content-type", reply.kind)])
        # A test's answers are shorter than the window that clients open.
        for start in range(0, len(reply.body), 16_000):
            self._h2.send_data(stream, reply.body[start : start + 16_000])
        self._writer.write(self._h2.data_to_send())
        await self._writer.drain()
        match reply.cut.how if reply.cut else "end":
            case "end":
                self._h2.end_stream(stream)
            case "reset":
                self._h2.reset_stream(stream, 2)
            case "close":
                return False
        return True


def refused(status: int, why: str) -> Reply:
    error = {"message": why, "type": "invalid_request_error", "param": None, "code": None}
    return Reply(status, "application/json", [json.dumps({"error": error}).encode()])


def generated(path: str, ask: dict, time: int, cut: Break | None) -> Reply:
    """What a model says, as far as it comes."""
    pieces = said(path, ask, time)
    if not ask.get("stream"):
        return Reply(200, "application/json", pieces, cut)
    if cut and cut.after is not None and cut.after + cut.half > len(pieces):
        raise ValueError(f"there are only {len(pieces)} events")
    return Reply(200, "text/event-stream", pieces, cut)
