"""What the models of `breaking` say: the beginning where there is none yet, else what is left of it.

Each request gets an id of its own, as of a real provider, and tokens are counted as if each word were one.
"""

import json
import re

TEXT = "Die Flut kommt um 14:07 Uhr. 🌊 潮汐が来る, naïve “Gezeiten” 👩‍🚀\n\n\\u0041 \"ende\" — und dann ebbt es wieder."
REASONING = "Erst denken: der Mond 🌖 zieht am Wasser, also zweimal am Tag."
# Words begin with their blank, as tokens do.
TOKEN = re.compile(r"\s*\S+")
PROMPT_TOKENS = 12
DONE = b"data: [DONE]\n\n"


def tokens(text: str) -> list[str]:
    return TOKEN.findall(text)


def said(path: str, ask: dict, time: int) -> list[bytes]:
    """The answer to `ask`, which is the request number `time` of its model: event by event, or whole."""
    saying = SAYS[path](ask, time)
    if not ask.get("stream"):
        return [json.dumps(saying.whole(), ensure_ascii=False).encode()]
    return [event if isinstance(event, bytes) else framed(event, saying.named) for event in saying.events()]


def framed(event: dict, named: bool) -> bytes:
    name = f"event: {event['type']}\n" if named else ""
    return f"{name}data: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


class Chat:
    named = False

    def __init__(self, ask: dict, time: int):
        self.ask, self.time = ask, time
        *_, last = ask["messages"]
        partial = last if last["role"] == "assistant" and (ask.get("continue_final_message") or last.get("prefix")) else {}
        self.reasons = ask["model"].startswith("reasons")
        self.reasoning = tokens(REASONING) if self.reasons else []
        self.content = tokens(TEXT)
        self.prompt = PROMPT_TOKENS
        # Reasoning is continued by those who take it, and skipped once there is content.
        if partial:
            kept = partial.get("reasoning_content", "")
            self.reasoning = [] if partial["content"] else left(self.reasoning, kept)
            self.content = left(self.content, partial["content"])
            self.prompt += len(tokens(kept)) + len(tokens(partial["content"]))
        self.made = len(self.reasoning) + len(self.content)
        if "tools" in ask:
            self.content = []
        # Mistral repeats what it continues.
        self.echoes = ask["model"].startswith("echoes") and partial.get("content")

    @property
    def usage(self) -> dict:
        return {"prompt_tokens": self.prompt, "completion_tokens": self.made, "total_tokens": self.prompt + self.made}

    def head(self, kind: str) -> dict:
        common = {"id": f"chatcmpl-{self.time}", "object": kind, "created": 1_700_000_000 + self.time}
        return common | {"model": self.ask["model"], "system_fingerprint": f"fp_{self.time}"}

    def whole(self) -> dict:
        message = {"role": "assistant", "content": "".join(self.content)}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}
        return self.head("chat.completion") | {"choices": [choice], "usage": self.usage}

    def events(self) -> list:
        def chunk(delta: dict, ended: str | None = None) -> dict:
            choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": ended}
            return self.head("chat.completion.chunk") | {"choices": [choice]}

        events = [chunk({"role": "assistant", "content": ""})]
        events += [chunk({"reasoning_content": token}) for token in self.reasoning]
        if self.echoes:
            events.append(chunk({"content": self.echoes}))
        events += [chunk({"content": token}) for token in self.content]
        if "tools" in self.ask:
            started = {"index": 0, "id": f"call_{self.time}", "type": "function"}
            events.append(chunk({"tool_calls": [started | {"function": {"name": "tide_at", "arguments": ""}}]}))
            events += [
                chunk({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]})
                for piece in ('{"pl', 'ace": "Cux', 'haven 🌊"}')
            ]
        events.append(chunk({}, "tool_calls" if "tools" in self.ask else "stop"))
        if (self.ask.get("stream_options") or {}).get("include_usage"):
            events.append(self.head("chat.completion.chunk") | {"choices": [], "usage": self.usage})
        return [*events, DONE]


class Completion:
    named = False

    def __init__(self, ask: dict, time: int):
        self.ask, self.time = ask, time
        begun, _, kept = ask["prompt"].partition("und")
        self.content = left(tokens(TEXT), kept)
        self.usage = {"prompt_tokens": PROMPT_TOKENS + len(tokens(kept)), "completion_tokens": len(self.content)}
        self.usage["total_tokens"] = sum(self.usage.values())

    def part(self, text: str, ended: str | None) -> dict:
        common = {"id": f"cmpl-{self.time}", "object": "text_completion", "created": 1_700_000_000 + self.time}
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": ended}
        return common | {"model": self.ask["model"], "choices": [choice]}

    def whole(self) -> dict:
        return self.part("".join(self.content), "stop") | {"usage": self.usage}

    def events(self) -> list:
        events = [*(self.part(token, None) for token in self.content), self.part("", "stop")]
        if (self.ask.get("stream_options") or {}).get("include_usage"):
            events.append(self.part("", None) | {"choices": [], "usage": self.usage})
        return [*events, DONE]


class Response:
    named = True

    def __init__(self, ask: dict, time: int):
        self.ask, self.time = ask, time

    def response(self, status: str) -> dict:
        part = {"type": "output_text", "text": TEXT, "annotations": [], "logprobs": []}
        message = {"id": "msg_1", "type": "message", "status": status, "role": "assistant", "content": [part]}
        common = {"id": f"resp_{self.time}", "object": "response", "created_at": 1_700_000_000 + self.time}
        common |= {"model": self.ask["model"], "parallel_tool_calls": True, "tool_choice": "auto", "tools": []}
        return common | {"status": status, "output": [message] if status == "completed" else []}

    def whole(self) -> dict:
        return self.response("completed")

    def events(self) -> list:
        place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
        item = {"id": "msg_1", "type": "message", "status": "in_progress", "role": "assistant", "content": []}
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        events = [{"type": f"response.{name}", "response": self.response("in_progress")} for name in ("created", "in_progress")]
        events.append({"type": "response.output_item.added", "output_index": 0, "item": item})
        events.append({"type": "response.content_part.added", **place, "part": part})
        events += [
            {"type": "response.output_text.delta", **place, "delta": token, "logprobs": []} for token in tokens(TEXT)
        ]
        events.append({"type": "response.output_text.done", **place, "text": TEXT, "logprobs": []})
        events.append({"type": "response.completed", "response": self.response("completed")})
        return [event | {"sequence_number": number} for number, event in enumerate(events)]


SAYS = {"/v1/chat/completions": Chat, "/v1/completions": Completion, "/v1/responses": Response}


def left(all_of: list[str], kept: str) -> list[str]:
    """What is left to say after `kept`, which is the beginning of it, but for white space."""
    whole = "".join(all_of)
    if not whole.startswith(kept):
        raise ValueError(f"{kept!r} is not how the answer begins")
    return tokens(whole[len(kept) :])
