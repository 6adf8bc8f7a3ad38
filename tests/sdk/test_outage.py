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
# As SDKs know it: of each read, in seconds.
TIMEOUT = 5
HOWS = ("refuse", "503", "reset")


@pytest.fixture(params=HOWS)
def outage(request, tmp_path):
    """A gate, its provider, and how that goes down."""
    sim = Sim(tmp_path / "sim.log", "--latency", "20ms", "--latency-spread", "0")
    gate = Gate(tmp_path, sim.base_url, settings=SETTINGS)
    client(gate.base_url).chat.completions.create(model="m", messages=MESSAGES)
    yield gate, sim, request.param
    gate.stop()
    sim.stop()


def down(sim: Sim, how: str, seconds: float) -> None:
    body = json.dumps({"how": how, "for_ms": int(seconds * 1000)}).encode()
    with urllib.request.urlopen(f"{sim.base_url.removesuffix('/v1')}/sim/down", body, timeout=30) as said:
        assert said.status == 200


def test_who_can_wait_notices_nothing(outage):
    gate, sim, how = outage
    of, began = client(gate.base_url), time.monotonic()
    down(sim, how, DOWN)

    def ask(stream: bool) -> str:
        answer = of.chat.completions.create(model="m", messages=MESSAGES, stream=stream)
        if not stream:
            return answer.choices[0].message.content
        return "".join(chunk.choices[0].delta.content or "" for chunk in answer if chunk.choices)

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        answers = set(pool.map(ask, [True, False] * 4))
    assert time.monotonic() - began > DOWN - 1, "there was no outage"
    assert len(answers) == 1 and answers.pop()


FAILS = "an upstream fails"


def test_who_cannot_wait_is_told_what_is_the_matter(outage):
    gate, sim, how = outage
    of = openai.OpenAI(base_url=gate.base_url, api_key="sk-test", max_retries=0, timeout=TIMEOUT)
    down(sim, how, 10 * TIMEOUT)
    # What a call learns that tried for itself.
    seen = {"refuse": "upstream_disconnected", "reset": "upstream_disconnected", "503": "overloaded"}[how]

    def told(_: int) -> openai.APIStatusError:
        began = time.monotonic()
        with pytest.raises(openai.APIStatusError) as raised:
            of.chat.completions.create(model="m", messages=MESSAGES)
        assert time.monotonic() - began < TIMEOUT, "it hears of it before it gives up"
        return raised.value

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        early, late = list(pool.map(told, range(8))), list(pool.map(told, range(3)))
    for error in early + late:
        waited = error.code in ("queue_timeout", "deadline_unreachable") and FAILS in error.message
        assert error.code == seen or waited, error.message
    assert any(error.code == seen for error in early)
    assert any(FAILS in error.message for error in late), "by then at most one of them can try"
