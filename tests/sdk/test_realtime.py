"""A WebSocket through tidegate is the same WebSocket: events, frames, subprotocols, refusals, and how it is closed."""

import asyncio
import base64
import itertools
import json
import random

import openai
import pytest
import websockets
from openai.types.realtime import RealtimeSessionCreateRequestParam
from websockets.asyncio.client import connect
from compare import plain
from wires import Ends, Wire, came_through, comparable

SESSION = RealtimeSessionCreateRequestParam(type="realtime", instructions="kurz 🌊", output_modalities=["text"])
NOISE = random.Random(4).randbytes(600_001)
AUDIO = base64.b64encode(NOISE).decode()
NAMES = (f"connection-{number}" for number in itertools.count())


@pytest.fixture
def both(realtime_ends):
    """Holds what a conversation gave straight against what it gave through tidegate."""

    def agreed(talk) -> object:
        direct, through = (asyncio.run(talk(base_url)) for base_url in (realtime_ends.direct, realtime_ends.through))
        assert through == direct
        return direct

    return agreed


def test_the_official_client_hears_the_same(realtime_ends, both):
    async def talk(base_url: str) -> list:
        of = openai.AsyncOpenAI(base_url=base_url, api_key="sk-test")
        options = carriage(realtime_ends)
        async with of, of.realtime.connect(model="tide-rt", websocket_connection_options=options) as connection:
            heard = [await connection.recv()]
            await connection.session.update(session=SESSION)
            heard.append(await connection.recv())
            await connection.input_audio_buffer.append(audio=AUDIO)
            heard.append(await connection.recv())
            await connection.response.create()
            async for event in connection:
                heard.append(event)
                if event.type == "response.done":
                    break
            await connection.send({"type": "unheard.of"})
            heard.append(await connection.recv())
            await connection.send({"type": "close", "code": 4001, "reason": "Ebbe 🌊"})
            with pytest.raises(websockets.ConnectionClosed) as closed:
                await connection.recv()
        return [*(plain(event) for event in heard), (closed.value.rcvd.code, closed.value.rcvd.reason)]

    heard = both(talk)
    assert heard[0][0] == "SessionCreatedEvent"
    assert heard[-3][0] == "ResponseDoneEvent"
    assert heard[-1] == (4001, "Ebbe 🌊")


def test_the_official_plain_client_hears_the_same(realtime_ends_of):
    # In clear: over TLS its threads read and write one SSL object at once, which Python before 3.13 does not survive.
    ends = realtime_ends_of(Wire(tls=False, http2=False))
    heard = []
    for base_url in (ends.direct, ends.through):
        of = openai.OpenAI(base_url=base_url, api_key="sk-test")
        with of, of.realtime.connect(model="tide-rt") as connection:
            events = [connection.recv()]
            connection.response.create()
            for event in connection:
                events.append(event)
                if event.type == "response.done":
                    break
        heard.append([plain(event) for event in events])
    assert heard[1] == heard[0]
    assert len(heard[0]) == 8


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_of_all_kinds_and_sizes_are_the_same(realtime_ends, both, compression):
    async def talk(base_url: str) -> list:
        async with raw(realtime_ends, base_url, compression=compression) as socket:
            heard = [await socket.recv()]
            for message in (b"", b"\0\xff", NOISE, NOISE * 3):
                await socket.send(message)
                heard.append(await socket.recv() == message[::-1])
            await socket.send([b"one ", b"message ", b"in pieces"])
            heard.append(await socket.recv())
            await socket.send(json.dumps({"type": "pieces"}))
            heard += [frame async for frame in socket.recv_streaming()]
            await (await socket.ping(b"anyone?"))
            await socket.send(json.dumps({"type": "ping"}))
            heard.append(await socket.recv())
            for number in range(500):
                await socket.send(str(number).encode())
            heard += [await socket.recv() for _ in range(500)]
        return heard

    heard = both(talk)
    assert heard[1:5] == [True] * 4
    assert heard[6:9] == ["Ebbe ", "und ", "Flut 🌊"]
    assert heard[-1] == b"994"


@pytest.mark.parametrize("offered", [None, ["realtime"], ["unknown", "openai-beta.realtime-v1", "api-key.x"]])
def test_the_handshake_is_the_same(realtime_ends, offered):
    async def shake(base_url: str) -> tuple:
        async with raw(realtime_ends, base_url, "a=%20%C3%BC&b", subprotocols=offered) as socket:
            return socket.subprotocol, await socket.recv(), list(socket.response.headers.raw_items())

    direct, through = (asyncio.run(shake(base_url)) for base_url in (realtime_ends.direct, realtime_ends.through))
    assert through[:2] == direct[:2]
    same_headers(direct[2], through[2])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 429, 500, 503])
def test_a_refused_handshake_is_the_same(realtime_ends, status):
    async def shake(base_url: str) -> tuple:
        with pytest.raises(websockets.InvalidStatus) as refused:
            await raw(realtime_ends, base_url, f"refuse={status}")
        answer = refused.value.response
        return answer.status_code, bytes(answer.body), list(answer.headers.raw_items())

    direct, through = (asyncio.run(shake(base_url)) for base_url in (realtime_ends.direct, realtime_ends.through))
    assert through[:2] == direct[:2]
    assert direct[0] == status
    same_headers(direct[2], through[2])


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (1008, "ü" * 61), (3000, "x"), (4999, "🌊")])
def test_the_provider_closes_and_the_client_knows_why(realtime_ends, both, code, reason):
    async def talk(base_url: str) -> tuple:
        async with raw(realtime_ends, base_url) as socket:
            await socket.recv()
            await socket.send(json.dumps({"type": "close", "code": code, "reason": reason}))
            with pytest.raises(websockets.ConnectionClosed):
                await socket.recv()
        return socket.close_code, socket.close_reason

    assert both(talk) == (code, reason)


@pytest.mark.parametrize(("code", "reason"), [(1000, ""), (1001, "going"), (3000, "x"), (4999, "🌊")])
def test_the_client_closes_and_the_provider_knows_why(realtime_ends, both, code, reason):
    async def talk(base_url: str) -> list:
        name = next(NAMES)
        async with raw(realtime_ends, base_url, f"name={name}") as socket:
            await socket.recv()
            await socket.close(code, reason)
        return [socket.close_code, *await closing_of(realtime_ends, name)]

    assert both(talk) == [code, code, reason]


def test_the_client_vanishes_and_the_provider_knows(realtime_ends, both):
    async def talk(base_url: str) -> list:
        name = next(NAMES)
        async with raw(realtime_ends, base_url, f"name={name}") as socket:
            await socket.recv()
            socket.transport.abort()
        return await closing_of(realtime_ends, name)

    assert both(talk) == [1006, ""]


def raw(ends: Ends, base_url: str, query: str = "", **options) -> connect:
    url = f"{base_url.replace('http', 'ws', 1)}/realtime?{query}"
    headers = {"Authorization": "Bearer sk-test", "X-Odd": "1", "OpenAI-Beta": "realtime=v1"}
    return connect(url, additional_headers=headers, max_size=None, **carriage(ends), **options)


def carriage(ends: Ends) -> dict:
    return {"ssl": ends.tls} if ends.wire.tls else {}


async def closing_of(ends: Ends, name: str) -> list:
    """What the provider made of the end of the connection of that name; it answers when that has ended."""
    url = f"{ends.direct.replace('http', 'ws', 1)}/closing?name={name}"
    async with connect(url, **carriage(ends)) as socket, asyncio.timeout(30):
        return json.loads(await socket.recv())


def same_headers(direct: list, through: list) -> None:
    assert came_through(through) and not came_through(direct)
    # The answer to the client's random key.
    direct, through = (
        [(name, value) for name, value in headers if name.lower() != "sec-websocket-accept"]
        for headers in (direct, through)
    )
    expected, told = comparable(direct, through)
    assert told == expected
