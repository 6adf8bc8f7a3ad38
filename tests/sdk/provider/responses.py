"""The responses API: one answer, plain or as named events."""

from .generation import ARGUMENTS, CREATED, STRUCTURED, TEXT, WORDS, refusal
from .wire import Answer, Request, of_events, of_json

ID = "resp_0001"
USAGE = {
    "input_tokens": 12,
    "input_tokens_details": {"cached_tokens": 3},
    "output_tokens": 34,
    "output_tokens_details": {"reasoning_tokens": 5},
    "total_tokens": 46,
}


def create(request: Request) -> Answer:
    ask = request.json()
    if refused := refusal(request):
        return refused
    return of_events(events(ask), named=True) if ask.get("stream") else of_json(response(ask, "completed"))


def retrieve(_request: Request) -> Answer:
    return of_json(response({"model": "tide-1"}, "completed"))


def delete(_request: Request) -> Answer:
    return of_json({"id": ID, "object": "response", "deleted": True})


def response(ask: dict, status: str) -> dict:
    done = status == "completed"
    return {
        "id": ID,
        "object": "response",
        "created_at": CREATED,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "metadata": {},
        "model": ask["model"],
        "output": output(ask) if done else [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": ask.get("tools", []),
        "usage": USAGE if done else None,
    }


def output(ask: dict) -> list[dict]:
    if ask.get("tools"):
        return [function_call(ARGUMENTS, "completed")]
    return [message(STRUCTURED if ask.get("text") else TEXT, "completed")]


def message(text: str, status: str) -> dict:
    content = [{"type": "output_text", "text": text, "annotations": [], "logprobs": []}] if text else []
    return {"id": "msg_1", "type": "message", "role": "assistant", "status": status, "content": content}


def function_call(arguments: str, status: str) -> dict:
    common = {"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "tide_at"}
    return common | {"arguments": arguments, "status": status}


def events(ask: dict) -> list[dict]:
    where = {"output_index": 0, "item_id": "fc_1" if ask.get("tools") else "msg_1"}
    middle = call_events(where) if ask.get("tools") else text_events(where)
    told = [
        {"type": "response.created", "response": response(ask, "in_progress")},
        {"type": "response.in_progress", "response": response(ask, "in_progress")},
        *middle,
        {"type": "response.output_item.done", "output_index": 0, "item": output(ask)[0]},
        {"type": "response.completed", "response": response(ask, "completed")},
    ]
    return [event | {"sequence_number": number} for number, event in enumerate(told)]


def text_events(where: dict) -> list[dict]:
    part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
    place = where | {"content_index": 0}
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": message("", "in_progress")},
        {"type": "response.content_part.added", "part": part} | place,
        *({"type": "response.output_text.delta", "delta": word, "logprobs": []} | place for word in WORDS),
        {"type": "response.output_text.done", "text": TEXT, "logprobs": []} | place,
        {"type": "response.content_part.done", "part": part | {"text": TEXT}} | place,
    ]


def call_events(where: dict) -> list[dict]:
    kind = "response.function_call_arguments"
    pieces = [ARGUMENTS[start : start + 7] for start in range(0, len(ARGUMENTS), 7)]
    return [
        {"type": "response.output_item.added", "output_index": 0, "item": function_call("", "in_progress")},
        *({"type": f"{kind}.delta", "delta": piece} | where for piece in pieces),
        {"type": f"{kind}.done", "arguments": ARGUMENTS, "name": "tide_at"} | where,
    ]
