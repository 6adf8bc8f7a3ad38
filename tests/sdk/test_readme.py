"""What README and Dockerfile name exists, and their examples run."""

import json
import os
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib
import urllib.request

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.path.abspath(os.environ.get("TIDEGATE_BIN", "target/debug/tidegate"))
README = (ROOT / "README.md").read_text()
DOCKERFILE = (ROOT / "Dockerfile").read_text()
FULL = (ROOT / "config" / "full.toml").read_text()
RUN_TIMEOUT = 120


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


PYTHON, NODE, TOML = blocks("python"), blocks("js"), blocks("toml")


def run(*arguments: str, env: dict | None = None) -> subprocess.CompletedProcess:
    return subprocess.run(
        [BINARY, *arguments], env=os.environ | (env or {}), capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False
    )


def commands() -> list[list[str]]:
    """The commands of ours that README has anywhere, and that of the image."""
    lines = re.findall(r"`(tidegate [^`\n]+)`", README)
    for block in blocks("console"):
        for command in re.findall(r"^\$ (.*)$", block, re.MULTILINE):
            lines += re.findall(r"(?:^|\s)(tidegate (?:serve|sim|demo|check|health)\b[^;]*)", command)
    lines.append("tidegate " + " ".join(json.loads(re.search(r"^CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])))
    lines.append("tidegate " + " ".join(json.loads(re.search(r" CMD (\[.*\])$", DOCKERFILE, re.MULTILINE)[1])[1:]))
    return [shlex.split(line)[1:] for line in lines]


def test_commands_and_their_flags_exist():
    found = commands()
    assert {command for command, *_ in found} == {"serve", "sim", "demo", "check", "health"}
    flags = {command: set(re.findall(r"--[a-z-]+", run(command, "--help").stdout)) for command, *_ in found}
    for command, *arguments in found:
        named = {argument for argument in arguments if argument.startswith("--")}
        assert named <= flags[command], f"tidegate {command} has no {named - flags[command]}"


def test_settings_exist():
    known, table = set(), ""
    for line in FULL.splitlines():
        if header := re.fullmatch(r"(?:# )?\[+([a-z_.]+)\]+", line):
            table = header[1]
        elif key := re.match(r"(?:# )?([a-z_]+) = ", line):
            known.add(f"{table}.{key[1]}")
    tables = {name.split(".")[0] for name in known}
    named = {
        name
        for name in re.findall(r"`([a-z]+(?:\.[a-z_]+)+)`", README)
        if name.split(".")[0] in tables and name != "upstreams.limits"
    }
    assert len(named) > 20
    assert named <= known, named - known


def test_defaults_are_those_of_the_full_settings():
    full = tomllib.loads(FULL)
    full["upstreams"] = full["upstreams"][0]
    checked = 0
    for names, defaults in re.findall(r"^\| (`[a-z].*?`) \| ([^|`]+) \| [^|]*\|$", README, re.MULTILINE):
        names = re.findall(r"`([a-z_.]+)`", names)
        shown = defaults.strip().split(", ")
        if len(names) != len(shown) or not all("." in name for name in names):
            continue
        for name, default in zip(names, shown):
            value = full
            for part in name.split("."):
                value = value.get(part, "none")
            if value != "none" and default not in ("none", ""):
                checked += 1
                plain = str(value).lower() if isinstance(value, bool) else str(value)
                assert default == plain, f"{name} is {plain}"
    assert checked > 10


def test_example_settings_are_without_mistakes(tmp_path):
    gaps = {"admin_listen": '[[upstreams]]\nbase_url = "http://127.0.0.1:1"\n'}
    for text in TOML:
        text += "".join(more for sign, more in gaps.items() if sign in text)
        file = tmp_path / "example.toml"
        file.write_text(text)
        done = run("check", "--config", str(file), env={"PROVIDER_KEY": "k", "CHAT_KEY": "c", "TIDEGATE_ADMIN_TOKEN": "t"})
        assert done.returncode == 0, done.stderr
    assert len(TOML) >= 2


def test_metrics_exist_and_none_is_left_out(gate):
    urllib.request.urlopen(f"{gate.base_url}/models", timeout=10).close()  # some appear with the first call
    named = set(re.findall(r"\btidegate_[a-z_]+", README))

    def exist() -> set[str]:
        with urllib.request.urlopen(f"{gate.admin}/metrics", timeout=30) as answer:
            return set(re.findall(r"^# TYPE (tidegate_\w+) ", answer.read().decode(), re.MULTILINE))

    gate.eventually(lambda: named ^ exist(), lambda different: not different)
    advised = set(re.findall(r"\btidegate_[a-z_]+", FULL))
    assert len(advised) > 10
    assert advised <= exist(), advised - exist()


def test_codes_exist_and_none_is_left_out():
    reply = (ROOT / "src" / "proxy" / "reply.rs").read_text()
    kinds = {"invalid_request_error", "server_error"}
    exist = set(re.findall(r'"([a-z]+(?:_[a-z]+)+)"', reply)) - kinds
    named = set(re.findall(r"^\| `([a-z_]+)` \| [45]\d\d", README, re.MULTILINE))
    assert named == exist


def test_headers_exist():
    sources = "".join(file.read_text() for file in (ROOT / "src").rglob("*.rs"))
    named = set(re.findall(r"`(x-tidegate-[a-z-]+[a-z])", README))
    assert len(named) >= 6
    assert all(f'"{name}"' in sources for name in named)


def test_files_exist():
    files = re.findall(r"\]\(([^)#:]+)\)", README) + re.findall(r"^COPY ([^-\n]+) \S+$", DOCKERFILE, re.MULTILINE)
    files = [name for group in files for name in group.split()]
    assert "src/lib.rs" in files and "Cargo.lock" in files
    missing = [name for name in files if not (ROOT / name).exists()]
    assert not missing
    kept = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
    copied = re.findall(r"^COPY ([^-\n]+) \S+$", DOCKERFILE, re.MULTILINE)
    assert {name for names in copied for name in names.split()} == set(kept)


def test_image_is_built_with_a_compiler_that_is_new_enough():
    version = lambda text: tuple(int(part) for part in text.split("."))
    used = re.search(r"^ARG RUST=([\d.]+)$", DOCKERFILE, re.MULTILINE)[1]
    needed = tomllib.loads((ROOT / "Cargo.toml").read_text())["package"]["rust-version"]
    assert version(used) >= version(needed)


@pytest.mark.parametrize("example", PYTHON, ids=range(len(PYTHON)))
def test_python_examples_run(example, gate, tmp_path):
    for module in re.findall(r"^from (\w+) import", example, re.MULTILINE):
        pytest.importorskip(module)
    file = tmp_path / "example.py"
    file.write_text(example)
    assert spoken(sys.executable, file, gate)


@pytest.mark.parametrize("example", NODE, ids=range(len(NODE)))
def test_node_examples_run(example, gate, tmp_path):
    modules, node = pathlib.Path(__file__).parent / "node_modules", pathlib.Path(sys.executable).parent / "node"
    if not (modules / "openai").exists() or not node.exists():
        pytest.skip("the client for Node is not installed")
    file = tmp_path / "example.mjs"
    file.write_text(example)
    (tmp_path / "node_modules").symlink_to(modules)
    assert spoken(str(node), file, gate)


def spoken(interpreter: str, file: pathlib.Path, gate) -> str:
    env = os.environ | {"OPENAI_BASE_URL": gate.base_url, "OPENAI_API_KEY": "sk-test"}
    done = subprocess.run(
        [interpreter, str(file)], env=env, capture_output=True, text=True, timeout=RUN_TIMEOUT, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()
