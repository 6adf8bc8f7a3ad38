"""What a model says: chat, completions, responses, embeddings. The name of the model decides what happens."""

import base64
import collections
import json
import struct

from .wire import SIGNALS, Answer, Request, error, gzipped, of_events, of_json

TEXT = 'Die Flut kommt um 14:07 Uhr. 🌊🌊 潮汐が来る。 naïve “Gezeiten” 👩‍🚀 \u2028 \\u0041 "ende"'
WORDS = [TEXT[start : start + 5] for start in range(0, len(TEXT), 5)]
USAGE = {
    "prompt_tokens": 12,
    "completion_tokens": 34,
    "total_tokens": 46,
    "completion_tokens_details": {"reasoning_tokens": 5},
}
CREATED = 1_700_000_000
ARGUMENTS = json.dumps({"place": "Cuxhaven 🌊", "when": {"day": 3}}, ensure_ascii=False)
STRUCTURED = json.dumps({"place": "Büsum", "metres": 3.25}, ensure_ascii=False)
ASKED: collections.Counter[str] = collections.Counter()
DONE = "data: [DONE]\n\n"


def refusal(request: Request) -> Answer | None:
    """A model called `status-N` answers with that status, `html-N` with a page, `empty-N` with nothing.

    One called `recovers N TIMES NAME` does so a number of times.
    """
    model = request.json().get("model", "")
    if model.startswith("recovers "):
        _, status, times, _ = model.split(" ")
        ASKED[model] += 1
        return passing(int(status), ASKED[model]) if ASKED[model] <= int(times) else None
    kind, _, status = model.partition("-")
    if not status.isdigit():
        return None
    status = int(status)
    match kind:
        case "html":
            return Answer(b"<html>\xc3\xbc ber</html>", status, [("content-type", "text/html")])
        case "empty":
            return Answer(b"", status)
        case "status" if status == 404:
            return error(404, "The model `status-404` does not exist", code="model_not_found", hint={"ü": [1.0, 1e300]})
        case "status":
            headers = [("x-should-retry", "false"), ("www-authenticate", "Bearer")]
            return error(
                status, f"refused with {status}: ünïcode 🌊", headers, param="messages.0", code=f"code_{status}"
            )
    return None


def passing(status: int, time: int) -> Answer:
    """A refusal that says itself that it will pass."""
    return error(status, f"refused for the time {time} 🌊", [("retry-after-ms", "5")], code="rate_limit_exceeded")


def chat(request: Request) -> Answer:
    ask = request.json()
    if refused := refusal(request):
        return refused
    if not ask.get("messages"):
        return error(400, "[] is too short - 'messages'", param="messages")
    answer = of_events(chat_events(ask)) if ask.get("stream") else of_json(chat_object(ask))
    if ask["model"].startswith("tide-waits "):
        return waiting(answer, ask["model"].removeprefix("tide-waits "))
    return gzipped(answer) if ask["model"] == "tide-gzip" else answer


def waiting(answer: Answer, name: str) -> Answer:
    """Goes on after its first two events when it is told to."""
    first, second, rest = b"".join(answer.body).split(b"}\n\n", 2)
    answer.body = [first + b"}\n\n", second + b"}\n\n", SIGNALS[f"go {name}"], rest]
    return answer


def asks_for_tool(ask: dict) -> bool:
    return bool(ask.get("tools")) and ask["messages"][-1]["role"] != "tool"


def call(index: int) -> dict:
    return {"id": f"call_{index}", "type": "function", "function": {"name": "tide_at", "arguments": ARGUMENTS}}


def chat_object(ask: dict) -> dict:
    message = {"role": "assistant", "content": TEXT, "refusal": None, "annotations": []}
    if asks_for_tool(ask):
        message |= {"content": None, "tool_calls": [call(0), call(1)]}
    elif "response_format" in ask:
        message |= {"content": STRUCTURED}
    if ask["model"] == "tide-reason":
        message |= {"reasoning_content": "erst denken 🤔"}
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish(ask)}
    return head(ask, "chat.completion") | {"choices": [choice], "usage": USAGE, "unheard_of": {"ü": 1e300}}


def head(ask: dict, kind: str) -> dict:
    common = {"id": "chatcmpl-0001", "object": kind, "created": CREATED, "model": ask["model"]}
    return common | {"system_fingerprint": "fp_1", "service_tier": "default"}


def finish(ask: dict) -> str:
    return "tool_calls" if asks_for_tool(ask) else "stop"


def chat_events(ask: dict) -> list:
    def chunk(delta: dict, ended: str | None = None) -> dict:
        return head(ask, "chat.completion.chunk") | {
            "choices": [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}],
            "obfuscation": "x" * 7,
        }

    events = [": a comment that means nothing\n\n", chunk({"role": "assistant", "content": ""})]
    if ask["model"] == "tide-reason":
        events += [chunk({"reasoning_content": word}) for word in ("erst ", "denken ", "🤔")]
    if asks_for_tool(ask):
        for index in range(2):
            started = call(index) | {"index": index}
            started["function"] = {"name": "tide_at", "arguments": ""}
            events.append(chunk({"tool_calls": [started]}))
            for start in range(0, len(ARGUMENTS), 7):
                piece = {"index": index, "function": {"arguments": ARGUMENTS[start : start + 7]}}
                events.append(chunk({"tool_calls": [piece]}))
    elif "response_format" in ask:
        events += [chunk({"content": STRUCTURED[start : start + 6]}) for start in range(0, len(STRUCTURED), 6)]
    else:
        events += [chunk({"content": word}) for word in WORDS]
    if ask["model"] == "tide-breaks":
        said = {"message": "the model fell over 🌊", "type": "server_error", "param": None, "code": "fell_over"}
        return [*events, {"error": said}, DONE]
    events.append(chunk({}, finish(ask)))
    if (ask.get("stream_options") or {}).get("include_usage"):
        events.append(head(ask, "chat.completion.chunk") | {"choices": [], "usage": USAGE})
    return events if ask["model"] == "tide-undone" else [*events, DONE]


def completions(request: Request) -> Answer:
    ask = request.json()
    if refused := refusal(request):
        return refused

    def part(text: str, ended: str | None) -> dict:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": ended}
        return head(ask, "text_completion") | {"choices": [choice]}

    if ask.get("stream"):
        return of_events([*(part(word, None) for word in WORDS), part("", "length"), DONE])
    return of_json(part(TEXT, "length") | {"usage": USAGE})


def embeddings(request: Request) -> Answer:
    ask = request.json()
    if refused := refusal(request):
        return refused
    asked = ask["input"] if isinstance(ask["input"], list) else [ask["input"]]
    vectors = [[(index + 1) / (place + 3) for place in range(64)] for index in range(len(asked))]
    if ask.get("encoding_format") == "base64":
        vectors = [base64.b64encode(struct.pack("<64f", *vector)).decode() for vector in vectors]
    data = [{"object": "embedding", "index": index, "embedding": vector} for index, vector in enumerate(vectors)]
    usage = {"prompt_tokens": 8, "total_tokens": 8}
    return of_json({"object": "list", "data": data, "model": ask["model"], "usage": usage})
