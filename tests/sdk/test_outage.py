"""A provider that is down for a while: clients that can wait notice nothing, others are told what is the matter."""

import concurrent.futures
import json
import time
import urllib.request

import openai
import pytest
from broken import MESSAGES, client
from processes import Gate, Sim

SETTINGS = """
[[upstreams]]
base_url = "http://127.0.0.1:1/v1"
limits = { requests_per_minute = 600, burst = 10, concurrency = 10 }
[breaker]
open = "2s"
[cache]
mode = "off"
"""
DOWN = 8.0
HOWS = ("refuse", "503", "reset")


@pytest.fixture(params=HOWS)
def outage(request, tmp_path):
    """A gate whose provider has just gone."""
    sim = Sim(tmp_path / "sim.log", "--latency", "20ms", "--latency-spread", "0")
    gate = Gate(tmp_path, sim.base_url, settings=SETTINGS)
    client(gate.base_url).chat.completions.create(model="m", messages=MESSAGES)
    down(sim, request.param)
    yield gate, sim, request.param
    gate.stop()
    sim.stop()


def down(sim: Sim, how: str) -> None:
    body = json.dumps({"how": how, "for_ms": int(DOWN * 1000)}).encode()
    with urllib.request.urlopen(f"{sim.base_url.removesuffix('/v1')}/sim/down", body, timeout=10) as said:
        assert said.status == 200


def test_who_can_wait_notices_nothing(outage):
    gate, _, _ = outage
    of, began = client(gate.base_url), time.monotonic()

    def ask(stream: bool) -> str:
        answer = of.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, [True, False] * 4))
    assert time.monotonic() - began > DOWN - 1, "there was no outage"
    assert len(answers) == 1 and answers.pop()


def until_the_breaker_is_open(gate: Gate) -> None:
    deadline = time.monotonic() + DOWN
    while time.monotonic() < deadline:
        with urllib.request.urlopen(f"{gate.admin}/metrics", timeout=10) as answer:
            if 'tidegate_breaker_state{upstream="default"} 1' in answer.read().decode():
                return
        time.sleep(0.05)
    raise AssertionError("the breaker never opened")


def test_who_cannot_wait_is_told_what_is_the_matter(outage):
    gate, _, how = outage
    of = openai.OpenAI(base_url=gate.base_url, api_key="sk-test", max_retries=0, timeout=3)

    def told() -> openai.APIStatusError:
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError) as raised:
            of.chat.completions.create(model="m", messages=MESSAGES)
        assert time.monotonic() - began < 3, "it hears of it before it gives up"
        return raised.value

    # The first ones try for themselves, and are told what came of it; who comes later hears that nobody tries.
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = list(pool.map(lambda _: told(), range(8)))
    codes = {"refuse": "upstream_disconnected", "reset": "upstream_disconnected", "503": "overloaded"}
    print([(error.status_code, error.code, error.message) for error in first])
    assert codes[how] in {error.code for error in first}
    until_the_breaker_is_open(gate)
    late = told()
    print(late.status_code, late.code, late.message)
    assert 0
