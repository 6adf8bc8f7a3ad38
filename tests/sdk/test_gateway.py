"""The configuration that README shows for agents: one process before the gateway, and again before the provider."""

import concurrent.futures

import openai
import pytest
from breaking import Break
from broken import MESSAGES, client
from gateway import Gateway
from processes import Gate, Sim
from test_readme import TOML


def shown(gateway: str) -> str:
    """README's own file, with our gateway, and a rate that can be used up here."""
    (file,) = [text for text in TOML if 'kind = "agent"' in text]
    changed = file.replace("http://127.0.0.1:18790", gateway)
    changed = changed.replace("requests_per_minute = 40, concurrency = 5", 'requests_per_minute = 8, window = "4s", concurrency = 2')
    assert gateway in changed and 'window = "4s"' in changed
    return changed


@pytest.fixture
def sim(tmp_path):
    sim = Sim(tmp_path / "sim.log", "--rpm", "8", "--window", "4s", "--concurrency", "2", "--latency", "100ms")
    yield sim
    sim.stop()


def test_both_places_in_one_process(sim, tmp_path):
    gateway = Gateway()
    settings = shown(gateway.origin).replace("https://api.example.com/v1", sim.base_url)
    gate = Gate(tmp_path / "gate", None, settings=settings, PROVIDER_KEY="sk-provider")
    gateway.models = gate.base_url
    of = client(gate.base_url)

    def ask(number: int):
        return of.chat.completions.with_raw_response.create(
            model="openclaw/main", messages=MESSAGES, extra_headers={"x-openclaw-agent-id": f"agent-{number}"}
        )

    with concurrent.futures.ThreadPoolExecutor(6) as pool:
        answers = list(pool.map(ask, range(6)))
    direct = of.chat.completions.with_raw_response.create(model="m", messages=MESSAGES)
    gate.stop()
    assert {answer.headers["x-tidegate-upstream"] for answer in answers} == {"agents"}
    assert all(" / " in answer.parse().choices[0].message.content for answer in answers)
    assert direct.headers["x-tidegate-upstream"] == "provider"
    agents = {headers["x-openclaw-agent-id"] for headers in gateway.called}
    assert agents == {f"agent-{number}" for number in range(6)}
    stats = sim.stats()
    assert stats["requests"] == 13 and not any(stats["violations"].values())
    gateway.shutdown()


def test_an_agent_that_breaks_is_called_once_and_a_model_again(breaking, tmp_path):
    settings = shown(breaking.origin).replace("https://api.example.com/v1", breaking.base_url)
    settings = settings.replace('models = ["openclaw*"]', 'models = ["openclaw*"]\nhttp = "1.1"')
    gate = Gate(tmp_path, None, settings=settings, PROVIDER_KEY="sk-provider")
    agent, model = breaking.plan(Break("reset", None), kind="openclaw"), breaking.plan(Break("reset", None))
    with pytest.raises(openai.InternalServerError) as raised:
        client(gate.base_url).chat.completions.create(model=agent, messages=MESSAGES)
    assert "retry.agents" in raised.value.message
    assert client(gate.base_url).chat.completions.create(model=model, messages=MESSAGES).choices
    gate.stop()
    assert (len(breaking.asked[agent]), len(breaking.asked[model])) == (1, 2)
