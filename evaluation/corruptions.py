"""Corruptions of images in five strengths, to measure how robust a classifier is.

All but the last two are those of Hendrycks and Dietterich (2019) with their strengths for 32x32 pixels (CIFAR-10-C);
rotation and occlusion are added here. Other sizes take the same strengths.
"""

import hashlib
import io
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from utils.errors import UserError

CORRUPTIONS: dict[str, tuple[float, ...]] = {  # strengths 1 to 5
    "gaussian_noise": (0.04, 0.06, 0.08, 0.09, 0.10),  # standard deviation, of the range of levels
    "gaussian_blur": (0.4, 0.6, 0.7, 0.8, 1.0),  # standard deviation, pixels
    "jpeg": (80, 65, 58, 50, 40),  # quality
    "brightness": (0.05, 0.1, 0.15, 0.2, 0.3),  # added to the value in HSV, of its range
    "contrast": (0.75, 0.5, 0.4, 0.3, 0.15),  # factor
    "pixelate": (0.95, 0.9, 0.85, 0.75, 0.65),  # factor of the side
    "rotation": (5, 15, 25, 35, 45),  # degrees, in either direction; the border is reflected
    "occlusion": (0.2, 0.3, 0.4, 0.5, 0.6),  # side of a gray square somewhere, of the shorter side
}
GRAY = 128


def corrupt(images: Tensor, name: str, strength: int, seed: int = 0) -> Tensor:
    """The corrupted images.

    Noise, direction and place depend on the seed and the image alone, not on the other images or the order.

    Args:
        images: uint8 [N, C, H, W], C = 1 or 3.
        name: a key of CORRUPTIONS.
        strength: 1 to 5.
        seed: at least 0.

    Returns:
        uint8 [N, C, H, W].

    Raises UserError for another name or strength.
    """
    if name not in CORRUPTIONS:
        raise UserError(f"no corruption {name!r}: choose one of {', '.join(CORRUPTIONS)}")
    if strength not in range(1, 6):
        raise UserError(f"a corruption has no strength {strength!r}: choose 1 to 5")
    apply, amount = FUNCTIONS[name], CORRUPTIONS[name][strength - 1]
    results = torch.empty_like(images, device="cpu")
    for result, image in zip(results, images.cpu().numpy(), strict=True):
        levels = apply(image, amount, image_generator(image, seed))
        result.copy_(torch.from_numpy(levels.round().clip(0, 255).astype(np.uint8)))
    return results


def image_generator(image: np.ndarray, seed: int) -> np.random.Generator:
    """Random numbers that depend on the pixels and the seed alone."""
    digest = hashlib.sha256(image.tobytes()).digest()
    return np.random.default_rng([seed, int.from_bytes(digest[:8])])


# Each takes an image, uint8 [C, H, W], the amount in CORRUPTIONS and random numbers, and returns levels [C, H, W].


def gaussian_noise(image: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    return image + 255 * deviation * random.standard_normal(image.shape)


def gaussian_blur(image: np.ndarray, deviation: float, random: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(image.astype(np.float64), deviation, mode="nearest", axes=(1, 2))


def jpeg(image: np.ndarray, quality: float, random: np.random.Generator) -> np.ndarray:
    file = io.BytesIO()
    to_pillow(image).save(file, "JPEG", quality=int(quality))
    with Image.open(file) as compressed:
        return from_pillow(compressed)


def brightness(image: np.ndarray, amount: float, random: np.random.Generator) -> np.ndarray:
    from matplotlib.colors import hsv_to_rgb, rgb_to_hsv

    if len(image) == 1:
        return image + 255 * amount
    hsv = rgb_to_hsv(image.transpose(1, 2, 0) / 255)
    hsv[..., 2] = np.minimum(hsv[..., 2] + amount, 1)
    return 255 * hsv_to_rgb(hsv).transpose(2, 0, 1)


def contrast(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    mean = image.mean(axis=(1, 2), keepdims=True)
    return mean + factor * (image - mean)


def pixelate(image: np.ndarray, factor: float, random: np.random.Generator) -> np.ndarray:
    whole = to_pillow(image)
    small = whole.resize([max(1, int(side * factor)) for side in whole.size], Image.Resampling.BOX)
    return from_pillow(small.resize(whole.size, Image.Resampling.BOX))


def rotation(image: np.ndarray, degrees: float, random: np.random.Generator) -> np.ndarray:
    from scipy.ndimage import rotate

    angle = random.choice([-degrees, degrees])
    return rotate(image.astype(np.float64), angle, axes=(1, 2), reshape=False, order=1, mode="reflect")


def occlusion(image: np.ndarray, share: float, random: np.random.Generator) -> np.ndarray:
    height, width = image.shape[1:]
    side = max(1, round(share * min(height, width)))
    top, left = random.integers(height - side + 1), random.integers(width - side + 1)
    occluded = image.copy()
    occluded[:, top : top + side, left : left + side] = GRAY
    return occluded


def to_pillow(image: np.ndarray) -> Image.Image:
    """uint8 [C, H, W], C = 1 or 3, as an image of Pillow."""
    return Image.fromarray(image[0] if len(image) == 1 else np.ascontiguousarray(image.transpose(1, 2, 0)))


def from_pillow(image: Image.Image) -> np.ndarray:
    """The inverse of `to_pillow`."""
    levels = np.array(image)
    return levels[None] if levels.ndim == 2 else levels.transpose(2, 0, 1)


FUNCTIONS: dict[str, Callable[[np.ndarray, float, np.random.Generator], np.ndarray]] = {
    "gaussian_noise": gaussian_noise,
    "gaussian_blur": gaussian_blur,
    "jpeg": jpeg,
    "brightness": brightness,
    "contrast": contrast,
    "pixelate": pixelate,
    "rotation": rotation,
    "occlusion": occlusion,
}
