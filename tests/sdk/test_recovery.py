"""What README says of recovery, as clients and operators see it."""

import json
import re
import urllib.request

import openai
import pytest
from broken import HOWS, MESSAGES, ROUTES, Break, client, settings
from processes import Gate
from test_readme import README
from saying import TEXT, tokens


@pytest.fixture
def gate_with(breaking, tmp_path):
    made = []

    def gate(settings: str, **environment: str) -> Gate:
        made.append(Gate(tmp_path / f"gate-{len(made)}", None, settings=settings, **environment))
        return made[-1]

    yield gate
    for running in made:
        running.stop()


def before(breaking, **how: str) -> str:
    return settings(**how).replace("http://127.0.0.1:1/v1", breaking.base_url)


def test_the_event_that_tells_of_a_break_is_the_one_that_readme_shows(breaking, gate_with):
    gate = gate_with(before(breaking))
    body = json.dumps({"model": breaking.plan(Break("reset", 4)), "messages": MESSAGES, "stream": True}).encode()
    with urllib.request.urlopen(f"{gate.base_url}/chat/completions", body, timeout=30) as answer:
        *_, last = answer.read().decode().strip().split("\n\n")
    assert last in [line.strip() for line in README.splitlines()]


def test_what_broke_is_counted(breaking, gate_with):
    gate = gate_with(before(breaking, mid_stream="continue", continuation="vllm"))
    of = client(gate.base_url)
    of.chat.completions.create(model=breaking.plan(Break("reset", None)), messages=MESSAGES)
    list(ROUTES["chat"].ask(of, breaking.plan(Break("reset", 4))))
    with pytest.raises(openai.APIError):
        list(ROUTES["responses"].ask(of, breaking.plan(Break("reset", 6))))
    gate.await_metrics(
        {
            'tidegate_recoveries_total{how="retry",result="ok"}': 1,
            'tidegate_recoveries_total{how="continue",result="ok"}': 1,
            'tidegate_recoveries_total{how="continue",result="failed"}': 1,
            'tidegate_disconnects_total{phase="before_head",upstream="default"}': 1,
            'tidegate_disconnects_total{phase="mid_stream",upstream="default"}': 2,
            "tidegate_duplicates_sent_total": 1,
        }
    )
    with urllib.request.urlopen(f"{gate.admin}/admin/v1/upstreams", timeout=10) as answer:
        (upstream,) = json.load(answer)["upstreams"]
    for field in ("breaker", "disconnects", "limit_signals_total"):
        assert f"`{field}`" in README and field in upstream
    for field in ("closed_for_ms", "cooling_for_ms", "at_a_time"):
        assert f"`{field}`" in README and field in upstream["keys"][0]
    for field in re.search(r"its `breaker` \((.*?)\)", README)[1].replace("`", "").replace(" in a row", "").split(", "):
        assert field in upstream["breaker"]


@pytest.mark.parametrize("how", HOWS)
def test_what_is_held_back_breaks_unnoticed(breaking, gate_with, how):
    held = before(breaking).replace("[recovery]", '[recovery]\nholdback = "16 tokens"')
    model = breaking.plan(Break(how, 10))
    chunks = list(ROUTES["chat"].ask(client(gate_with(held).base_url), model))
    assert {chunk.id for chunk in chunks} == {"chatcmpl-2"}
    assert "".join(map(ROUTES["chat"].text, chunks)) == TEXT and len(tokens(TEXT)) > 16


UPSTREAM = """
[[upstreams]]
name = "{name}"
base_url = "{base_url}"
refusal_statuses = [429]
limits = {{ requests_per_minute = 6_000, burst = 100, concurrency = 10 }}
"""


@pytest.mark.parametrize("stream", [False, True])
def test_where_one_upstream_is_lost_the_next_answers(breaking, gate_with, stream):
    both = UPSTREAM.format(name="gone", base_url="http://127.0.0.1:1/v1")
    both += UPSTREAM.format(name="there", base_url=breaking.base_url)
    of = client(gate_with(both + '[cache]\nmode = "off"\n').base_url)
    for _ in range(3):
        raw = of.chat.completions.with_raw_response.create(model=breaking.plan(), messages=MESSAGES, stream=stream)
        assert raw.headers["x-tidegate-upstream"] == "there"


def test_a_key_that_the_provider_does_not_know_is_passed_over(breaking, gate_with):
    keys = UPSTREAM.format(name="main", base_url=breaking.base_url).replace(
        "refusal_statuses", 'api_keys = ["sk-revoked", "sk-good"]\nrefusal_statuses'
    )
    of = client(gate_with(keys + '[cache]\nmode = "off"\n').base_url)
    for _ in range(4):
        assert of.chat.completions.create(model=breaking.plan(), messages=MESSAGES).choices
    assert breaking.unknown_keys >= 1


def test_who_calls_a_provider_that_is_not_there_is_told_which_setting_to_look_at(gate_with):
    nowhere = UPSTREAM.format(name="main", base_url="http://127.0.0.1:1/v1") + '[retry]\nattempts_max = 2\nbase = "5ms"\n'
    with pytest.raises(openai.InternalServerError) as told:
        client(gate_with(nowhere).base_url).chat.completions.create(model="m", messages=MESSAGES)
    assert (told.value.status_code, told.value.code) == (503, "upstream_unavailable")
