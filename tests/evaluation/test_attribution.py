"""Maps of what decided."""

import math
import os
from pathlib import Path

import pytest
import torch
from PIL import Image

import evaluation.attribution
from evaluation.attribution import attribution_maps, check_maps, map_paths, write_attributions
from evaluation.images import Images
from evaluation.predictions import Prediction
from evaluation.scoring import MirrorScorer, Scorer
from model import PixelCNN, log_likelihood, mixture_log_prob, pixel_log_prob
from utils.errors import DataError, UserError


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = PixelCNN(1, 8, 2, 3, 3).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    net.class_names = ("cat", "d/o$g", "owl")
    return net


def test_maps_sum_to_the_difference_of_the_log_likelihoods(net):
    images = torch.randint(0, 256, (5, 3, 8, 12), dtype=torch.uint8)
    best, second = torch.tensor([0, 1, 2, 0, 1]), torch.tensor([1, 2, 0, 2, 0])
    maps = attribution_maps(net, images, best, second)
    assert maps.shape == (5, 8, 12)
    with torch.no_grad():
        difference = log_likelihood(net, images, best) - log_likelihood(net, images, second)
    assert difference.abs().min() > 0.01
    torch.testing.assert_close(maps.sum((1, 2)), difference, rtol=0, atol=1e-3)


def test_a_pixel_s_log_probability_depends_on_no_later_pixel(net):
    images = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    other = images.clone()
    other[:, :, 5:] = 255 - other[:, :, 5:]
    labels = torch.tensor([0]), torch.tensor([1])
    one, two = (attribution_maps(net, pixels, *labels) for pixels in (images, other))
    assert torch.equal(one[:, :5], two[:, :5]) and not torch.equal(one[:, 5:], two[:, 5:])


def test_float64_maps_sum_exactly(net):
    images = torch.randint(0, 256, (2, 3, 8, 8), dtype=torch.uint8)
    x, double = (images.double() - 127.5) / 127.5, net.double()
    with torch.no_grad():
        of_best, of_second = (double(x, torch.tensor([y, y])) for y in (0, 1))
        maps = pixel_log_prob(x, of_best) - pixel_log_prob(x, of_second)
        difference = mixture_log_prob(x, of_best) - mixture_log_prob(x, of_second)
    torch.testing.assert_close(maps.sum((1, 2)), difference, rtol=1e-12, atol=1e-10)


def test_mirrored_maps_are_what_the_mirror_scorer_scores(net, tmp_path, monkeypatch):
    pixels = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    score = MirrorScorer(Scorer(net, "fp32"))
    torch.testing.assert_close(score(pixels), score(pixels.flip(3)))
    maps = []
    monkeypatch.setattr(evaluation.attribution, "plot_attributions", lambda shown, *_, **__: maps.append(shown[0].nats))
    prediction = Prediction("x.png", -1, (), 2, 0, 0.5, 3.0)
    list(write_attributions(net, Images(["x.png"], [-1], pixels.__getitem__), [prediction], tmp_path, mirror=True))
    nats = score(pixels)[0]
    assert maps[0].sum().item() == pytest.approx((nats[2] - nats[0]).item(), abs=1e-3)


def test_pixels_sum_to_the_image():
    params, x = torch.randn(2, 20, 4, 5), torch.rand(2, 3, 4, 5) * 2 - 1
    assert pixel_log_prob(x, params).shape == (2, 4, 5)
    torch.testing.assert_close(pixel_log_prob(x, params).sum((1, 2)), mixture_log_prob(x, params))


def test_pictures_of_all_that_was_labelled(net, tmp_path):
    pixels = torch.randint(0, 256, (14, 3, 8, 8), dtype=torch.uint8)

    def read(i):
        if i == 1:
            raise DataError("gone meanwhile")
        return pixels[i]

    names = ["a/x.png", "b/x.png", "overview.png", *(f"{i}.png" for i in range(11))]
    predictions = [Prediction(name, -1, (), 0, 1, 0.5, 3.0) for name in names]
    predictions[4] = Prediction(names[4], -1, error="broken")
    predictions[5] = Prediction(names[5], -1, (), 0, -1, 1.0, math.nan)  # of a network of one class
    check_maps(names, tmp_path / "maps", [])
    told = list(write_attributions(net, Images(names, [-1] * 14, read), predictions, tmp_path / "maps"))
    written = [path for path in told if isinstance(path, Path)]
    assert len(set(written)) == 14 - 3 and [str(e) for e in told if isinstance(e, DataError)] == ["gone meanwhile"]
    files = {path.name for path in (tmp_path / "maps").iterdir()}
    assert files == {"overview.png", *(path.name for path in written)} and "x.png" in files
    for path in (tmp_path / "maps").iterdir():
        with Image.open(path) as picture:
            assert picture.format == "PNG" and picture.width > 300


def test_batches_halve_when_memory_runs_out(net, tmp_path, monkeypatch):
    pixels = torch.randint(0, 256, (8, 3, 8, 8), dtype=torch.uint8)
    predictions = [Prediction(f"{i}.png", -1, (), 0, 1, 0.5, 3.0) for i in range(8)]
    sizes, maps = [], attribution_maps

    def limited(net, images, best, second):
        sizes.append(len(images))
        if len(images) > 4:
            raise MemoryError
        return maps(net, images, best, second)

    monkeypatch.setattr(evaluation.attribution, "attribution_maps", limited)
    images = Images([p.name for p in predictions], [-1] * 8, pixels.__getitem__)
    assert len(list(write_attributions(net, images, predictions, tmp_path))) == 8 and sizes == [8, 4, 4]


def test_maps_overwrite_no_image(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("photos/a.png", "photos/overview.png"):
        Path(name).touch()
    Path("linked").symlink_to("photos")
    Path("hard").mkdir()
    os.link("photos/a.png", "hard/a.png")

    def check(name: str, folder: str | Path) -> None:
        check_maps([name], folder, [name])

    check("photos/a.png", "maps")
    with pytest.raises(UserError, match=r"--explain photos would overwrite photos/overview\.png; give another folder"):
        check("photos/b.jpg", "photos")  # it is no map, though no input either
    for folder in ("photos", tmp_path / "new" / ".." / "photos", "linked", "hard"):
        for name in ("photos/a.png", "photos/overview.png")[: 1 if folder == "hard" else 2]:
            with pytest.raises(UserError, match=rf"--explain .*{folder} would overwrite {name}, which is an input"):
                check(name, folder)
    assert [path.name for path in map_paths(["confusion.png", "x/Reliability.jpg"], Path("m"))] == [
        "confusion-3.png",
        "Reliability-4.png",
    ]  # so that the figures beside a CSV in the same folder stay
