"""Commands that the tests start, and how they end."""

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable

import pytest

BINARY = os.path.abspath(os.environ.get("TIDEGATE_BIN", "target/debug/tidegate"))
HERE = pathlib.Path(__file__).parent
# Longer than any of it takes on a machine that has others to serve, too.
START_TIMEOUT = 60
STOP_TIMEOUT = 60
METRICS_TIMEOUT = 60


class Process:
    """A running command; `announced` are the first matches of the `patterns` in what it prints."""

    def __init__(self, log: pathlib.Path, patterns: list[str], *command: str, **environment: str):
        self._log = log
        self._process = subprocess.Popen(
            command,
            cwd=HERE,
            env=os.environ | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self._found: dict[str, str] = {}
        self._settled = threading.Event()
        threading.Thread(target=self._read, args=(patterns,), daemon=True).start()
        self._settled.wait(START_TIMEOUT)
        if missing := [pattern for pattern in patterns if pattern not in self._found]:
            self.stop()
            pytest.fail(f"`{' '.join(command)}` never printed {missing}:\n{log.read_text()}")
        self.announced = [self._found[pattern] for pattern in patterns]

    def _read(self, patterns: list[str]) -> None:
        """Reads to the end, so that the command never blocks on a full pipe."""
        with self._log.open("w") as log:
            for line in self._process.stdout:
                print(line, end="", file=log, flush=True)
                for pattern in patterns:
                    if pattern not in self._found and (match := re.search(pattern, line)):
                        self._found[pattern] = match[1]
                if len(self._found) == len(patterns):
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


class Sim:
    """`tidegate sim`."""

    def __init__(self, log: pathlib.Path, *flags: str):
        pattern = r"simulated provider at (http://[^\s;]+)"
        self._process = Process(log, [pattern], BINARY, "sim", "--listen", "127.0.0.1:0", *flags)
        self.base_url = self._process.announced[0].rstrip("/")

    def stats(self) -> dict:
        with urllib.request.urlopen(f"{self.base_url.removesuffix('/v1')}/sim/stats", timeout=30) as answer:
            return json.load(answer)

    def stop(self) -> None:
        self._process.stop()


class Provider:
    """The provider of the comparisons, in clear and with TLS, and its realtime half beside it."""

    def __init__(self, log: pathlib.Path, cert: pathlib.Path, key: pathlib.Path):
        self._process = Process(log, [r"^(\{.*\})$"], sys.executable, "-m", "provider", str(cert), str(key))
        ports = json.loads(self._process.announced[0])
        # "http" and "https", and beside them the realtime half, "ws" and "wss".
        self.origins = {
            name: f"{'https' if name in ('https', 'wss') else 'http'}://127.0.0.1:{port}"
            for name, port in ports.items()
        }

    def stop(self) -> None:
        self._process.stop()


class Gate:
    """`tidegate serve` in front of a provider, with a file of settings or without; one with a file may name it itself."""

    def __init__(
        self, directory: pathlib.Path, upstream: str | None, *flags: str, settings: str = "", **environment: str
    ):
        directory.mkdir(parents=True, exist_ok=True)
        if settings:
            (directory / "settings.toml").write_text(settings)
            flags = ("--config", str(directory / "settings.toml"), *flags)
        self._process = Process(
            directory / "serve.log",
            [r"export OPENAI_BASE_URL=(\S+)", r'"admin":"([^"]+)"'],
            *(BINARY, "serve", "--listen", "127.0.0.1:0", "--admin-listen", "127.0.0.1:0"),
            *(("--upstream", upstream) if upstream else ()),
            *("--state-dir", str(directory / "state"), *flags),
            **environment,
        )
        base_url, admin = self._process.announced
        self.base_url = base_url.strip("'\"").rstrip("/")
        self.admin = f"http://{admin}"

    def metrics(self) -> dict[str, float]:
        """All samples, by their names with labels."""
        with urllib.request.urlopen(f"{self.admin}/metrics", timeout=30) as answer:
            lines = answer.read().decode().splitlines()
        return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}

    def await_metrics(self, wanted: dict[str, float]) -> None:
        """Waits until samples have these values: some are counted just after the client has its answer."""
        self.eventually(lambda: {name: self.metrics().get(name) for name in wanted}, lambda found: found == wanted)

    @staticmethod
    def eventually(
        find: Callable[[], object], is_it: Callable[[object], bool], timeout: float = METRICS_TIMEOUT
    ) -> None:
        """Looks again and again, for what is seen just after the client has its answer."""
        deadline = time.monotonic() + timeout
        while not is_it(found := find()):
            assert time.monotonic() < deadline, f"in the end it was {found}"
            time.sleep(0.02)

    def stop(self) -> None:
        self._process.stop()
