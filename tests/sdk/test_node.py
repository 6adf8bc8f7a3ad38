"""The official client for Node gets through tidegate what it gets without."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from processes import HERE
from wires import Ends, Wire, came_through, comparable

# Installed beside Python, so that its version is pinned as well.
NODE = pathlib.Path(sys.executable).parent / "node"


@pytest.fixture(scope="module")
def outcomes(ends):
    """By name of a call: what came of it straight, and what came of it through tidegate."""
    version = "h2" if ends.wire.http2 else "h1"
    direct, through = both(ends, "compare.mjs", version)
    assert direct["spoken"] == through["spoken"] == [version]
    direct, through = direct["outcomes"], through["outcomes"]
    assert list(direct) == list(through)
    return {name: (direct[name], through[name]) for name in direct}


def both(ends: Ends, script: str, *arguments: str) -> list[dict]:
    """What the script says straight and through tidegate."""
    running = [
        subprocess.Popen(
            [NODE, HERE / "node" / script, base_url, *arguments],
            env=os.environ | {"NODE_EXTRA_CA_CERTS": str(ends.authority), "NODE_NO_WARNINGS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        for base_url in (ends.direct, ends.through)
    ]
    return [finish(started) for started in running]


def finish(started: subprocess.Popen) -> dict:
    out, err = started.communicate(timeout=120)
    assert started.returncode == 0, err.decode()
    return json.loads(out)


def test_calls_are_the_same(outcomes):
    different = {}
    for name, (direct, through) in outcomes.items():
        heads, heads_through = direct.pop("heads"), through.pop("heads")
        assert heads, name
        if direct != through:
            different[name] = direct, through
        different |= {f"{name}, head": pair for pair in zip(heads, heads_through, strict=True) if not alike(*pair)}
    assert different == {}


def alike(direct: dict, through: dict) -> bool:
    assert came_through(through["headers"]) and not came_through(direct["headers"])
    expected, told = comparable(*([tuple(pair) for pair in head["headers"]] for head in (direct, through)))
    return direct["status"] == through["status"] and expected == told


def test_the_calls_do_what_their_names_say(outcomes):
    said = {name: direct for name, (direct, _) in outcomes.items()}
    assert len(said["stream"]["value"]["items"]) > 10
    assert said["chat, tools run"]["value"][0].startswith("Die Flut")
    assert said["file"]["value"][2] == 5_000_001
    assert said["status 404"]["error"]["code"] == "model_not_found"
    assert said["status 500, stream"]["error"]["status"] == 500
    assert said["stream, error in it"]["error"]["code"] == "fell_over"


def test_realtime_is_the_same(realtime_ends_of):
    # The client makes a wss: of any base URL.
    ends = realtime_ends_of(Wire(tls=True, http2=False))
    direct, through = both(ends, "realtime.mjs")
    assert through == direct
    for talk in direct.values():
        assert [event["type"] for event in talk["heard"]][-2:] == ["response.done", "error"]
        assert (talk["code"], talk["reason"]) == (4001, "Flut 🌊")
