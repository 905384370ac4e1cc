"""Draw images from p(image | class), pixel by pixel in raster order."""

from collections.abc import Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from model.mixture import mixture_sample, to_levels
from model.pixelcnn import PixelCNN

__all__ = ["image_generators", "sample"]

Generators = torch.Generator | Sequence[torch.Generator] | None


def image_generators(seed: int, first: int, count: int) -> list[torch.Generator]:
    """One generator an image, number ``first`` and on: image i is the same whatever batch it is drawn in."""
    return [torch.Generator().manual_seed((seed << 32) + index) for index in range(first, first + count)]


def uniform_row(generator: Generators, batch: int, channels: int, width: int, device) -> Tensor:
    """The randomness of one row of pixels, [B, channels, W] in [0, 1)."""
    if isinstance(generator, Sequence):
        return torch.stack([torch.rand(channels, width, generator=g) for g in generator]).to(device)
    where = generator.device if generator is not None else "cpu"
    return torch.rand(batch, channels, width, generator=generator, device=where).to(device)


@torch.inference_mode()
def sample(
    net: PixelCNN,
    labels: Tensor,
    image_size: tuple[int, int],
    generator: Generators = None,
    method: str = "full",
    temperature: float = 1.0,
    progress: bool = False,
) -> Tensor:
    """Draw one image for each label: labels int64 [B] -> uint8 [B, C, H, W] on the network's device.

    Args:
        net: the network, in eval mode.
        image_size: (H, W), both dividing by 4.
        generator: the randomness: one generator for the batch, or a list with one for each image (see
            `image_generators`), or None for torch's own.
        method: "full" runs the whole network for every pixel.
        temperature: above 0; 1 draws from the model, less gives likelier images.
        progress: show a bar over the rows.

    Raises ValueError for a method, image size or temperature outside these.
    """
    if method != "full":
        raise ValueError(f"method is {method!r}; it must be 'full'")
    if min(image_size) < 4 or any(side % 4 for side in image_size):
        raise ValueError(f"image_size is {tuple(image_size)}; both sides must divide by 4")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    height, width = image_size
    channels = net.image_channels
    device = next(net.parameters()).device
    labels = labels.to(device)
    x = torch.zeros(len(labels), channels, height, width, device=device)
    for i in tqdm(range(height), desc="drawing rows", disable=not progress, leave=False):
        uniform = uniform_row(generator, len(labels), net.nr_logistic_mix + channels, width, device)
        for j in range(width):
            params = net(x, labels)[:, :, i, j].float()
            x[:, :, i, j] = mixture_sample(params, uniform[:, :, j], channels, temperature)
    return to_levels(x)
