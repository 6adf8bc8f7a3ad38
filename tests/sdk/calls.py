"""What people ask with the official Python client, by name; every call works with the plain and the async one."""

import io
import random

import httpx2
import pydantic

MESSAGES = [{"role": "system", "content": "kurz \u2028"}, {"role": "user", "content": "Wann kommt die Flut? 🌊"}]
CHAT = {"model": "tide-1", "messages": MESSAGES}
TOOL = {
    "name": "tide_at",
    "description": "wann 🌊",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}, "required": ["place"]},
}
TOOLS = [{"type": "function", "function": TOOL}]
TOOL_CALL = {"id": "call_0", "type": "function", "function": {"name": "tide_at", "arguments": "{}"}}
TOLD = [
    *MESSAGES,
    {"role": "assistant", "tool_calls": [TOOL_CALL]},
    {"role": "tool", "tool_call_id": "call_0", "content": "14:07"},
]
PICTURE = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}


class Tide(pydantic.BaseModel):
    place: str
    metres: float


SCHEMA = {"name": "tide", "schema": Tide.model_json_schema()}
LINES = b'{"custom_id": "1", "body": {"\xc3\xbc": 1}}\n' * 40
AUDIO = random.Random(3).randbytes(150_001)


def file(content: bytes, name: str) -> tuple[str, io.BytesIO]:
    return name, io.BytesIO(content)


GENERATION = {
    "chat": lambda c: c.chat.completions.create(**CHAT),
    "chat, unknown fields": lambda c: c.chat.completions.create(
        **CHAT, seed=2**63 - 1, extra_body={"unheard_of": {"ü": [1.0, 1e300, None]}}, extra_query={"a b": "ü&="}
    ),
    "chat, unknown headers": lambda c: c.chat.completions.create(
        **CHAT, extra_headers={"X-Odd": "a  b", "OpenAI-Beta": "x=1", "Authorization": "Bearer other", "X-Empty": ""}
    ),
    "chat, compressed": lambda c: c.chat.completions.create(**CHAT | {"model": "tide-gzip"}),
    "chat, reasoning": lambda c: c.chat.completions.create(**CHAT | {"model": "tide-reason"}),
    "chat, picture": lambda c: c.chat.completions.create(
        model="tide-1", messages=[{"role": "user", "content": [PICTURE]}]
    ),
    "chat, tools": lambda c: c.chat.completions.create(**CHAT, tools=TOOLS, tool_choice="auto"),
    "chat, tool told": lambda c: c.chat.completions.create(model="tide-1", messages=TOLD, tools=TOOLS),
    "chat, structured": lambda c: c.chat.completions.create(
        **CHAT, response_format={"type": "json_schema", "json_schema": SCHEMA}
    ),
    "chat, parsed": lambda c: c.chat.completions.parse(**CHAT, response_format=Tide),
    "chat, half a megabyte": lambda c: c.chat.completions.create(
        model="tide-1", messages=[{"role": "user", "content": "🌊" * 131_072}]
    ),
    "stream": lambda c: c.chat.completions.create(**CHAT, stream=True),
    "stream, usage": lambda c: c.chat.completions.create(**CHAT, stream=True, stream_options={"include_usage": True}),
    "stream, tools": lambda c: c.chat.completions.create(**CHAT, stream=True, tools=TOOLS),
    "stream, reasoning": lambda c: c.chat.completions.create(**CHAT | {"model": "tide-reason"}, stream=True),
    "stream, structured": lambda c: c.chat.completions.create(
        **CHAT, stream=True, response_format={"type": "json_schema", "json_schema": SCHEMA}
    ),
    "stream, compressed": lambda c: c.chat.completions.create(**CHAT | {"model": "tide-gzip"}, stream=True),
    "stream, error in it": lambda c: c.chat.completions.create(**CHAT | {"model": "tide-breaks"}, stream=True),
    "completions": lambda c: c.completions.create(model="tide-1", prompt="Ebbe und"),
    "completions, stream": lambda c: c.completions.create(model="tide-1", prompt="Ebbe und", stream=True),
    "embeddings": lambda c: c.embeddings.create(model="tide-1", input=["tide", "gate 🌊"]),
    "embeddings, floats": lambda c: c.embeddings.create(model="tide-1", input="tide", encoding_format="float"),
    "embeddings, base64": lambda c: c.embeddings.create(model="tide-1", input=["tide"], encoding_format="base64"),
    "embeddings, tokens": lambda c: c.embeddings.create(model="tide-1", input=[[1, 2], [3]]),
    "responses": lambda c: c.responses.create(model="tide-1", input="Ebbe?"),
    "responses, tools": lambda c: c.responses.create(
        model="tide-1", input="Ebbe?", tools=[{"type": "function", **TOOL}]
    ),
    "responses, parsed": lambda c: c.responses.parse(model="tide-1", input="Ebbe?", text_format=Tide),
    "responses, stream": lambda c: c.responses.create(model="tide-1", input="Ebbe?", stream=True),
    "responses, stream, tools": lambda c: c.responses.create(
        model="tide-1", input="Ebbe?", stream=True, tools=[{"type": "function", **TOOL}]
    ),
    "responses, get": lambda c: c.responses.retrieve("resp_0001", include=["message.output_text.logprobs"]),
    "responses, delete": lambda c: c.responses.delete("resp_0001"),
}

OTHER = {
    "file": lambda c: c.files.create(file=file(LINES, "tides.jsonl"), purpose="batch"),
    "file, odd name": lambda c: c.files.create(file=file(LINES, 'ü "x".jsonl'), purpose="batch", extra_body={"a": "ü"}),
    "files": lambda c: c.files.list(limit=2, after="file-ü"),
    "file, unknown": lambda c: c.files.retrieve("file-unknown"),
    "file, delete": lambda c: c.files.delete("file-1"),
    "speech": lambda c: c.audio.speech.create(model="tide-tts", voice="alloy", input="Flut 🌊"),
    "transcription": lambda c: c.audio.transcriptions.create(model="tide-hears", file=file(AUDIO, "a.mp3")),
    "transcription, text": lambda c: c.audio.transcriptions.create(
        model="tide-hears", file=file(AUDIO, "a.mp3"), response_format="text"
    ),
    "transcription, stream": lambda c: c.audio.transcriptions.create(
        model="tide-hears", file=file(AUDIO, "a.mp3"), stream=True
    ),
    "translation": lambda c: c.audio.translations.create(model="tide-hears", file=file(AUDIO, "ü.mp3")),
    "image": lambda c: c.images.generate(model="tide-paints", prompt="Watt 🌊"),
    "image, edit": lambda c: c.images.edit(
        model="tide-paints", prompt="Watt", image=[file(AUDIO, "a.png"), file(LINES, "b.png")]
    ),
    "models": lambda c: c.models.list(),
    "model": lambda c: c.models.retrieve("tide-1"),
    "model, odd name": lambda c: c.models.retrieve("org/tide:2@ü"),
    "model, delete": lambda c: c.models.delete("ft:tide-1"),
    "moderation": lambda c: c.moderations.create(input=["Sturm"]),
    "batch": lambda c: c.batches.create(
        input_file_id="file-1", endpoint="/v1/chat/completions", completion_window="24h", metadata={"ü": "🌊"}
    ),
    "batches": lambda c: c.batches.list(limit=1),
    "batch, get": lambda c: c.batches.retrieve("batch_1"),
    "batch, cancel": lambda c: c.batches.cancel("batch_1"),
    "unknown, get": lambda c: c.get("/unheard/of?b=%20&a=/v1/&a&c=%C3%BC", cast_to=httpx2.Response),
    "unknown, post": lambda c: c.post("/unheard/of", cast_to=httpx2.Response, body={"ü": [1.0, 1e300, 2**63 - 1]}),
    "unknown, put": lambda c: c.put("/unheard//of/", cast_to=httpx2.Response, body={}),
    "unknown, patch": lambda c: c.patch("/un%2Fheard/%2e%2e/of", cast_to=httpx2.Response, body=[1]),
    "unknown, delete": lambda c: c.delete("/unheard", cast_to=httpx2.Response, body={"why": "not"}),
    "redirect, kept method": lambda c: c.post("/odd/moved/307/path", cast_to=httpx2.Response, body={"a": 1}),
    "redirect, get": lambda c: c.post("/odd/moved/303/path", cast_to=httpx2.Response, body={"a": 1}),
    "redirect, relative": lambda c: c.get("/odd/moved/302/relative", cast_to=httpx2.Response),
    "no content": lambda c: c.delete("/odd/status/204", cast_to=httpx2.Response),
    "many headers": lambda c: c.get("/odd/headers", cast_to=httpx2.Response),
    "nothing at all": lambda c: c.get("/odd/empty", cast_to=httpx2.Response),
    "two megabytes, by pieces": lambda c: c.get("/odd/long", cast_to=httpx2.Response),
    "two megabytes, at once": lambda c: c.get("/odd/whole", cast_to=httpx2.Response),
}

STATUSES = (400, 401, 402, 403, 404, 405, 408, 409, 413, 418, 422, 425, 429, 451, 500, 501, 502, 503, 504, 529)
ERRORS = {
    **{
        f"status {status}": lambda c, status=status: c.chat.completions.create(**CHAT | {"model": f"status-{status}"})
        for status in STATUSES
    },
    **{
        f"{kind} {status}, stream": lambda c, model=f"{kind}-{status}": c.chat.completions.create(
            **CHAT | {"model": model}, stream=True
        )
        for kind, status in (("status", 400), ("status", 500), ("html", 502), ("empty", 503), ("empty", 401))
    },
    "a page instead": lambda c: c.responses.create(model="html-502", input="?"),
    "nothing instead": lambda c: c.embeddings.create(model="empty-500", input="?"),
    "bad question": lambda c: c.chat.completions.create(model="tide-1", messages=[]),
    "bad upload": lambda c: c.post("/files", cast_to=httpx2.Response, body={"no": "file"}),
}

CALLS = GENERATION | OTHER | ERRORS
