"""A chat page in a browser: it learns of a broken stream, survives the wait, and shows a continued one whole.

The page comes through tidegate too, by a path outside of /v1, so page and API have one origin.
"""

import concurrent.futures
import http.client
import json
import pathlib
import time

import pytest
from broken import HOWS, MESSAGES, Break, client, settings
from browser import Browser
from processes import HERE, Gate
from saying import REASONING, TEXT, tokens

PATIENCE = 120
# On a busy machine a browser may never get to its page; then another one is asked.
BROWSERS = 3
START_TIMEOUT = 60
PAGE = (HERE / "page.html").read_bytes()
WORDS = tokens(TEXT)


@pytest.fixture(scope="module")
def gates(breaking, tmp_path_factory):
    breaking.pages["/chat"] = PAGE
    styles = {"error": settings(), "continue": settings("continue", "prefix")}
    made = {
        name: Gate(tmp_path_factory.mktemp(name), breaking.base_url, settings=style) for name, style in styles.items()
    }
    yield made
    for gate in made.values():
        gate.stop()


def shown(gate: Gate, breaking, directory: pathlib.Path, model: str, how: str = "fetch") -> dict:
    """What the page shows in the end."""
    page = f"/chat?model={model}&how={how}"
    for number in range(BROWSERS):
        browser = Browser(directory / f"browser-{number}", gate.base_url.removesuffix("/v1") + page)
        try:
            if breaking.was_fetched(page, START_TIMEOUT):
                return json.loads(breaking.heard(f"/told/{model}", PATIENCE))
        except AssertionError as silent:
            raise AssertionError(f"{silent}; the browser said:\n{browser.said}") from silent
        finally:
            browser.stop()
    return pytest.fail(f"no browser came for its page; the last one said:\n{browser.said}")


@pytest.mark.parametrize("how", HOWS)
def test_the_page_learns_that_its_stream_broke(gates, breaking, tmp_path, how):
    page = shown(gates["error"], breaking, tmp_path, breaking.plan(Break(how, 5, half=True)))
    code, status = ("upstream_timeout", 504) if how == "stall" else ("upstream_disconnected", 502)
    assert page["error"] and (page["error"]["code"], page["error"]["status"]) == (code, status)
    assert (page["status"], page["text"]) == (200, "".join(WORDS[:4]))
    assert (page["finish"], page["done"]) == (None, False)


def test_the_browsers_own_reader_of_events_learns_it_too(gates, breaking, tmp_path):
    """By GET, on a path that is none of the API's."""
    page = shown(gates["error"], breaking, tmp_path, breaking.plan(Break("reset", 5, half=True)), how="events")
    assert (page["text"], page["error"]["code"]) == ("".join(WORDS[:4]), "upstream_disconnected")
    whole = shown(gates["error"], breaking, tmp_path / "whole", breaking.plan(), how="events")
    assert (whole["text"], whole["done"], whole["error"]) == (TEXT, True, None)


def test_the_page_shows_the_whole_of_a_continued_stream(gates, breaking, tmp_path):
    model = breaking.plan(Break("reset", 6), Break("end", 9, half=True), Break("stall", 4), kind="reasons")
    page = shown(gates["continue"], breaking, tmp_path, model)
    assert (page["text"], page["reasoning"]) == (TEXT, REASONING)
    assert (page["finish"], page["done"], page["error"]) == ("stop", True, None)
    assert page["ids"] == ["chatcmpl-1"]
    assert len(breaking.asked[model]) == 4


def test_the_page_survives_the_comments_while_it_waits(breaking, tmp_path):
    breaking.pages["/chat"] = PAGE
    slow = settings("continue", "vllm").replace("[retry]", '[admission]\nkeepalive_after = "1s"\n[retry]')
    slow = slow.replace("concurrency = 1_000", "concurrency = 1")
    slow = slow.replace("[upstreams.limits]", 'exempt = ["GET /chat"]\n[upstreams.limits]')
    gate = Gate(tmp_path / "gate", breaking.base_url, settings=slow)
    # Somebody has the only slot, until the page has waited for a while: that takes a browser as long as it takes to start.
    holder = http.client.HTTPConnection(gate.base_url.split("/")[2])
    never = breaking.plan(Break("stall", 0))
    fields = {"content-type": "application/json", "authorization": "Bearer sk-test"}
    holder.request("POST", "/v1/chat/completions", json.dumps({"model": never, "messages": MESSAGES}), fields)
    gate.eventually(lambda: breaking.asked[never], bool)
    with concurrent.futures.ThreadPoolExecutor() as pool:
        showing = pool.submit(shown, gate, breaking, tmp_path, breaking.plan())
        in_line = 'tidegate_queue_depth{priority="normal"}'
        gate.eventually(lambda: gate.metrics()[in_line], lambda calls: calls == 1, BROWSERS * START_TIMEOUT)
        time.sleep(3.5)
        holder.close()
        page = showing.result()
    gate.stop()
    assert page["comments"] >= 2
    assert (page["text"], page["done"], page["error"]) == (TEXT, True, None)
