"""A client of tidegate is one by its API key, as the official SDK sends it."""

import json
import urllib.request

import httpx
import openai
import pytest
from processes import Gate

QUESTION = {"model": "sim-1", "messages": [{"role": "user", "content": "Wann kommt die Ebbe?"}]}

CLIENTS = """
[[upstreams]]
base_url = "http://127.0.0.1:1/v1"
[[clients]]
name = "chat"
key = "tg-chat-key"
class_max = "high"
[[clients]]
name = "batch"
key = "tg-batch-key"
class = "low"
"""


@pytest.fixture(scope="module")
def guarded(tmp_path_factory, sim):
    gate = Gate(tmp_path_factory.mktemp("guarded"), sim.base_url, settings=CLIENTS)
    yield gate
    gate.stop()


def client(gate: Gate, key: str, **more) -> openai.OpenAI:
    return openai.OpenAI(base_url=gate.base_url, api_key=key, max_retries=0, timeout=60, **more)


@pytest.mark.parametrize("stream", [False, True])
def test_a_wrong_key_is_an_authentication_error(guarded, stream):
    with pytest.raises(openai.AuthenticationError) as error:
        client(guarded, "sk-wrong").chat.completions.create(**QUESTION, stream=stream)
    raised = error.value
    assert (raised.status_code, raised.code, raised.type) == (401, "invalid_api_key", "invalid_request_error")
    assert "clients.key" in raised.message and "sk-wrong" not in raised.message


def test_a_wrong_key_is_not_tried_again(guarded):
    sent = []
    with httpx.Client(event_hooks={"request": [sent.append]}) as http:
        with pytest.raises(openai.AuthenticationError):
            client(guarded, "sk-wrong", http_client=http).with_options(max_retries=3).models.list()
    assert len(sent) == 1


def test_the_right_key_is_all_it_takes(guarded):
    of = client(guarded, "tg-chat-key")
    assert of.chat.completions.create(**QUESTION).choices[0].message.content
    assert [chunk for chunk in of.chat.completions.create(**QUESTION, stream=True)]
    assert of.models.list().data


def test_the_key_ends_at_the_gate(guarded):
    """The simulated provider echoes all fields of a request that it does not know."""
    seen = client(guarded, "tg-chat-key", default_headers={"x-api-key": "tg-chat-key"}).post("/unheard/of", cast_to=object, body={})
    assert "tg-chat-key" not in json.dumps(seen)


def test_operators_see_clients_and_no_key(guarded):
    client(guarded, "tg-batch-key").models.list()
    with urllib.request.urlopen(f"{guarded.admin}/admin/v1/clients", timeout=10) as answer:
        text = answer.read().decode()
    known = {one["name"]: one for one in json.loads(text)["clients"] if one["configured"]}
    assert (known["chat"]["class_max"], known["batch"]["class"]) == ("high", "low")
    assert "tg-" not in text
