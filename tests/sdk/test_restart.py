"""What a client can say of its own streams: that they begin anew, or are told, or go on; and calls that are never repeated."""

import openai
import pytest
from broken import MESSAGES, ROUTES, Break, client, expected, settings
from processes import Gate
from test_breaks import node
from saying import TEXT, tokens

HEADER = "x-tidegate-mid-stream"
RESTART = {HEADER: "restart"}


@pytest.fixture(scope="module")
def gate_of(breaking, tmp_path_factory):
    made: dict[tuple, Gate] = {}

    def gate(*how: str, **more: str) -> Gate:
        key = (*how, *more.items())
        if key not in made:
            made[key] = Gate(tmp_path_factory.mktemp("gate"), breaking.base_url, settings=settings(*how, **more))
        return made[key]

    yield gate
    for running in made.values():
        running.stop()


def text_of_the_last_answer(chunks) -> tuple[list[str], str]:
    """As README tells clients to read a stream that may begin anew: another id is another answer."""
    ids, text = [], ""
    for chunk in chunks:
        if chunk.id not in ids:
            ids.append(chunk.id)
            text = ""
        if chunk.choices:
            text += chunk.choices[0].delta.content or ""
    return ids, text


@pytest.mark.parametrize("mid_stream", ["error", "continue", "restart"])
def test_a_stream_begins_anew_for_who_asks_for_that(gate_of, breaking, mid_stream):
    model = breaking.plan(Break("reset", 5), Break("end", 4, half=True))
    of = client(gate_of(mid_stream, "vllm").base_url)
    ids, text = text_of_the_last_answer(ROUTES["chat"].ask(of, model, extra_headers=RESTART))
    assert (ids, text) == (["chatcmpl-1", "chatcmpl-2", "chatcmpl-3"], TEXT)
    first, *others = breaking.asked[model]
    assert others == [first, first]


def test_the_same_in_node(gate_of, breaking):
    model = breaking.plan(Break("reset", 5), Break("end", 4, half=True))
    (said,) = node(gate_of().base_url, [{"route": "chat", "model": model, "headers": RESTART}])
    assert said == {"text": TEXT, "ids": ["chatcmpl-1", "chatcmpl-2", "chatcmpl-3"], "error": None}


def test_a_response_begins_anew(gate_of, breaking):
    """Its first event says so by itself."""
    model = breaking.plan(Break("reset", 6))
    events = list(ROUTES["responses"].ask(client(gate_of().base_url), model, extra_headers=RESTART))
    created = [event.response.id for event in events if event.type == "response.created"]
    assert created == ["resp_1", "resp_2"]
    assert events[-1].response.output_text == TEXT


def test_nobody_gets_a_second_beginning_who_did_not_ask(gate_of, breaking):
    model = breaking.plan(Break("reset", 5))
    with pytest.raises(openai.APIError) as raised:
        list(ROUTES["chat"].ask(client(gate_of("restart").base_url), model))
    expected(raised.value, "reset")
    assert len(breaking.asked[model]) == 1


def test_one_call_can_be_continued_and_another_told(gate_of, breaking):
    told, continued = breaking.plan(Break("reset", 5)), breaking.plan(Break("reset", 5))
    with pytest.raises(openai.APIError):
        list(ROUTES["chat"].ask(client(gate_of("continue", "vllm").base_url), told, extra_headers={HEADER: "error"}))
    of = client(gate_of("error", "vllm").base_url)
    chunks = ROUTES["chat"].ask(of, continued, extra_headers={HEADER: "continue"})
    assert text_of_the_last_answer(chunks) == (["chatcmpl-1"], TEXT)


@pytest.mark.parametrize("value", ["again", "", "restart, error", "RESTART"])
@pytest.mark.parametrize("stream", [False, True])
def test_a_word_that_means_nothing_is_refused(gate_of, breaking, value, stream):
    model = breaking.plan()
    with pytest.raises(openai.BadRequestError) as refused:
        client(gate_of().base_url).chat.completions.create(
            model=model, messages=MESSAGES, stream=stream, extra_headers={HEADER: value}
        )
    assert refused.value.code == "bad_request"
    assert HEADER in refused.value.message and "error, continue or restart" in refused.value.message
    assert not breaking.asked[model]


# A stream of an agent is not held back, since a second one would not be asked for; so its client sees its head.
LOST = [(False, Break("reset", None)), (False, Break("reset", 0)), (True, Break("reset", None))]


@pytest.mark.parametrize("http", ["1.1", "2"])
@pytest.mark.parametrize(("stream", "how"), LOST)
def test_a_call_to_an_agent_is_not_sent_again(gate_of, breaking, stream, how, http):
    """It may have run tools. Its client is told why nobody asked again, and what to set if that is wrong."""
    model = breaking.plan(how)
    of = client(gate_of(kind="agent", http=http).base_url)
    with pytest.raises(openai.InternalServerError) as raised:
        of.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
    assert (raised.value.status_code, raised.value.code) == (502, "upstream_disconnected")
    assert "retry.agents" in raised.value.message and "tools" in raised.value.message
    assert raised.value.response.headers["x-tidegate-attempts"] == "1"
    assert len(breaking.asked[model]) == 1


@pytest.mark.parametrize(("stream", "how"), LOST)
def test_no_sdk_repeats_a_lost_call_to_an_agent_by_itself(gate_of, breaking, stream, how):
    model = breaking.plan(how)
    of = client(gate_of(kind="agent").base_url).with_options(max_retries=2)
    with pytest.raises(openai.InternalServerError) as raised:
        of.chat.completions.create(model=model, messages=MESSAGES, stream=stream)
    assert raised.value.response.headers["x-should-retry"] == "false"
    assert "retry-after" not in raised.value.response.headers
    assert len(breaking.asked[model]) == 1


def test_a_call_to_an_agent_is_sent_again_where_that_is_right(breaking, tmp_path):
    more = settings(kind="agent").replace("[retry]", "[retry]\nagents = true")
    gate, model = Gate(tmp_path, breaking.base_url, settings=more), breaking.plan(Break("reset", None))
    answer = client(gate.base_url).chat.completions.create(model=model, messages=MESSAGES)
    assert answer.choices[0].message.content == TEXT
    assert len(breaking.asked[model]) == 2
    gate.stop()


def test_a_call_that_is_not_sent_again_by_the_settings_says_so(breaking, tmp_path):
    more = settings().replace("[retry]", "[retry]\non_disconnect = false")
    gate, model = Gate(tmp_path, breaking.base_url, settings=more), breaking.plan(Break("reset", None))
    with pytest.raises(openai.InternalServerError) as raised:
        client(gate.base_url).chat.completions.create(model=model, messages=MESSAGES)
    assert "retry.on_disconnect" in raised.value.message
    assert len(breaking.asked[model]) == 1
    gate.stop()


def test_a_stream_of_an_agent_is_not_continued(gate_of, breaking):
    model, words = breaking.plan(Break("reset", 5)), tokens(TEXT)
    came = []
    with pytest.raises(openai.APIError) as raised:
        for chunk in ROUTES["chat"].ask(client(gate_of("continue", "vllm", kind="agent").base_url), model):
            came.append(ROUTES["chat"].text(chunk))
    expected(raised.value, "reset")
    assert "".join(came) == "".join(words[:4])
    assert len(breaking.asked[model]) == 1
