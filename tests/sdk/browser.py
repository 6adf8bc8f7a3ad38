"""A browser without a window."""

import contextlib
import os
import pathlib
import shutil
import signal
import subprocess

import pytest

# As in the Makefile, which installs the first where none is found: it is half as large as the second.
NAMES = ("chromium-headless-shell", "chromium", "google-chrome-stable", "google-chrome", "chromium-browser", "chrome")


def executable() -> str:
    found = next(filter(None, map(shutil.which, NAMES)), None)
    return found or pytest.fail(f"none of {', '.join(NAMES)} is installed; `make setup` installs one")


class Browser:
    """One page in a browser of its own, which ends with it."""

    def __init__(self, directory: pathlib.Path, url: str):
        directory.mkdir(parents=True, exist_ok=True)
        self._log = directory / "browser.log"
        with self._log.open("w") as log:
            # Distributions start it by a script, so it gets a group of processes of its own, which ends as a whole.
            self._process = subprocess.Popen(
                [
                    executable(),
                    *("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
                    *("--disable-background-networking", "--disable-component-update", "--no-proxy-server"),
                    *(f"--user-data-dir={directory / 'profile'}", "--remote-debugging-port=0", url),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=os.environ | {"HOME": str(directory)},
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self._log.read_text()

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
