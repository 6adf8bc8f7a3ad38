"""The official client cannot tell tidegate from the provider.

The simulated provider answers the same question with the same bytes each time, so whatever the client makes of an
answer that came through tidegate must equal what it makes of a direct one.
"""

import asyncio
import json
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest
from conftest import client
from processes import Gate, Sim
from refuser import Refuser

QUESTION = {"model": "sim-1", "messages": [{"role": "user", "content": "Wann kommt die Flut? 🌊"}]}


def chat(of: openai.OpenAI, **more):
    return of.chat.completions.create(**QUESTION, **more)


def stream_bytes(of: openai.OpenAI, **more) -> bytes:
    with of.chat.completions.with_streaming_response.create(**QUESTION, stream=True, **more) as response:
        return b"".join(response.iter_bytes())


def test_chat_gives_the_same_object(direct, gated):
    through = chat(gated)
    assert through.choices[0].message.content
    assert through.usage.completion_tokens > 0
    assert through.model_dump() == chat(direct).model_dump()


@pytest.mark.parametrize("options", [None, {"include_usage": True}])
def test_streaming_gives_the_same_chunks_and_bytes(direct, gated, options):
    more = {"stream_options": options} if options else {}
    through = [chunk.model_dump() for chunk in chat(gated, stream=True, **more)]
    assert len(through) > 2
    assert through == [chunk.model_dump() for chunk in chat(direct, stream=True, **more)]
    assert stream_bytes(gated, **more) == stream_bytes(direct, **more)


def test_a_stream_says_what_the_plain_answer_says(gated):
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chat(gated, stream=True))
    assert text == chat(gated).choices[0].message.content


def test_a_stream_arrives_piece_by_piece(gated):
    # It lasts longer than a busy machine may keep us from reading.
    wishes = {"sim": {"latency_ms": 3000, "chunks": 10}}
    arrivals = [time.monotonic() for _ in chat(gated, stream=True, extra_body=wishes)]
    assert arrivals[-1] - arrivals[0] > 0.4


def test_legacy_completions_give_the_same_object(direct, gated):
    ask = {"model": "sim-1", "prompt": "Ebbe und"}
    assert gated.completions.create(**ask).model_dump() == direct.completions.create(**ask).model_dump()


def test_embeddings_give_the_same_vectors(direct, gated):
    ask = {"model": "sim-1", "input": ["tide", "gate"], "dimensions": 8}
    through = gated.embeddings.create(**ask)
    assert [len(item.embedding) for item in through.data] == [8, 8]
    assert through.model_dump() == direct.embeddings.create(**ask).model_dump()


def test_the_models_are_the_same(direct, gated):
    through = [model.model_dump() for model in gated.models.list()]
    assert through
    assert through == [model.model_dump() for model in direct.models.list()]


def test_unknown_paths_fields_and_queries_pass_unchanged(direct, gated):
    body = {"seed": 2**63 - 1, "unheard_of": {"ü": [1.0, 1e300, None]}}
    path = "/unheard/of?b=%20&a=/v1/&a"
    through, straight = (of.post(path, cast_to=object, body=body) for of in (gated, direct))
    for field in ("method", "path", "query", "body_bytes", "body_fnv"):
        assert through[field] == straight[field], field


def test_a_doubled_v1_is_forgiven(gate, direct):
    doubled = client(gate.base_url.rstrip("/") + "/v1")
    assert chat(doubled).model_dump() == chat(direct).model_dump()


def test_answers_tell_what_was_done_for_them(gated):
    raw = gated.chat.completions.with_raw_response.create(**QUESTION)
    assert raw.headers["x-tidegate-request-id"]
    assert raw.headers["x-tidegate-attempts"] == "1"
    assert int(raw.headers["x-tidegate-queue-ms"]) >= 0


def test_errors_of_the_request_are_the_providers_own(direct, gated):
    seen = []
    for of in (direct, gated):
        with pytest.raises(openai.BadRequestError) as error:
            of.chat.completions.create(model="sim-1", messages=[])
        seen.append((error.value.status_code, error.value.message, error.value.body))
    assert seen[0] == seen[1]


def test_error_bodies_pass_as_they_are_and_are_not_tried_again(tmp_path):
    refuser = Refuser()
    errors = {
        400: openai.BadRequestError,
        401: openai.AuthenticationError,
        403: openai.PermissionDeniedError,
        404: openai.NotFoundError,
        422: openai.UnprocessableEntityError,
    }
    for status, kind in errors.items():
        base_url = f"{refuser.origin}/{status}"
        gate = Gate(tmp_path_of(tmp_path, status), base_url, "--rpm", "600", "--concurrency", "5")
        seen = []
        for of in (client(base_url), client(gate.base_url)):
            with pytest.raises(kind) as error:
                chat(of)
            raised = error.value
            seen.append((raised.status_code, raised.message, raised.body, raised.code, raised.param, raised.type))
        gate.stop()
        assert seen[0] == seen[1]
        assert refuser.seen[status] == 2
    refuser.shutdown()


def tmp_path_of(directory, name):
    directory = directory / str(name)
    directory.mkdir()
    return directory


def test_a_client_that_leaves_mid_stream_harms_nobody(direct, gated):
    stream = chat(gated, stream=True, extra_body={"sim": {"latency_ms": 3_000, "chunks": 100}})
    next(iter(stream))
    stream.close()
    assert chat(gated).model_dump() == chat(direct).model_dump()


def test_the_asynchronous_client_gets_the_same(gate, direct):
    async def ask():
        async with openai.AsyncOpenAI(base_url=gate.base_url, api_key="sk-test", max_retries=0) as of:
            plain = await of.chat.completions.create(**QUESTION)
            chunks = [chunk async for chunk in await of.chat.completions.create(**QUESTION, stream=True)]
            return plain, chunks

    plain, chunks = asyncio.run(ask())
    assert plain.model_dump() == chat(direct).model_dump()
    assert [chunk.model_dump() for chunk in chunks] == [chunk.model_dump() for chunk in chat(direct, stream=True)]


def test_more_calls_than_allowed_all_succeed_and_break_no_limit(tmp_path):
    limits = ["--rpm", "20", "--window", "5s", "--concurrency", "5"]
    sim = Sim(tmp_path / "sim.log", *limits, "--latency", "300ms", "--on-violation", "1006")
    gate = Gate(tmp_path, sim.base_url, *limits)
    of = client(gate.base_url)

    def ask(number: int) -> str:
        messages = [{"role": "user", "content": f"question {number}"}]
        if number % 2:
            chunks = of.chat.completions.create(model="sim-1", messages=messages, stream=True)
            return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        return of.chat.completions.create(model="sim-1", messages=messages).choices[0].message.content

    with ThreadPoolExecutor(30) as pool:
        answers = list(pool.map(ask, range(30)))
    stats = sim.stats()
    gate.stop()
    sim.stop()
    assert len(answers) == 30 and all(answers)
    assert stats["requests"] == 30
    assert stats["violations"] == {"window": 0, "concurrency": 0, "tokens": 0}
    assert stats["refused_in_penalty"] == 0


def test_operators_can_look(gate, gated):
    chat(gated)
    with urllib.request.urlopen(f"{gate.admin}/readyz", timeout=10) as answer:
        assert json.load(answer) == {"status": "ready"}
    gate.eventually(gate.metrics, lambda found: any('tidegate_calls_total{outcome="ok"' in name for name in found))
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(f"{gate.admin}/nowhere", timeout=10)
    assert error.value.code == 404
