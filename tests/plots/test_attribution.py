import numpy as np
import torch

from plots.attribution import attribution_picture


def test_a_map_is_red_for_the_first_class_and_blue_for_the_second():
    nats = torch.zeros(4, 4)
    nats[:, 0], nats[:, 3] = 2.0, -2.0
    picture = attribution_picture(torch.full((3, 4, 4), 128, dtype=torch.uint8), nats, side=40)
    assert picture.size == (40, 40) and picture.mode == "RGB"
    pixels = np.asarray(picture).astype(int)
    red, _, blue = pixels[5, 5]
    assert red > blue + 50
    red, _, blue = pixels[5, 35]
    assert blue > red + 50
    assert np.ptp(pixels[5, 15]) < 5  # nothing speaks for either


def test_gray_images_and_a_map_of_zeros():
    picture = attribution_picture(torch.zeros(1, 8, 8, dtype=torch.uint8), torch.zeros(8, 8))
    assert picture.size == (384, 384)
