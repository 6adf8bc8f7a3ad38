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

TEXT = "Die Flut kommt um 14:07 Uhr. 🌊 潮汐が来る, naïve “Gezeiten” 👩‍🚀\n\n\\u0041 \"ende\" — und dann ebbt es wieder."
REASONING = "Erst denken: der Mond 🌖 zieht am Wasser, also zweimal am Tag."
# Words begin with their blank, as tokens do.
TOKEN = re.compile(r"\s*\S+")
PROMPT_TOKENS = 12
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DONE = b"data: [DONE]\n\n"
STOP_TIMEOUT = 20
NAMES = itertools.count()


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


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
    """What a model says, beginning where a partial answer ends."""
    said = SAYS[path](ask, time)
    if not ask.get("stream"):
        return Reply(200, "application/json", [json.dumps(said.whole(), ensure_ascii=False).encode()], cut)
    events = [event if isinstance(event, bytes) else framed(event, said.named) for event in said.events()]
    if cut and cut.after is not None and cut.after + cut.half > len(events):
        raise ValueError(f"there are only {len(events)} events")
    return Reply(200, "text/event-stream", events, cut)


def framed(event: dict, named: bool) -> bytes:
    name = f"event: {event['type']}\n" if named else ""
    return f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


class Chat:
    named = False

    def __init__(self, ask: dict, time: int):
        self.ask, self.time = ask, time
        *_, last = ask["messages"]
        partial = last if last["role"] == "assistant" and (ask.get("continue_final_message") or last.get("prefix")) else {}
        self.reasons = ask["model"].startswith("reasons")
        self.reasoning = tokens(REASONING) if self.reasons else []
        self.content = tokens(TEXT)
        self.prompt = PROMPT_TOKENS
        # Reasoning is continued by those who take it, and skipped once there is content.
        if partial:
            kept = partial.get("reasoning_content", "")
            self.reasoning = [] if partial["content"] else left(self.reasoning, kept)
            self.content = left(self.content, partial["content"])
            self.prompt += len(tokens(kept)) + len(tokens(partial["content"]))
        self.made = len(self.reasoning) + len(self.content)
        if "tools" in ask:
            self.content = []
        # Mistral repeats what it continues.
        self.echoes = ask["model"].startswith("echoes") and partial.get("content")

    @property
    def usage(self) -> dict:
        return {"prompt_tokens": self.prompt, "completion_tokens": self.made, "total_tokens": self.prompt + self.made}

    def head(self, kind: str) -> dict:
        common = {"id": f"chatcmpl-{self.time}", "object": kind, "created": 1_700_000_000 + self.time}
        return common | {"model": self.ask["model"], "system_fingerprint": f"fp_{self.time}"}

    def whole(self) -> dict:
        message = {"role": "assistant", "content": "".join(self.content)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return self.head("chat.completion") | {"choices": [choice], "usage": self.usage}

    def events(self) -> list:
        def chunk(delta: dict, ended: str | None = None) -> dict:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}
            return self.head("chat.completion.chunk") | {"choices": [choice]}

        events = [chunk({"role": "assistant", "content": ""})]
        events += [chunk({"reasoning_content": token}) for token in self.reasoning]
        if self.echoes:
            events.append(chunk({"content": self.echoes}))
        events += [chunk({"content": token}) for token in self.content]
        if "tools" in self.ask:
            started = {"index": 0, "id": f"call_{self.time}", "type": "function"}
            events.append(chunk({"tool_calls": [started | {"function": {"name": "tide_at", "arguments": ""}}]}))
            events += [
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                for piece in ('{"pl', 'ace": "Cux', 'haven 🌊"}')
            ]
        events.append(chunk({}, "tool_calls" if "tools" in self.ask else "stop"))
        if (self.ask.get("stream_options") or {}).get("include_usage"):
            events.append(self.head("chat.completion.chunk") | {"choices": [], "usage": self.usage})
        return [*events, DONE]


class Completion:
    named = False

    def __init__(self, ask: dict, time: int):
        self.ask, self.time = ask, time
        begun, _, kept = ask["prompt"].partition("und")
        self.content = left(tokens(TEXT), kept)
        self.usage = {"prompt_tokens": PROMPT_TOKENS + len(tokens(kept)), "completion_tokens": len(self.content)}
        self.usage["total_tokens"] = sum(self.usage.values())

    def part(self, text: str, ended: str | None) -> dict:
        common = {"id": f"cmpl-{self.time}", "object": "text_completion", "created": 1_700_000_000 + self.time}
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": ended}
        return common | {"model": self.ask["model"], "choices": [choice]}

    def whole(self) -> dict:
        return self.part("".join(self.content), "stop") | {"usage": self.usage}

    def events(self) -> list:
        events = [*(self.part(token, None) for token in self.content), self.part("", "stop")]
        if (self.ask.get("stream_options") or {}).get("include_usage"):
            events.append(self.part("", None) | {"choices": [], "usage": self.usage})
        return [*events, DONE]


class Response:
    named = True

    def __init__(self, ask: dict, time: int):
        self.ask, self.time = ask, time

    def response(self, status: str) -> dict:
        part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
        message = {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": [part]}
        common = {"id": f"resp_{self.time}", "object": "response", "created_at": 1_700_000_000 + self.time}
        common |= {"model": self.ask["model"], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return common | {"status": status, "output": [message] if status == "completed" else []}

    def whole(self) -> dict:
        return self.response("completed")

    def events(self) -> list:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        events = [{"type": f"response.{name}", "response": self.response("in_progress")} for name in ("created", "in_progress")]
        events.append({"type": "response.output_item.added", "output_index": 0, "item": item})
        events.append({"type": "response.content_part.added", **place, "part": part})
        events += [
            {"type": "response.output_text.delta", **place, "delta": token, "logprobs": []} for token in tokens(TEXT)
        ]
        events.append({"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []})
        events.append({"type": "response.completed", "response": self.response("completed")})
        return [event | {"sequence_number": number} for number, event in enumerate(events)]


SAYS = {"/v1/chat/completions": Chat, "/v1/completions": Completion, "/v1/responses": Response}


def left(all_of: list[str], kept: str) -> list[str]:
    """What is left to say after `kept`, which is the beginning of it, but for white space."""
    whole = "".join(all_of)
    if not whole.startswith(kept):
        raise ValueError(f"{kept!r} is not how the answer begins")
    return tokens(whole[len(kept) :])
