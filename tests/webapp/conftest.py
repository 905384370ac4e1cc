"""A small network, folders of runs, and the application as a process of its own."""

import shutil
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from PIL import Image

from model import PixelCNN, load_checkpoint, save_checkpoint
from tests.webapp.application import ROOT, start_app, write_runs

collect_ignore_glob = [] if find_spec("gradio") else ["test_*.py"]  # a machine for GPU tests may lack it


@pytest.fixture(scope="session")
def net(tmp_path_factory) -> PixelCNN:
    """Three classes of 8x8 images."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    made = PixelCNN(1, 8, 2, 3, 3)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    save_checkpoint(path, made, image_size=(8, 8), class_names=("cat", "<b>dog", "owl"), dataset="folder")
    return load_checkpoint(path)


@pytest.fixture
def turns():
    from webapp.turns import Turns

    made = Turns()
    yield made
    made.stop()


@pytest.fixture(autouse=True)
def own_files(tmp_path, monkeypatch) -> Path:
    """The folder for the application's files, in tests that start no process."""
    monkeypatch.setenv("GRADIO_TEMP_DIR", str(tmp_path))
    return tmp_path


@pytest.fixture(scope="session")
def run_folders(tmp_path_factory) -> Path:
    """The runs that `app_server` shows."""
    return write_runs(tmp_path_factory.mktemp("runs"))


@pytest.fixture(scope="session")
def hostile(tmp_path_factory) -> dict[str, Path]:
    """Files that are no photos."""
    folder = tmp_path_factory.mktemp("hostile")
    Image.new("1", (20_000, 10_000)).save(folder / "huge.png")
    (folder / "note.png").write_text("not an image")
    shutil.make_archive(str(folder / "archive"), "zip", ROOT / "examples")
    (folder / "archive.zip").rename(folder / "archive.jpg")
    return {name: folder / name for name in ("huge.png", "note.png", "archive.jpg")}


@pytest.fixture(scope="session")
def app_files(tmp_path_factory) -> Path:
    """Where the application of `app_server` has its temporary folder."""
    return tmp_path_factory.mktemp("app")


@pytest.fixture(scope="session")
def app_server(app_files, run_folders) -> str:
    """The address of the application with the pretrained checkpoints."""
    process, address = start_app(app_files, "--runs_dirs", run_folders)
    yield address
    process.terminate()
    process.wait(timeout=30)


@pytest.fixture(scope="session")
def browser():
    """Chromium, as Debian packages it."""
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Debian's chromium is not installed")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])  # root has no sandbox
        yield started
        started.close()
