"""What the tests of broken streams share: the gates they go through, the calls, and what a client makes of them."""

import dataclasses

import openai
from breaking import Break, Breaking

SETTINGS = """
[[upstreams]]
base_url = "http://127.0.0.1:1/v1"
kind = "{kind}"
http = "{http}"
idle_timeout = "{idle}"
continuation = "{continuation}"
[upstreams.limits]
requests_per_minute = 1_000_000
burst = 1_000_000
concurrency = 1_000
[retry]
base = "5ms"
budget = 10.0
[breaker]
failures = 1_000_000
[recovery]
mid_stream = "{mid_stream}"
[cache]
mode = "off"
"""
MESSAGES = [{"role": "user", "content": "Wann kommt die Flut? 🌊"}]


# After such a silence a stream is given up. Where a stream is to break in another way, it is longer than a busy machine
# keeps the provider from writing on.
QUICK = "400ms"
LONG = "3s"


def settings(
    mid_stream: str = "error", continuation: str = "off", http: str = "1.1", kind: str = "model", idle: str = LONG
) -> str:
    return SETTINGS.format(mid_stream=mid_stream, continuation=continuation, http=http, kind=kind, idle=idle)


@dataclasses.dataclass(frozen=True)
class Route:
    """How one asks for a stream, and what its events say."""

    ask: object
    text: object
    # Before the first of its text, and after the last.
    before: int
    after: int


ROUTES = {
    "chat": Route(
        lambda of, model, **more: of.chat.completions.create(model=model, messages=MESSAGES, stream=True, **more),
        lambda chunk: chunk.choices[0].delta.content or "" if chunk.choices else "",
        before=1,
        after=2,
    ),
    "completions": Route(
        lambda of, model, **more: of.completions.create(model=model, prompt="Ebbe und", stream=True, **more),
        lambda chunk: chunk.choices[0].text if chunk.choices else "",
        before=0,
        after=2,
    ),
    "responses": Route(
        lambda of, model, **more: of.responses.create(model=model, input="Ebbe?", stream=True, **more),
        lambda event: event.delta if event.type == "response.output_text.delta" else "",
        before=4,
        after=2,
    ),
}
HOWS = ("reset", "end", "close", "stall")  # the last one is a silence


def client(base_url: str, *, http2: bool = False) -> openai.OpenAI:
    carrier = openai.DefaultHttpxClient(http1=not http2, http2=http2)
    return openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0, timeout=60, http_client=carrier)


def moments(route: Route, tokens: int) -> dict[str, tuple[int, bool]]:
    """After how many events a stream of so many tokens breaks, and whether within the next one."""
    first = max(route.before, 1)
    return {
        "after its first events": (first, False),
        "after some tokens": (first + 3, False),
        "within an event": (first + 3, True),
        "before it says that it is over": (route.before + tokens, False),
    }


def expected(error: openai.APIError, how: str) -> None:
    """What a client is told of a stream that broke."""
    stalled = how == "stall"
    assert error.code == ("upstream_timeout" if stalled else "upstream_disconnected"), error
    assert error.body["status"] == (504 if stalled else 502)
    assert error.type == "server_error"
    assert "upstream" in error.message


__all__ = ["Break", "Breaking", "HOWS", "LONG", "MESSAGES", "QUICK", "ROUTES", "client", "expected", "moments", "settings"]
