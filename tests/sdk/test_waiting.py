"""What the official clients make of a long queue: who can be kept company waits as long as it takes, who cannot is told."""

import concurrent.futures
import contextlib
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import openai
import pytest
from calls import CHAT
from processes import HERE, Gate
from refuser import Refuser

NODE = pathlib.Path(sys.executable).parent / "node"
# As SDKs know it: of each read, in seconds.
TIMEOUT = 2.0


def settings(requests: int, window: str) -> str:
    """One permit at a time: who comes second waits for the window, or for its pace."""
    return f"""
[[upstreams]]
base_url = "http://127.0.0.1:1/v1"
[upstreams.limits]
requests_per_minute = {requests}
window = "{window}"
window_margin = "250ms"
burst = 1
[cache]
mode = "off"
"""


@pytest.fixture
def slow(sim, tmp_path):
    """One request in eight seconds: four times as long as a client listens to silence."""
    gate = Gate(tmp_path, sim.base_url, settings=settings(1, "8s"))
    yield gate
    gate.stop()


def client(base_url: str, timeout: float = TIMEOUT, *, http2: bool = False) -> openai.OpenAI:
    carrier = openai.DefaultHttpxClient(http1=not http2, http2=http2)
    return openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0, timeout=timeout, http_client=carrier)


def use_up(gate: Gate) -> None:
    """The next call has to wait."""
    with contextlib.suppress(openai.APIStatusError):
        client(gate.base_url, 60).chat.completions.create(**CHAT)


@pytest.mark.parametrize("http2", [False, True])
def test_a_stream_outlives_the_time_out_of_its_client(slow, http2):
    of = client(slow.base_url, http2=http2)
    use_up(slow)
    began = time.monotonic()
    with of.chat.completions.create(**CHAT, stream=True) as stream:
        assert time.monotonic() - began < TIMEOUT, "the head comes early"
        assert "text/event-stream" in stream.response.headers["content-type"]
        assert stream.response.headers["x-tidegate-request-id"]
        chunks = list(stream)
    assert time.monotonic() - began > 2 * TIMEOUT, "it did not have to wait"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert chunks[-1].choices == [] or chunks[-1].choices[0].finish_reason == "stop"


def test_the_same_in_node(slow):
    if not NODE.exists() or not (HERE / "node_modules" / "openai").exists():
        pytest.skip("the client for Node is not installed")
    use_up(slow)
    began = time.monotonic()
    done = subprocess.run(
        [NODE, HERE / "node" / "waiting.mjs", slow.base_url, str(int(TIMEOUT * 1000))],
        env=os.environ | {"NODE_NO_WARNINGS": "1"},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    assert json.loads(done.stdout)["content"]
    assert time.monotonic() - began > 2 * TIMEOUT, "it did not have to wait"


def test_the_providers_refusal_arrives_as_an_error_that_says_so(tmp_path):
    refuser = Refuser()
    gate = Gate(tmp_path, f"{refuser.origin}/401/v1", settings=settings(1, "8s"))
    of = client(gate.base_url)
    use_up(gate)
    began = time.monotonic()
    with of.chat.completions.create(**CHAT, stream=True) as stream:
        assert stream.response.status_code == 200
        with pytest.raises(openai.APIError) as refused:
            list(stream)
    assert time.monotonic() - began > 2 * TIMEOUT, "it did not have to wait"
    assert refused.value.message == "refused with 401"
    assert refused.value.type == "invalid_request_error"
    assert refused.value.body["status"] == 401
    assert refuser.seen[401] == 2
    gate.stop()


@pytest.fixture
def long_queue(sim, tmp_path):
    """Two a minute, and three streams that wait already: a minute and more."""
    gate = Gate(tmp_path, sim.base_url, settings=settings(2, "60s"))
    use_up(gate)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        stop, streams = threading.Event(), []

        def wait_in_line() -> None:
            with client(gate.base_url, 3).chat.completions.create(**CHAT, stream=True) as stream:
                streams.append(stream)  # its head has come: it waits
                stop.wait(60)

        waiting = [pool.submit(wait_in_line) for _ in range(3)]
        deadline = time.monotonic() + 30
        while len(streams) < 3 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(streams) == 3
        yield gate
        stop.set()
        for done in waiting:
            done.result()
    gate.stop()


def test_who_cannot_be_kept_company_is_told_at_once(long_queue):
    with pytest.raises(openai.RateLimitError) as refused:
        client(long_queue.base_url, 5).chat.completions.create(**CHAT)
    assert refused.value.code == "deadline_unreachable", refused.value.message
    assert "x-stainless-read-timeout" in refused.value.message
    assert "stream" in refused.value.message
    told = refused.value.response.headers
    assert int(told["x-tidegate-queue-ms"]) < 1_000
    assert 1 <= int(told["retry-after"]) <= 60
    assert 1_000 <= int(told["retry-after-ms"]) <= 60_000


def test_who_is_told_too_late_is_told_before_it_gives_up(slow):
    """Without a queue that could be foreseen: another call, whose end nobody knows, has the only turn."""
    of = client(slow.base_url, 2 * TIMEOUT)
    use_up(slow)
    began = time.monotonic()
    with pytest.raises(openai.RateLimitError) as refused:
        of.chat.completions.create(**CHAT)
    assert time.monotonic() - began < 2 * TIMEOUT
    assert refused.value.code in ("queue_timeout", "deadline_unreachable")
    assert "x-stainless-read-timeout" in refused.value.message
