from pathlib import Path

import numpy as np
import pytest
import torch

from model import PixelCNN, save_checkpoint
from tests.model.checkpoints import ABOUT

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(autouse=True)
def _seed_and_one_thread():
    """Networks this small lose by threads, a hundredfold where other programs hold the cores."""
    torch.manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(params=["cpu", "cuda"])
def device(request, monkeypatch):
    if request.param == "cuda":
        if not torch.cuda.is_available():
            pytest.skip("no CUDA device")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # 10 bits of mantissa are too few here
    return torch.device(request.param)


@pytest.fixture(scope="session")
def starter_path():
    """A state dict of the starter code."""
    return GOLDEN / "starter_r1_f8_m3.pth"


@pytest.fixture(scope="session")
def golden():
    """golden("starter_r1_f8_m3") -> the arrays of that file as tensors."""

    def read(name):
        with np.load(GOLDEN / f"{name}.npz") as arrays:
            return {key: torch.from_numpy(arrays[key]) for key in arrays}

    return read


@pytest.fixture(scope="session")
def make_net():
    """A small network in eval mode of which no weight is zero, FiLM's tables included; settings override."""

    def make(**settings):
        net = PixelCNN(**{"nr_resnet": 1, "nr_filters": 4, "nr_logistic_mix": 2, "num_classes": 3} | settings)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        return net.eval()

    return make


@pytest.fixture(scope="module")
def good_path(make_net, tmp_path_factory):
    path = tmp_path_factory.mktemp("checkpoint") / "good.pt"
    save_checkpoint(path, make_net(), **ABOUT)
    return path


@pytest.fixture
def contents(good_path):
    """What a good checkpoint holds, as a dict to spoil."""
    return torch.load(good_path, weights_only=True)


@pytest.fixture
def write(tmp_path):
    def write(checkpoint):
        path = tmp_path / "spoilt.pt"
        torch.save(checkpoint, path)
        return path

    return write


@pytest.fixture(scope="session")
def assert_drawn_from():
    """A chi-square test: do the counts [n] follow the probabilities [n]? Five deviations off fails."""

    def check(counts, probabilities):
        expected = probabilities.double() * counts.sum()
        order = expected.argsort(descending=True)
        counts, expected = counts.double()[order], expected[order]
        common = int((expected >= 5).sum())
        assert common > 3, "too few likely outcomes for a test"
        counts = torch.cat((counts[: common - 1], counts[common - 1 :].sum().view(1)))
        expected = torch.cat((expected[: common - 1], expected[common - 1 :].sum().view(1)))
        freedom = common - 1
        chi_square = ((counts - expected) ** 2 / expected).sum()
        assert chi_square < freedom + 5 * (2 * freedom) ** 0.5

    return check
