"""Roughness of images, and samples that are derailed into noise."""

import pytest
import torch

from evaluation.samples.derailed import roughness


@pytest.mark.parametrize(("channels", "height", "width"), [(1, 16, 20), (3, 8, 32), (3, 12, 12), (1, 4, 4)])
def test_a_checkerboard_has_the_difference_of_its_levels(channels, height, width):
    board = (torch.arange(height)[:, None] + torch.arange(width)) % 2
    images = torch.stack([board * 200 + 50, board * 0 + 7]).to(torch.uint8)[:, None].expand(-1, channels, -1, -1)
    assert roughness(images).tolist() == [200.0, 0.0]
    assert roughness(images).dtype == torch.float64


def test_stripes_have_half_of_it():
    stripes = (torch.arange(24) % 2 * 100).to(torch.uint8).expand(2, 1, 24, 24)
    assert roughness(stripes).tolist() == [50.0, 50.0]  # 12 x 11 pairs in each direction, and half of them differ
    assert roughness(stripes.mT).tolist() == [50.0, 50.0]


def test_the_mean_is_over_the_pairs_of_the_window_and_the_channels():
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[0, 1, 16, 16] = 240  # four pairs of one channel, in a window of 2 x 12 x 11 pairs
    assert roughness(image).item() == pytest.approx(240 * 4 / (2 * 12 * 11 * 3))
    edges = torch.zeros(1, 1, 32, 32, dtype=torch.uint8)
    edges[0, 0, :, 20:] = 240  # twelve of the pairs
    assert roughness(edges).item() == pytest.approx(240 * 12 / (2 * 12 * 11))


def test_a_patch_of_noise_is_found_anywhere():
    generator = torch.Generator().manual_seed(0)
    smooth = torch.arange(32).expand(4, 3, 32, 32).to(torch.uint8) * 4
    noisy = smooth.clone()
    for image, (top, left) in zip(noisy, [(0, 0), (20, 20), (7, 13), (20, 0)], strict=True):
        patch = torch.randint(0, 256, (3, 12, 12), generator=generator, dtype=torch.uint8)
        image[:, top : top + 12, left : left + 12] = patch
    assert roughness(smooth).tolist() == [2.0] * 4  # 4 levels from column to column, none from row to row
    assert (roughness(noisy) - 256 / 3).abs().max() < 10  # the mean difference of two uniform levels
