"""A stream that broke and was continued is to the official clients what an unbroken one is."""

import asyncio

import openai
import pytest
from broken import MESSAGES, ROUTES, Break, client, expected, settings
from calls import TOOLS
from langchain_openai import ChatOpenAI
from processes import Gate
from saying import REASONING, TEXT, tokens

WITH_USAGE = {"stream_options": {"include_usage": True}}
CHAT_EVENTS = len(tokens(TEXT)) + 2
REASONED_EVENTS = CHAT_EVENTS + len(tokens(REASONING))


@pytest.fixture(scope="module")
def gates(breaking, tmp_path_factory):
    """Gates that continue, by how their provider is asked to."""
    made = {
        style: Gate(tmp_path_factory.mktemp(style), breaking.base_url, settings=settings("continue", style))
        for style in ("vllm", "prefix", "prefix_echo", "off")
    }
    yield made
    for gate in made.values():
        gate.stop()


def gathered(chunks: list) -> dict:
    """What a stream of chat or of a completion says, with all that stands in every chunk of it."""
    said = {"content": "", "reasoning": "", "roles": [], "ended": [], "usage": None, "heads": set()}
    for chunk in chunks:
        said["heads"].add((chunk.id, chunk.created, chunk.model, chunk.system_fingerprint))
        said["usage"] = chunk.usage.model_dump() if chunk.usage else said["usage"]
        for choice in chunk.choices:
            delta = getattr(choice, "delta", None)
            said["content"] += (delta.content if delta else choice.text) or ""
            said["reasoning"] += getattr(delta, "reasoning_content", None) or ""
            said["roles"] += [delta.role] if delta and delta.role else []
            said["ended"] += [choice.finish_reason] if choice.finish_reason else []
            assert choice.index == 0
    assert len(said["heads"]) == 1
    return said


def alike(said: dict, unbroken: dict) -> None:
    """The same, but for the name of the model, which has the plan in it."""
    heads = [{(*head[:2], head[3]) for head in each.pop("heads")} for each in (said, unbroken)]
    assert heads[0] == heads[1]
    assert said == unbroken


def straight(breaking, name: str, kind: str) -> dict:
    """The stream that does not break."""
    return gathered(list(ROUTES[name].ask(client(breaking.base_url), breaking.plan(kind=kind), **WITH_USAGE)))


# How a provider is asked, what the model does, and after which event its stream breaks: the last one that it can break
# after is the one before usage, since the answer itself has ended by then.
STORIES = [
    *(("vllm", "tide", after) for after in range(1, CHAT_EVENTS)),
    *(("prefix", "tide", after) for after in range(1, CHAT_EVENTS)),
    # vLLM is not given reasoning, so only what comes after it can be continued.
    *(("vllm", "reasons", after) for after in range(REASONED_EVENTS - len(tokens(TEXT)), REASONED_EVENTS)),
    *(("prefix", "reasons", after) for after in range(1, REASONED_EVENTS)),
    # One that repeats what it continues; a short beginning could be an echo by chance.
    *(("prefix", "echoes", after) for after in range(10, CHAT_EVENTS)),
    # Unless it is known to do so.
    *(("prefix_echo", "echoes", after) for after in range(1, CHAT_EVENTS)),
]


@pytest.mark.parametrize(("style", "kind", "after"), STORIES)
def test_a_break_after_any_event_is_not_seen(gates, breaking, style, kind, after):
    how = ("reset", "end", "close")[after % 3]
    model = breaking.plan(Break(how, after, half=after % 2 == 0), kind=kind)
    said = gathered(list(ROUTES["chat"].ask(client(gates[style].base_url), model, **WITH_USAGE)))
    assert said["content"] == TEXT
    alike(said, straight(breaking, "chat", kind))
    assert len(breaking.asked[model]) == 2


@pytest.mark.parametrize("after", range(1, CHAT_EVENTS - 1))
def test_the_same_for_completions(gates, breaking, after):
    model = breaking.plan(Break("reset", after))
    said = gathered(list(ROUTES["completions"].ask(client(gates["vllm"].base_url), model, **WITH_USAGE)))
    alike(said, straight(breaking, "completions", "tide"))
    assert len(breaking.asked[model]) == 2


@pytest.mark.parametrize("style", ["vllm", "prefix"])
def test_two_breaks_in_one_stream_are_not_seen(gates, breaking, style):
    """The second time while the rest was awaited, and the third in it."""
    model = breaking.plan(Break("reset", 4), Break("reset", None), Break("end", 5, half=True), Break("stall", 3))
    said = gathered(list(ROUTES["chat"].ask(client(gates[style].base_url), model, **WITH_USAGE)))
    alike(said, straight(breaking, "chat", "tide"))
    assert len(breaking.asked[model]) == 5


@pytest.mark.parametrize("style", ["vllm", "prefix"])
@pytest.mark.parametrize("after", range(1, CHAT_EVENTS))
def test_the_helper_gathers_the_same(gates, breaking, style, after):
    """It is strict about the shape of chunks."""

    def gather(of: openai.OpenAI, model: str) -> list:
        with of.chat.completions.stream(model=model, messages=MESSAGES, **WITH_USAGE) as stream:
            deltas = "".join(event.delta for event in stream if event.type == "content.delta")
            return [deltas, stream.get_final_completion().model_dump(exclude={"model"})]

    model = breaking.plan(Break("reset", after))
    assert gather(client(gates[style].base_url), model) == gather(client(breaking.base_url), breaking.plan())
    assert len(breaking.asked[model]) == 2


def test_the_asynchronous_client_gathers_the_same(gates, breaking):
    model = breaking.plan(Break("reset", 5), Break("end", 3))

    async def read() -> list:
        async with openai.AsyncOpenAI(base_url=gates["vllm"].base_url, api_key="sk-test", max_retries=0) as of:
            return [chunk async for chunk in await ROUTES["chat"].ask(of, model, **WITH_USAGE)]

    alike(gathered(asyncio.run(read())), straight(breaking, "chat", "tide"))


def test_langchain_gathers_the_same(gates, breaking):
    def gather(base_url: str, model: str) -> object:
        of = ChatOpenAI(model=model, base_url=base_url, api_key="sk-test", max_retries=0, stream_usage=True)
        first, *rest = of.stream("Wann kommt die Flut?")
        whole = sum(rest, first)
        return whole.content, whole.usage_metadata, whole.response_metadata["finish_reason"]

    broken = gather(gates["vllm"].base_url, breaking.plan(Break("reset", 6), Break("end", 4)))
    assert broken == gather(breaking.base_url, breaking.plan())
    assert broken[0] == TEXT


def test_http_2_both_ways(breaking, tmp_path):
    gate = Gate(tmp_path, breaking.base_url, settings=settings("continue", "vllm", http="2"))
    model = breaking.plan(Break("reset", 5), Break("close", 3, half=True), Break("end", 4))
    said = gathered(list(ROUTES["chat"].ask(client(gate.base_url, http2=True), model, **WITH_USAGE)))
    alike(said, straight(breaking, "chat", "tide"))
    gate.stop()


@pytest.mark.parametrize("style", ["vllm", "prefix"])
def test_what_is_asked_for_is_the_rest(gates, breaking, style):
    model, words = breaking.plan(Break("reset", 5)), tokens(TEXT)
    list(ROUTES["chat"].ask(client(gates[style].base_url), model, max_tokens=100, seed=2**63 - 1))
    first, second = breaking.asked[model]
    assert second["messages"][:-1] == first["messages"]
    partial = {"role": "assistant", "content": "".join(words[:4])}
    assert second["messages"][-1] == (partial if style == "vllm" else partial | {"prefix": True})
    assert second.get("continue_final_message", False) is (style == "vllm")
    assert (second["max_tokens"], second["seed"]) == (96, 2**63 - 1)


CANNOT = {
    "reasoning of vLLM": ("vllm", "chat", "reasons", 3, {}),
    "a tool call": ("vllm", "chat", "tide", 3, {"tools": TOOLS}),
    "two answers": ("vllm", "chat", "tide", 4, {"n": 2}),
    "a prescribed form": ("vllm", "chat", "tide", 4, {"response_format": {"type": "json_object"}}),
    "a response": ("vllm", "responses", "tide", 6, {}),
    "a provider that cannot": ("off", "chat", "tide", 4, {}),
}


@pytest.mark.parametrize("story", CANNOT)
def test_what_cannot_be_continued_raises(gates, breaking, story):
    style, name, kind, after, more = CANNOT[story]
    model, came = breaking.plan(Break("reset", after), kind=kind), []
    with pytest.raises(openai.APIError) as raised:
        came.extend(iter(ROUTES[name].ask(client(gates[style].base_url), model, **more)))
    expected(raised.value, "reset")
    assert len(breaking.asked[model]) == 1


@pytest.mark.parametrize("style", ["vllm", "prefix", "off"])
def test_a_tool_call_that_had_not_begun_is_asked_for_again(gates, breaking, style):
    """Nothing had been said but whose turn it is, so any provider can be asked again."""
    model = breaking.plan(Break("reset", 1))
    with client(gates[style].base_url).chat.completions.stream(model=model, messages=MESSAGES, tools=TOOLS) as stream:
        message = stream.get_final_completion().choices[0].message
    assert [call.function.arguments for call in message.tool_calls] == ['{"place": "Cuxhaven 🌊"}']
    assert len(breaking.asked[model]) == 2
