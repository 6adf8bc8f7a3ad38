"""A stream that breaks raises in the official clients, names its cause, and never ends quietly; what came before is there."""

import asyncio
import json
import os
import pathlib
import subprocess
import sys

import openai
import pytest
from broken import HOWS, LONG, MESSAGES, QUICK, ROUTES, Break, client, expected, moments, settings
from langchain_openai import ChatOpenAI
from processes import HERE, Gate
from saying import TEXT, tokens

NODE = pathlib.Path(sys.executable).parent / "node"
TOKENS = tokens(TEXT)
MOMENTS = list(moments(ROUTES["chat"], len(TOKENS)))


@pytest.fixture(scope="module", params=["1.1", "2"])
def gates(request, breaking, tmp_path_factory):
    """What is spoken to the provider. Of two gates one is quick to call a silence a break, and is for those alone."""
    made = {
        idle: Gate(tmp_path_factory.mktemp("gate"), breaking.base_url, settings=settings(http=request.param, idle=idle))
        for idle in (LONG, QUICK)
    }
    yield lambda how: made[QUICK if how == "stall" else LONG]
    for gate in made.values():
        gate.stop()


def plan(breaking, name: str, how: str, moment: str) -> tuple[str, str]:
    """A model whose stream breaks so, and the text that comes before."""
    route = ROUTES[name]
    after, half = moments(route, len(TOKENS))[moment]
    return breaking.plan(Break(how, after, half)), "".join(TOKENS[: after - route.before])


@pytest.mark.parametrize("http2", [False, True], ids=["h1", "h2"])
@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ROUTES)
def test_a_broken_stream_raises(gates, breaking, name, how, moment, http2):
    model, before = plan(breaking, name, how, moment)
    route, came = ROUTES[name], []
    with route.ask(client(gates(how).base_url, http2=http2), model) as stream, pytest.raises(openai.APIError) as raised:
        for event in stream:
            came.append(route.text(event))
    expected(raised.value, how)
    assert "".join(came) == before
    assert len(breaking.asked[model]) == 1, "what was passed on is not asked for again"


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("name", ROUTES)
def test_the_asynchronous_client_raises(gates, breaking, name, how):
    model, before = plan(breaking, name, how, "after some tokens")
    came = []

    async def read() -> None:
        async with openai.AsyncOpenAI(base_url=gates(how).base_url, api_key="sk-test", max_retries=0) as of:
            async for event in await ROUTES[name].ask(of, model):
                came.append(ROUTES[name].text(event))

    with pytest.raises(openai.APIError) as raised:
        asyncio.run(read())
    expected(raised.value, how)
    assert "".join(came) == before


@pytest.mark.parametrize("how", HOWS)
def test_the_helper_raises(gates, breaking, how):
    """It gathers a completion as it comes, and makes none of what broke."""
    model, before = plan(breaking, "chat", how, "after some tokens")
    deltas = []
    with client(gates(how).base_url).chat.completions.stream(model=model, messages=MESSAGES) as stream:
        with pytest.raises(openai.APIError) as raised:
            deltas += [event.delta for event in stream if event.type == "content.delta"]
        assert stream.current_completion_snapshot.choices[0].message.content == before
        assert stream.current_completion_snapshot.choices[0].finish_reason is None
    expected(raised.value, how)


@pytest.mark.parametrize("how", HOWS)
def test_langchain_raises(gates, breaking, how):
    model, before = plan(breaking, "chat", how, "after some tokens")
    of, came = ChatOpenAI(model=model, base_url=gates(how).base_url, api_key="sk-test", max_retries=0), []
    with pytest.raises(openai.APIError) as raised:
        for chunk in of.stream("Wann kommt die Flut?"):
            came.append(chunk.content)
    expected(raised.value, how)
    assert "".join(came) == before


@pytest.mark.parametrize("hows", [HOWS[:-1], HOWS[-1:]], ids=["broken", "silent"])
def test_node_raises(gates, breaking, hows):
    asked = [(name, how, moment) for name in ROUTES for how in hows for moment in MOMENTS]
    plans = [plan(breaking, *story) for story in asked]
    asks = [{"route": name, "model": model} for (name, *_), (model, _) in zip(asked, plans, strict=True)]
    said = node(gates(hows[0]).base_url, asks)
    for story, (_, before), outcome in zip(asked, plans, said, strict=True):
        assert outcome["text"] == before, story
        _, how, _ = story
        code, status = ("upstream_timeout", 504) if how == "stall" else ("upstream_disconnected", 502)
        assert outcome["error"]["kind"] == "APIError", (story, outcome)
        assert (outcome["error"]["code"], outcome["error"]["status"]) == (code, status), story


def node(base_url: str, asks: list[dict]) -> list[dict]:
    """What the client for Node made of streams."""
    done = subprocess.run(
        [NODE, HERE / "node" / "streams.mjs", base_url],
        env=os.environ | {"NODE_NO_WARNINGS": "1"},
        input=json.dumps(asks).encode(),
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return json.loads(done.stdout)


@pytest.mark.parametrize("how", HOWS)
def test_a_stream_that_has_said_its_end_is_whole(gates, breaking, how):
    """Nothing is missing of it but `[DONE]`."""
    model = breaking.plan(Break(how, len(TOKENS) + 2))
    chunks = list(ROUTES["chat"].ask(client(gates(how).base_url), model))
    assert "".join(map(ROUTES["chat"].text, chunks)) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_stream_that_lacks_only_its_usage_is_whole_and_none_is_made_up(gates, breaking):
    model = breaking.plan(Break("end", len(TOKENS) + 2))
    chunks = list(ROUTES["chat"].ask(client(gates("end").base_url), model, stream_options={"include_usage": True}))
    assert "".join(map(ROUTES["chat"].text, chunks)) == TEXT
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert not any(chunk.usage for chunk in chunks)


@pytest.mark.parametrize("how", sorted({*HOWS} - {"stall"}))  # silence before the first event is thinking
@pytest.mark.parametrize("name", ROUTES)
def test_what_breaks_before_its_first_event_is_not_seen(gates, breaking, name, how):
    model = breaking.plan(Break("reset", None), Break(how, 0), Break(how, 0, half=True))
    text = "".join(map(ROUTES[name].text, ROUTES[name].ask(client(gates(how).base_url), model)))
    assert text == TEXT
    assert len(breaking.asked[model]) == 4
