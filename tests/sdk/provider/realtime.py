"""The realtime API: a WebSocket that answers each event, repeats bytes backwards, and closes as it is told."""

import asyncio
import collections
import hashlib
import json
import ssl
import urllib.parse

import websockets
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response
from wires import OF_REQUESTS

# What differs from one handshake to the next.
RANDOM = {"sec-websocket-key"}
TEXT = "Die Flut 🌊 kommt"


class Realtime:
    def __init__(self):
        # How a connection that gave itself a name was closed.
        self._closings: dict[str, asyncio.Future] = collections.defaultdict(asyncio.Future)

    async def start(self, sock, tls: ssl.SSLContext | None) -> Server:
        return await serve(
            self.talk,
            sock=sock,
            ssl=tls,
            process_request=refuse,
            select_subprotocol=choose,
            max_size=2**24,
            ping_interval=None,
            server_header="provider",
        )

    async def talk(self, socket: ServerConnection) -> None:
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(socket.request.path).query))
        if socket.request.path.startswith("/v1/closing"):
            closing = await self._closings[query["name"]]
            await socket.send(json.dumps(closing))
            return
        try:
            await socket.send(json.dumps({"type": "session.created", "event_id": "event_0", "session": seen(socket)}))
            async for message in socket:
                await answer(socket, message)
        except websockets.ConnectionClosed:
            pass
        finally:
            if "name" in query:
                self._closings[query["name"]].set_result([socket.close_code, socket.close_reason])


def seen(socket: ServerConnection) -> dict:
    fields = [(name.lower(), value) for name, value in socket.request.headers.raw_items()]
    headers = sorted((field for field in fields if field[0] not in OF_REQUESTS | RANDOM), key=lambda field: field[0])
    return {"type": "realtime", "target": socket.request.path, "headers": headers, "subprotocol": socket.subprotocol}


async def answer(socket: ServerConnection, message: str | bytes) -> None:
    if isinstance(message, bytes):
        await socket.send(message[::-1])
        return
    event = json.loads(message)
    match event["type"]:
        case "session.update":
            updated = {"type": "session.updated", "event_id": "event_1", "session": event["session"]}
            await socket.send(json.dumps(updated))
        case "input_audio_buffer.append":
            digest = hashlib.sha256(event["audio"].encode()).hexdigest()
            await socket.send(json.dumps({"type": "input_audio_buffer.committed", "event_id": "e", "item_id": digest}))
        case "response.create":
            await respond(socket)
        case "close":
            await socket.close(event["code"], event["reason"])
        case "pieces":
            # One message in several frames.
            await socket.send(piece for piece in ["Ebbe ", "und ", "Flut 🌊"])
        case "ping":
            await (await socket.ping(b"are you there"))
            await socket.send(json.dumps({"type": "ponged"}))
        case _:
            said = {"type": "invalid_request_error", "code": "unknown_event", "message": f"what is {event['type']}? 🌊"}
            await socket.send(json.dumps({"type": "error", "event_id": "event_e", "error": said}))


async def respond(socket: ServerConnection) -> None:
    common = {"response_id": "resp_1", "item_id": "item_1", "output_index": 0, "content_index": 0}
    response = {"id": "resp_1", "object": "realtime.response", "status": "in_progress", "output": []}
    events = [
        {"type": "response.created", "response": response},
        *({"type": "response.output_text.delta", "delta": word, **common} for word in TEXT.split(" ")),
        {"type": "response.output_text.done", "text": TEXT, **common},
        {"type": "response.done", "response": response | {"status": "completed"}},
    ]
    for number, event in enumerate(events):
        await socket.send(json.dumps(event | {"event_id": f"event_{number + 2}"}, ensure_ascii=False))


def refuse(socket: ServerConnection, request: Request) -> Response | None:
    """`?refuse=STATUS` is answered so, with a body."""
    query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(request.path).query))
    if status := query.get("refuse"):
        refusal = socket.respond(int(status), json.dumps({"error": {"message": f"no: {status} 🌊", "code": "no"}}))
        del refusal.headers["Date"], refusal.headers["Content-Type"]
        refusal.headers["Content-Type"] = "application/json"
        refusal.headers["X-Twice"] = "first"
        refusal.headers["X-Twice"] = "second"
        return refusal
    return None


def choose(_socket: ServerConnection, offered: list[str]) -> str | None:
    return next((name for name in ("realtime", "openai-beta.realtime-v1") if name in offered), None)
