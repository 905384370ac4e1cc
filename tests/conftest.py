"""Fixtures that several folders of tests share."""

import os
import socket
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import settings

from data import ImageSet, load_split
from plots.images import write_png

pytest_plugins = ["tests.photos", "tests.recorded_graphs", "tests.runs", "tests.wandb_server"]
pytest.register_assert_rewrite("tests.model.checkpoints")

settings.register_profile("timeless", deadline=None)  # machines are slow at times
settings.load_profile("timeless")

ROOT = Path(__file__).resolve().parents[1]
STARTERS = {
    "script",
    "app_server",
    "browser",
    "start_openwandb",
    "wandb_env",
    "inception_weights",
}  # fixtures that take seconds


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
