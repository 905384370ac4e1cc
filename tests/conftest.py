"""Fixtures that several folders of tests share."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from hypothesis import settings

settings.register_profile("timeless", deadline=None)  # machines are slow at times
settings.load_profile("timeless")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script():
    """Run a script of the repository as a user would: script("classify.py", "--help") -> CompletedProcess."""

    def run(name: str, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / name), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)

    return run


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
