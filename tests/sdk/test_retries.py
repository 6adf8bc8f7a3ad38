"""With retries: what passes by itself no client sees, and what does not pass it sees as the provider said it."""

import itertools

import openai
import pytest
from calls import CHAT
from compare import client
from processes import Gate
from wires import Ends, Wire

OPEN = """
[[upstreams]]
base_url = "http://127.0.0.1:1/v1"
[upstreams.limits]
requests_per_minute = 1_000_000
burst = 1_000_000
concurrency = 1_000
[retry]
attempts_max = 4
base = "5ms"
budget = 10.0
[breaker]
failures = 1_000_000
[cache]
mode = "off"
"""
NAMES = itertools.count()
PASSING = (408, 429, 500, 502, 503, 504, 529)


@pytest.fixture(scope="module")
def ends(provider, certificate, tmp_path_factory):
    gate = Gate(tmp_path_factory.mktemp("retries"), f"{provider.origins['http']}/v1", settings=OPEN)
    yield Ends(Wire(tls=False, http2=False), f"{provider.origins['http']}/v1", gate.base_url, certificate.authority)
    gate.stop()


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("status", PASSING)
def test_what_passes_is_not_seen(ends, status, stream):
    ask = CHAT | {"model": f"recovers {status} 2 {next(NAMES)}"}
    through = client(ends, ends.through).chat.completions.with_raw_response.create(**ask, stream=stream)
    assert through.headers["x-tidegate-attempts"] == "3"
    # By now the model has recovered.
    direct = client(ends, ends.direct).chat.completions.with_raw_response.create(**ask, stream=stream)
    assert through.http_response.read() == direct.http_response.read()


@pytest.mark.parametrize("status", PASSING)
def test_the_last_refusal_is_the_providers_own(ends, status):
    ask = CHAT | {"model": f"recovers {status} 4 {next(NAMES)}"}
    with pytest.raises(openai.APIStatusError) as error:
        client(ends, ends.through).chat.completions.create(**ask)
    refused = error.value
    assert (refused.status_code, refused.code) == (status, "rate_limit_exceeded")
    assert refused.body["message"] == "refused for the time 4 🌊"
    assert refused.response.headers["x-request-id"] == "req_0001"
    assert refused.response.headers["x-tidegate-attempts"] == "4"


@pytest.mark.parametrize("status", [400, 404, 429, 500])
def test_what_the_provider_calls_final_is_not_tried_again(ends, status):
    with pytest.raises(openai.APIStatusError) as error:
        client(ends, ends.through).chat.completions.create(**CHAT | {"model": f"status-{status}"})
    assert error.value.status_code == status
    assert error.value.response.headers["x-tidegate-attempts"] == "1"
