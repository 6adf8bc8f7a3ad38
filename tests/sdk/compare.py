"""Makes a call of the official Python client straight and through tidegate, and holds the two against each other."""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable

import httpx2
import openai
import pydantic
from openai import AsyncStream, Stream
from wires import Ends, Headers, came_through, comparable

ERROR_FIELDS = ("status_code", "message", "body", "code", "param", "type")


@dataclasses.dataclass
class Head:
    version: str
    status: int
    headers: Headers
    # The client's end of the connection it came over.
    connection: object


@dataclasses.dataclass
class Outcome:
    """What a client made of a call, and the heads of the answers it got."""

    value: object
    heads: list[Head]


def same(ends: Ends, call: Callable) -> object:
    """The value of the call, which is the same both ways."""
    return agreed(ends, *(ask(ends, base_url, call) for base_url in (ends.direct, ends.through)))


def agreed(ends: Ends, direct: Outcome, through: Outcome) -> object:
    assert through.value == direct.value
    assert direct.heads, "the call was never made"
    assert [head.status for head in through.heads] == [head.status for head in direct.heads]
    for straight, ours in zip(direct.heads, through.heads, strict=True):
        assert ours.version == straight.version == ends.wire.version
        assert came_through(ours.headers) and not came_through(straight.headers)
        expected, told = comparable(straight.headers, ours.headers)
        assert told == expected
    assert len({head.connection for head in through.heads}) == len({head.connection for head in direct.heads})
    return direct.value


def ask(ends: Ends, base_url: str, call: Callable) -> Outcome:
    of, heads = kept_client(ends, base_url)
    heads.clear()
    try:
        value = plain(call(of))
    except openai.APIError as error:
        value = described(error)
    return Outcome(value, list(heads))


@functools.cache
def kept_client(ends: Ends, base_url: str) -> tuple[openai.OpenAI, list[Head]]:
    """A client is made once and used for long, as people do, and notes the heads of the answers it gets."""
    heads: list[Head] = []
    return client(ends, base_url, {"response": [lambda response: heads.append(head_of(response))]}), heads


async def ask_async(ends: Ends, base_url: str, calls: dict[str, Callable]) -> dict[str, Outcome]:
    heads: list[Head] = []

    async def note(response: httpx2.Response) -> None:
        heads.append(head_of(response))

    outcomes = {}
    async with async_client(ends, base_url, {"response": [note]}) as of:
        for name, call in calls.items():
            heads.clear()
            try:
                value = call(of)
                value = await value if inspect.isawaitable(value) else value
                value = [plain(item) async for item in value] if isinstance(value, AsyncStream) else plain(value)
            except openai.APIError as error:
                value = described(error)
            outcomes[name] = Outcome(value, list(heads))
    return outcomes


def client(ends: Ends, base_url: str, hooks: dict | None = None) -> openai.OpenAI:
    carrier = openai.DefaultHttpxClient(**carriage(ends), event_hooks=hooks)
    return openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0, timeout=60, http_client=carrier)


def async_client(ends: Ends, base_url: str, hooks: dict | None = None) -> openai.AsyncOpenAI:
    carrier = openai.DefaultAsyncHttpxClient(**carriage(ends), event_hooks=hooks)
    return openai.AsyncOpenAI(base_url=base_url, api_key="sk-test", max_retries=0, timeout=60, http_client=carrier)


def carriage(ends: Ends) -> dict:
    """Without HTTP/1.1 the client speaks HTTP/2 at once, in clear too."""
    return {"http1": not ends.wire.http2, "http2": ends.wire.http2, "verify": ends.tls}


def head_of(response: httpx2.Response) -> Head:
    raw = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in response.headers.raw]
    connection = response.extensions["network_stream"].get_extra_info("client_addr")
    return Head(response.http_version, response.status_code, raw, connection)


def plain(value: object) -> object:
    """What an answer says, as values that compare."""
    match value:
        case pydantic.BaseModel():
            return type(value).__name__, value.model_dump(warnings=False)
        case Stream():
            return [plain(item) for item in value]
        case httpx2.Response():
            return value.status_code, value.content
        case openai.types.responses.Response() | dict() | list() | tuple() | str() | bytes() | int() | None:
            return value
    for attribute in ("content", "text"):
        with contextlib.suppress(AttributeError):
            return type(value).__name__, getattr(value, attribute)
    raise TypeError(type(value))


def described(error: openai.APIError) -> tuple:
    return type(error).__name__, *(getattr(error, field, None) for field in ERROR_FIELDS)
