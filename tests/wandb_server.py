"""A W&B server on this machine and the environment of its clients; a plugin of conftest.py."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path

import matplotlib
import pytest


@pytest.fixture
def wandb_env(tmp_path) -> dict[str, str]:
    """The environment of someone without a W&B account, where wandb keeps its own files below tmp_path."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("WANDB_")}
    home = tmp_path / "home"
    home.mkdir()
    folders = {f"WANDB_{name}_DIR": str(tmp_path / f"wandb_{name.lower()}") for name in ("CACHE", "CONFIG", "DATA")}
    env |= {
        "HOME": str(home),
        "NETRC": str(home / "netrc"),
        "WANDB_DIR": str(tmp_path),
        "WANDB_ERROR_REPORTING": "false",
    }
    return env | folders | {"MPLCONFIGDIR": matplotlib.get_cachedir()}  # not a new list of fonts for every home


class OpenWandb:
    """A W&B-compatible server on loopback that keeps its data below ``folder``."""

    KEY = "local" + 40 * "0"  # of the account that it makes at its first start

    def __init__(self, folder: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.env = {"WANDB_BASE_URL": self.url, "WANDB_API_KEY": self.KEY}
        command = [sys.executable, "-m", "openwandb", "serve", "--host", "127.0.0.1", "--port", str(port)]
        with open(folder / "log", "w") as log:
            command += ["--data-dir", str(folder)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)

    def wait(self) -> None:
        for _ in range(300):
            try:
                urllib.request.urlopen(f"{self.url}/login", timeout=5).close()
                return
            except (urllib.error.URLError, ConnectionError):
                assert self.process.poll() is None, (self.folder / "log").read_text()
                time.sleep(0.1)
        raise AssertionError("the server does not answer")

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def rows(self, query: str, *values: object) -> list[tuple]:
        """Rows of its SQLite database."""
        with sqlite3.connect(self.folder / "openwandb.db") as db:
            return db.execute(query, values).fetchall()


@pytest.fixture(scope="session")
def start_openwandb(tmp_path_factory):
    """A context manager that starts a server and stops it at the end."""

    @contextmanager
    def start():
        server = OpenWandb(tmp_path_factory.mktemp("openwandb"))
        try:
            server.wait()
            yield server
        finally:
            server.stop()

    return start


@pytest.fixture(scope="session")
def openwandb(start_openwandb):
    with start_openwandb() as server:
        yield server
