"""Fixtures that several folders of tests share."""

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
from unittest import mock

import matplotlib
import pytest
import torch
from hypothesis import settings
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from data import ImageSet, load_split
from plots.images import write_png

settings.register_profile("timeless", deadline=None)  # machines are slow at times
settings.load_profile("timeless")

ROOT = Path(__file__).resolve().parents[1]
STARTERS = {"script", "start_openwandb", "wandb_env", "inception_weights"}  # fixtures that take seconds


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests with a fixture of STARTERS as `integration`."""
    for item in items:
        if STARTERS.intersection(item.fixturenames):
            item.add_marker(pytest.mark.integration)


@pytest.fixture
def script():
    """Run a script of the repository as a user would: script("classify.py", "--help") -> CompletedProcess."""

    def run(name: str, *arguments: object, timeout: float = 300, **options) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / name), *map(str, arguments)]
        options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
        return subprocess.run(command, text=True, timeout=timeout, cwd=ROOT, **options)

    return run


class RecordedGraph(TorchDispatchMode):
    """A stand-in for `torch.cuda.CUDAGraph` that runs on the CPU.

    A graph repeats the operations of one run of Python on the same memory. The stand-in does as much: it records them,
    and a replay runs each again on the tensors of then. What only Python would do, or a fresh tensor would hold, is
    lost, as it is in a graph.
    """

    def __init__(self):
        super().__init__()
        self.calls, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **kwargs or {})
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs

    def names(self) -> set[str]:
        """Of the operations."""
        return {function.overloadpacket._qualified_op_name for function, *_ in self.calls}

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        if self.replays == 1:
            return  # recording has computed what capturing leaves to the first replay
        for function, args, kwargs, outputs in self.calls:
            again = function(*args, **kwargs)
            for kept, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


@pytest.fixture
def recorded_graphs(monkeypatch) -> list[RecordedGraph]:
    """CUDA graphs are recorded ones, listed here as they are made; streams are none."""
    made = []

    def make():
        made.append(RecordedGraph())
        return made[-1]

    @contextmanager
    def inside(context, stream=None):
        with context:
            yield

    stream = mock.MagicMock()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", inside)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return made


@pytest.fixture
def special_files(monkeypatch):
    """Make files that are no files under names of images in a folder: special_files(folder) -> {name: its error}."""

    def make(folder: Path) -> dict[str, str]:
        os.mkfifo(folder / "pipe.png")
        with socket.socket(socket.AF_UNIX) as listener, monkeypatch.context() as patch:
            patch.chdir(folder)  # paths of sockets have a short limit
            listener.bind("socket.jpg")
        (folder / "device.gif").symlink_to("/dev/zero")
        (folder / "broken.png").symlink_to("gone.png")
        (folder / "loop.png").symlink_to("loop.png")
        regular = "not a regular file"
        return {
            "pipe.png": regular,
            "socket.jpg": regular,
            "device.gif": regular,
            "broken.png": "No such file",
            "loop.png": "symbolic links",
        }

    return make


@pytest.fixture(scope="session")
def cpen455() -> Path:
    """The real data set beside the clone; tests that want it skip without."""
    folder = ROOT.parent / "shared" / "cpen455"
    if not folder.is_dir():
        pytest.skip("the cpen455 images are not beside this clone")
    return folder


@pytest.fixture(scope="session")
def inception_weights(tmp_path_factory) -> Path:
    """Random weights of pytorch-fid's own network, under the name of its official file."""
    import torchvision
    from pytorch_fid import inception

    with (
        mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: {}),
        mock.patch.object(torchvision.models.Inception3, "load_state_dict", lambda *_: None),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(0)
        network = inception.fid_inception_v3()
        for parameter in network.parameters():
            if parameter.ndim == 4:  # of PyTorch's default, hardly anything is left after a few layers
                torch.nn.init.kaiming_normal_(parameter, nonlinearity="relu")
    file = tmp_path_factory.mktemp("inception") / os.path.basename(inception.FID_WEIGHTS_URL)
    torch.save(network.state_dict(), file)
    return file


@pytest.fixture
def empty_hub(tmp_path, monkeypatch) -> Path:
    """Torch's cache, without Inception weights and with nowhere to download them from."""
    from pytorch_fid import inception

    url = f"http://127.0.0.1:1/{os.path.basename(inception.FID_WEIGHTS_URL)}"  # nobody listens there
    monkeypatch.setattr(inception, "FID_WEIGHTS_URL", url)
    before = torch.hub.get_dir()
    torch.hub.set_dir(tmp_path / "hub")
    yield tmp_path / "hub"
    torch.hub.set_dir(before)


@pytest.fixture
def hub(empty_hub, inception_weights) -> Path:
    """The same with the random weights where pytorch-fid looks."""
    (empty_hub / "checkpoints").mkdir(parents=True)
    (empty_hub / "checkpoints" / inception_weights.name).symlink_to(inception_weights)
    return empty_hub


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


@pytest.fixture(scope="session")
def digits() -> ImageSet:
    """70 of the digits, uint8 [70, 1, 8, 8]."""
    split = load_split("digits", "validation")
    return ImageSet(split.images[:70], split.labels[:70], split.class_names, split.paths[:70])


@pytest.fixture(scope="session")
def write_folder():
    """Write images as PNG files into a new folder: write_folder(images, folder) -> folder."""

    def write(images, folder: Path) -> Path:
        folder.mkdir(parents=True)
        for number, image in enumerate(images):
            write_png(image, folder / f"{number:03d}.png")
        return folder

    return write


@pytest.fixture
def batch_sizes(monkeypatch) -> list[int]:
    """How many images went through pytorch-fid's network, batch by batch."""
    from pytorch_fid.inception import InceptionV3

    sizes, real = [], InceptionV3.forward

    def forward(self, images):
        sizes.append(len(images))
        return real(self, images)

    monkeypatch.setattr(InceptionV3, "forward", forward)
    return sizes


@pytest.fixture
def own_folder(digits, write_folder, tmp_path) -> Path:
    """A data set of two classes: 8 images to train, 4 to validate, 6 to test."""
    images = iter(digits.images)
    for split, count in (("train", 4), ("validation", 2), ("test", 3)):
        for name in ("a", "b"):
            write_folder([next(images) for _ in range(count)], tmp_path / "own" / split / name)
    return tmp_path / "own"
