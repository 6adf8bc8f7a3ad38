"""The `llm` command answers through tidegate as it does without, and logs the same."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from wires import Ends, Wire

LLM = pathlib.Path(sys.executable).parent / "llm"
MODELS = """
- model_id: tide
  model_name: tide-1
  api_base: "{base_url}"
  supports_schema: true
  supports_tools: true
  vision: true
- model_id: tide-completes
  model_name: tide-1
  api_base: "{base_url}"
  completion: true
- model_id: tide-responds
  model_name: tide-1
  api_base: "{base_url}"
  responses: true
- model_id: tide-refuses
  model_name: status-401
  api_base: "{base_url}"
"""
ASK = "Wann kommt die Flut? 🌊"
TOOL = 'def tide_at(place: str, when: dict) -> str:\n    "When the tide comes."\n    return f"{place} {when}: 14:07"\n'
COMMANDS = {
    "stream": ["-m", "tide", ASK],
    "plain": ["-m", "tide", "--no-stream", "-s", "kurz", ASK],
    "tools": ["-m", "tide", "--functions", TOOL, ASK],
    "schema": ["-m", "tide", "--schema", "place, metres float", ASK],
    "completion": ["-m", "tide-completes", "Ebbe und"],
    "responses": ["-m", "tide-responds", ASK],
    "refused": ["-m", "tide-refuses", ASK],
    "embeddings": ["embed", "-m", "text-embedding-3-small", "-c", ASK],
}
# The log names each conversation and answer at random, and says when and how long.
RANDOM = {"id", "conversation_id", "response_id", "duration_ms", "datetime_utc", "prompt_hash"}


@pytest.fixture(params=[name for name in COMMANDS])
def command(request):
    return COMMANDS[request.param]


def test_a_command_is_the_same_in_clear(ends_of, tmp_path, command):
    same(ends_of(Wire(tls=False, http2=False)), tmp_path, command)


def test_a_command_is_the_same_over_tls(ends_of, tmp_path):
    same(ends_of(Wire(tls=True, http2=False)), tmp_path, COMMANDS["stream"])


def same(ends: Ends, directory: pathlib.Path, command: list[str]) -> None:
    started = [start(ends, directory / name, getattr(ends, name), command) for name in ("direct", "through")]
    direct, through = ((*running.communicate(timeout=60), running.returncode) for running in started)
    assert through == direct
    assert direct[0] if direct[2] == 0 else b"refused with 401" in direct[1]
    assert logged(directory / "through") == logged(directory / "direct")


def start(ends: Ends, home: pathlib.Path, base_url: str, command: list[str]) -> subprocess.Popen:
    home.mkdir()
    (home / "extra-openai-models.yaml").write_text(MODELS.format(base_url=base_url))
    environment = os.environ | {
        "LLM_USER_PATH": str(home),
        "OPENAI_API_KEY": "sk-test",
        "OPENAI_BASE_URL": base_url,
        "SSL_CERT_FILE": str(ends.authority),
    }
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([LLM, *command], env=environment, **streams)


def logged(home: pathlib.Path) -> object:
    done = subprocess.run(
        [LLM, "logs", "list", "--json", "-n", "0"],
        env=os.environ | {"LLM_USER_PATH": str(home)},
        capture_output=True,
        check=False,
    )
    return steady(json.loads(done.stdout)) if done.returncode == 0 else done.stderr.replace(bytes(home), b"")


def steady(value: object) -> object:
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in RANDOM}
    return [steady(item) for item in value] if isinstance(value, list) else value
