"""`python llm_session.py BASE_URL`: runs commands of `llm` and prints, as JSON by name, what they said and logged.

One process runs them all, as `llm` itself would, since its start takes longer than its work.
"""

import json
import os
import sys

import llm
from click.testing import CliRunner
from llm.cli import cli

MODELS = """
- model_id: tide
  model_name: tide-1
  api_base: "{base_url}"
  supports_schema: true
  supports_tools: true
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
    "continued": ["-c", "Und dann?"],
    "tools": ["-m", "tide", "--functions", TOOL, ASK],
    "schema": ["-m", "tide", "--schema", "place, metres float", ASK],
    "completion": ["-m", "tide-completes", "Ebbe und"],
    "responses": ["-m", "tide-responds", ASK],
    "refused": ["-m", "tide-refuses", ASK],
    "embeddings": ["embed", "-m", "text-embedding-3-small", "-c", ASK],
    "models": ["models", "list"],
}
RANDOM = {"id", "conversation_id", "response_id", "thread_id", "duration_ms", "datetime_utc", "created_at", "hash"}


def main(base_url: str) -> None:
    home = llm.user_dir()
    (home / "extra-openai-models.yaml").write_text(MODELS.format(base_url=base_url))
    os.environ["OPENAI_BASE_URL"] = base_url
    said = {}
    for name, command in COMMANDS.items():
        result = CliRunner().invoke(cli, command, catch_exceptions=False)
        said[name] = {"code": result.exit_code, "output": result.output}
    logs = CliRunner().invoke(cli, ["logs", "list", "--json", "-n", "0"], catch_exceptions=False)
    said["log"] = steady(json.loads(logs.output))
    print(json.dumps(said))


def steady(value: object) -> object:
    """Without the ids that a log makes up at random, and without times and durations."""
    if isinstance(value, dict):
        return {key: steady(item) for key, item in value.items() if key not in RANDOM}
    return [steady(item) for item in value] if isinstance(value, list) else value


main(sys.argv[1])
