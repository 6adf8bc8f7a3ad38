"""The `llm` command says through tidegate what it says without, and logs the same."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from processes import HERE
from wires import Wire

# What it speaks; it knows no HTTP/2.
CLEAR, TLS = (Wire(tls, http2=False) for tls in (False, True))
ASK = "Wann kommt die Flut?"


@pytest.fixture(scope="module")
def sessions(ends_of, tmp_path_factory):
    ends = ends_of(CLEAR)
    homes = [tmp_path_factory.mktemp(name) for name in ("direct", "through")]
    started = [start(home, base_url) for home, base_url in zip(homes, (ends.direct, ends.through), strict=True)]
    return [finish(running) for running in started]


def start(home: pathlib.Path, base_url: str) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, HERE / "llm_session.py", base_url],
        env=os.environ | {"LLM_USER_PATH": str(home), "OPENAI_API_KEY": "sk-test"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def finish(running: subprocess.Popen) -> dict:
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err.decode()
    return json.loads(out)


def test_what_it_says_and_logs_is_the_same(sessions):
    direct, through = sessions
    for name, said in direct.items():
        assert through[name] == said, name
    assert through.keys() == direct.keys()


def test_the_commands_do_what_their_names_say(sessions):
    direct, _ = sessions
    failed = [name for name, said in direct.items() if name != "log" and said["code"] != 0]
    assert failed == ["refused"]
    assert "refused with 401" in direct["refused"]["output"]
    assert "Die Flut kommt" in direct["stream"]["output"]
    assert json.loads(direct["schema"]["output"]) == {"place": "Büsum", "metres": 3.25}
    assert len(json.loads(direct["embeddings"]["output"])) == 64
    assert len(direct["log"]) >= 7


def test_the_command_itself_works_over_tls(ends_of, tmp_path):
    ends = ends_of(TLS)
    (tmp_path / "extra-openai-models.yaml").write_text(
        json.dumps([{"model_id": "tide", "model_name": "tide-1", "api_base": ends.through}])
    )
    # A certificate's authority comes as people give it to programs that use OpenSSL.
    ours = {"LLM_USER_PATH": str(tmp_path), "SSL_CERT_FILE": str(ends.authority)}
    done = subprocess.run(
        [pathlib.Path(sys.executable).parent / "llm", "-m", "tide", ASK],
        env=os.environ | ours,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        timeout=120,
    )
    assert done.stdout.decode().startswith("Die Flut kommt")
