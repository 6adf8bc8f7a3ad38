"""LangChain gets through tidegate what it gets without."""

import asyncio
import re

import openai
import pytest
from langchain_core.messages import HumanMessage, SystemMessage, ToolMessage
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from calls import Tide
from compare import carriage
from wires import Ends

ASK = [SystemMessage("kurz"), HumanMessage("Wann kommt die Flut? 🌊")]
# LangChain numbers its runs at random.
RUN = re.compile(r"lc_run--[0-9a-f-]+")


def tide_at(place: str, when: dict) -> str:
    """When the tide comes to a place."""
    return f"{place} {when}: 14:07"


def use_tools(of: ChatOpenAI) -> list:
    """The model asks for tools, hears of them, and answers."""
    bound = of.bind_tools([tide_at])
    asked = bound.invoke(ASK)
    told = [ToolMessage(tide_at(**call["args"]), tool_call_id=call["id"]) for call in asked.tool_calls]
    return [asked, *told, bound.invoke([*ASK, asked, *told])]


def gather(chunks) -> object:
    first, *rest = chunks
    return sum(rest, first)


async def gather_async(of: ChatOpenAI) -> object:
    return gather([chunk async for chunk in of.astream(ASK)])


CALLS = {
    "invoke": lambda of: of.invoke(ASK),
    "stream": lambda of: list(of.stream(ASK)),
    "stream, gathered": lambda of: gather(of.stream(ASK)),
    "stream, tools": lambda of: gather(of.bind_tools([tide_at]).stream(ASK)),
    "tools": use_tools,
    "structured": lambda of: of.with_structured_output(Tide, include_raw=True).invoke(ASK),
    # Not the plain one, whose threads share a connection: httpcore2 mixes up their HTTP/2 frames, with any server.
    "batch": lambda of: asyncio.run(of.abatch([ASK, ASK, ASK])),
    "responses": lambda of: of.model_copy(update={"use_responses_api": True}).invoke(ASK),
    "responses, stream": lambda of: gather(of.model_copy(update={"use_responses_api": True}).stream(ASK)),
    "async": lambda of: asyncio.run(of.ainvoke(ASK)),
    "async stream": lambda of: asyncio.run(gather_async(of)),
}


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_the_same(ends, name):
    direct, through = (plain(CALLS[name](chat(ends, base_url))) for base_url in (ends.direct, ends.through))
    assert through == direct
    assert direct


def test_embeddings_are_the_same(ends):
    vectors = []
    for base_url in (ends.direct, ends.through):
        # Counting tokens would ask the network for a table of them.
        of = OpenAIEmbeddings(check_embedding_ctx_length=False, **options(ends, base_url))
        vectors.append(of.embed_documents(["tide", "gate 🌊"]))
    assert vectors[1] == vectors[0]
    assert [len(vector) for vector in vectors[0]] == [64, 64]


@pytest.mark.parametrize(("status", "kind"), [(401, openai.AuthenticationError), (500, openai.InternalServerError)])
def test_an_error_is_the_same(ends, status, kind):
    said = []
    for base_url in (ends.direct, ends.through):
        with pytest.raises(kind) as error:
            chat(ends, base_url, model=f"status-{status}").invoke(ASK)
        said.append((str(error.value), error.value.body, error.value.code))
    assert said[1] == said[0]
    assert said[0][2] == f"code_{status}"


def chat(ends: Ends, base_url: str, model: str = "tide-1") -> ChatOpenAI:
    return ChatOpenAI(model=model, stream_usage=True, **options(ends, base_url))


def options(ends: Ends, base_url: str) -> dict:
    return {
        "base_url": base_url,
        "api_key": "sk-test",
        "max_retries": 0,
        "http_client": openai.DefaultHttpxClient(**carriage(ends)),
        "http_async_client": openai.DefaultAsyncHttpxClient(**carriage(ends)),
    }


def plain(value: object) -> object:
    match value:
        case list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case str():
            return RUN.sub("lc_run", value)
        case _ if hasattr(value, "model_dump"):
            return type(value).__name__, plain(value.model_dump(warnings=False))
    return value
