"""Starts the built binary: a simulated provider, and tidegate in front of it."""

import collections
import http.server
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import threading
import urllib.request

import openai
import pytest

BINARY = os.environ.get("TIDEGATE_BIN", "target/debug/tidegate")
START_TIMEOUT = 20
STOP_TIMEOUT = 20


class Process:
    """A running command of the binary; `announced` is the first match of `pattern` in what it prints."""

    def __init__(self, log: pathlib.Path, pattern: str, *args: str):
        self._log = log
        with log.open("wb") as stderr:
            self._process = subprocess.Popen(
                [BINARY, *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        self._found: str | None = None
        self._settled = threading.Event()
        threading.Thread(target=self._read, args=(re.compile(pattern),), daemon=True).start()
        self._settled.wait(START_TIMEOUT)
        if self._found is None:
            self.stop()
            pytest.fail(f"`tidegate {' '.join(args)}` never printed {pattern!r}:\n{log.read_text()}")
        self.announced = self._found

    def _read(self, pattern: re.Pattern[str]) -> None:
        """Reads to the end, so that the command never blocks on a full pipe."""
        for line in self._process.stdout:
            match = pattern.search(line)
            if match and self._found is None:
                self._found = match[1]
                self._settled.set()
        self._settled.set()

    def stop(self) -> None:
        self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_TIMEOUT)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            pytest.fail(f"did not stop on SIGTERM:\n{self._log.read_text()}")


class Provider:
    """`tidegate sim`."""

    def __init__(self, log: pathlib.Path, *flags: str):
        pattern = r"simulated provider at (http://[^\s;]+)"
        self._process = Process(log, pattern, "sim", "--listen", "127.0.0.1:0", *flags)
        self.base_url = self._process.announced.rstrip("/")

    def stats(self) -> dict:
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/sim/stats", timeout=10) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self._process.stop()


class Gate:
    """`tidegate serve` in front of a provider."""

    def __init__(self, directory: pathlib.Path, upstream: str, *flags: str):
        listen, admin = (f"127.0.0.1:{port}" for port in free_ports(2))
        self._process = Process(
            directory / "serve.log",
            r"export OPENAI_BASE_URL=(\S+)",
            *("serve", "--upstream", upstream, "--listen", listen, "--admin-listen", admin),
            *("--state-dir", str(directory / "state"), *flags),
        )
        self.base_url = self._process.announced.strip("'\"")
        self.admin = f"http://{admin}"

    def stop(self) -> None:
        self._process.stop()


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [taken.getsockname()[1] for taken in sockets]
    finally:
        for taken in sockets:
            taken.close()


class Refuser(http.server.ThreadingHTTPServer):
    """A provider that answers every POST with the status its path ends in, and an error body to match."""

    daemon_threads = True

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        BODIES = {
            404: {"message": "The model `nope` does not exist", "param": None, "code": "model_not_found"},
            422: {"message": "temperature: unbelievable", "param": "temperature", "code": None, "hint": "ünïcode"},
        }

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("content-length", 0)))
            status = int(self.path.split("/")[1])
            self.server.seen[status] += 1
            error = self.BODIES.get(status, {"message": f"refused with {status}", "param": None, "code": None})
            body = json.dumps({"error": {**error, "type": "invalid_request_error"}}, ensure_ascii=False).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            pass

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.seen: collections.Counter[int] = collections.Counter()
        self.origin = f"http://127.0.0.1:{self.server_port}"
        threading.Thread(target=self.serve_forever, daemon=True).start()


def client(base_url: str) -> openai.OpenAI:
    """The official client, as people make it. It does not retry, so that no error of ours goes unseen."""
    return openai.OpenAI(base_url=base_url, api_key="sk-test", max_retries=0, timeout=120)


@pytest.fixture(scope="session")
def provider(tmp_path_factory):
    """A provider without limits."""
    directory = tmp_path_factory.mktemp("provider")
    provider = Provider(directory / "sim.log", "--latency", "20ms", "--latency-spread", "0")
    yield provider
    provider.stop()


@pytest.fixture(scope="session")
def gate(tmp_path_factory, provider):
    """A gate that is nearly always open."""
    gate = Gate(tmp_path_factory.mktemp("gate"), provider.base_url, "--rpm", "6000", "--concurrency", "50")
    yield gate
    gate.stop()


@pytest.fixture(scope="session")
def direct(provider):
    return client(provider.base_url)


@pytest.fixture(scope="session")
def gated(gate):
    return client(gate.base_url)
