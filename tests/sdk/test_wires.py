"""Over every wire, the official client gets through tidegate what it gets without: objects, bytes, headers, errors.

The provider says in a header of each answer what it was asked, so the requests are compared too.
"""

import asyncio

import pytest
from calls import CALLS, CHAT
from compare import agreed, ask_async, plain, same


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_the_same(ends, name):
    same(ends, CALLS[name])


def test_async_calls_are_the_same(ends, subtests):
    direct, through = (asyncio.run(ask_async(ends, base_url, CALLS)) for base_url in (ends.direct, ends.through))
    for name in CALLS:
        with subtests.test(name):
            agreed(ends, direct[name], through[name])


def test_a_raw_response_is_the_same(ends):
    def ask(of):
        raw = of.chat.completions.with_raw_response.create(**CHAT)
        return raw.headers["x-request-id"], raw.content, raw.parse().model_dump(), raw.retries_taken

    assert same(ends, ask)[0] == "req_0001"


@pytest.mark.parametrize("model", ["tide-1", "tide-gzip", "tide-reason", "tide-breaks", "tide-undone"])
def test_a_stream_is_the_same_bytes(ends, model):
    def ask(of):
        ask = CHAT | {"model": model}
        with of.chat.completions.with_streaming_response.create(**ask, stream=True) as response:
            return b"".join(response.iter_bytes())

    assert b"data: " in same(ends, ask)


def test_lines_of_a_stream_are_the_same(ends):
    def ask(of):
        with of.responses.with_streaming_response.create(model="tide-1", input="Ebbe?", stream=True) as response:
            return list(response.iter_lines())

    assert "event: response.completed" in same(ends, ask)


def test_the_helper_that_gathers_a_stream_gathers_the_same(ends):
    def ask(of):
        with of.chat.completions.stream(**CHAT) as stream:
            events = [event.type for event in stream]
            return [*events, stream.get_final_completion().model_dump()]

    assert "content.done" in same(ends, ask)


def test_the_helper_that_gathers_a_response_gathers_the_same(ends):
    def ask(of):
        with of.responses.stream(model="tide-1", input="Ebbe?") as stream:
            events = [plain(event) for event in stream]
            return [*events, stream.get_final_response().status]

    assert same(ends, ask)[-1] == "completed"


def test_many_calls_share_a_connection(ends):
    def ask(of):
        return [of.chat.completions.create(**CHAT).model_dump() for _ in range(20)]

    assert len(same(ends, ask)) == 20
