"""Draw images from p(image | class), pixel by pixel in raster order."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.incremental import SteppingTwin
from model.mixture import mixture_noise, mixture_sample, to_levels, to_unit
from model.pixelcnn import PixelCNN

__all__ = ["image_generators", "sample"]

Generators = torch.Generator | Sequence[torch.Generator] | None


def image_generators(seed: int, first: int, count: int) -> list[torch.Generator]:
    """One generator an image, number ``first`` and on: image i is the same whatever batch it is drawn in."""
    # torch's CPU generator uses 32 bits of its seed; within a seed the images' are distinct
    base = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return [torch.Generator().manual_seed((base + index) % 2**32) for index in range(first, first + count)]


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
    method: str = "incremental",
    temperature: float = 1.0,
    keep: Tensor | None = None,
    progress: bool = False,
) -> Tensor:
    """Draw one image for each label: labels int64 [B] -> uint8 [B, C, H, W] on the network's device.

    Args:
        net: the network, in eval mode. Under `torch.autocast` its feature maps are of autocast's type.
        image_size: (H, W), both dividing by 4.
        generator: the randomness: one generator for the batch, or a list with one for each image (see
            `image_generators`), or None for torch's own.
        method: "incremental" computes each value once, about one forward pass in all; "full" runs the whole
            network for every pixel, H * W passes. Rounding apart both draw the same images.
        temperature: above 0; 1 draws from the model, less gives likelier images.
        keep: uint8 [B, C, rows, W], the top rows of the images, which are kept; the rest is drawn.
        progress: show a bar over the rows.

    Raises ValueError for a method, image size, generators, temperature or kept rows outside these.
    """
    if method not in ROW_DRAWERS:
        raise ValueError(f"method is {method!r}; it must be one of {', '.join(ROW_DRAWERS)}")
    if min(image_size) < 4 or any(side % 4 for side in image_size):
        raise ValueError(f"image_size is {tuple(image_size)}; both sides must divide by 4")
    if not temperature > 0:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    if isinstance(generator, Sequence) and len(generator) != len(labels):
        raise ValueError(f"{len(generator)} generators for {len(labels)} images; give one for each")
    height, width = image_size
    channels = net.image_channels
    device = next(net.parameters()).device
    labels = labels.to(device)
    images = torch.zeros(len(labels), channels, height, width, dtype=torch.uint8, device=device)
    if keep is not None:
        if keep.shape[2] > height or keep.shape[:2] != images.shape[:2] or keep.shape[3] != width:
            raise ValueError(f"keep is {tuple(keep.shape)}; it must be top rows of images {tuple(images.shape)}")
        images[:, :, : keep.shape[2]] = keep
    kept = 0 if keep is None else keep.shape[2]
    draw_row = ROW_DRAWERS[method](net, labels, images)
    for i in tqdm(range(height), desc="drawing rows", disable=None if progress else True, leave=False):
        uniform = uniform_row(generator, len(labels), net.nr_logistic_mix + channels, width, device)
        gumbel, logistic = mixture_noise(uniform, net.nr_logistic_mix, temperature)
        draw_row(i, gumbel, logistic, given=i < kept)
    return images


class FullRows:
    """Draws a row by running the whole network for every pixel."""

    def __init__(self, net: PixelCNN, labels: Tensor, images: Tensor):
        self.net, self.labels, self.images = net, labels, images
        self.x = to_unit(images)

    def __call__(self, i: int, gumbel: Tensor, logistic: Tensor, given: bool) -> None:
        if given:
            return
        for j in range(self.x.shape[3]):
            self.pixel(i, j, gumbel[:, :, j], logistic[:, :, j])
        self.images[:, :, i] = to_levels(self.x[:, :, i])

    def pixel(self, i: int, j: int, gumbel: Tensor, logistic: Tensor) -> None:
        params = self.net(self.x, self.labels)[:, :, i, j].float()
        self.x[:, :, i, j] = mixture_sample(params, gumbel, logistic)


class IncrementalRows:
    """Draws a row by stepping the network's twin; on CUDA as a graph for each of the four kinds of row.

    Which resolutions step depends on the row number modulo 4 alone. The first four rows run as they are, the next
    four are captured, the others replay them, so that a row costs one launch and not thousands.
    """

    def __init__(self, net: PixelCNN, labels: Tensor, images: Tensor):
        device = images.device
        dtype = torch.get_autocast_dtype(device.type) if torch.is_autocast_enabled(device.type) else torch.float32
        self.device = device
        with torch.autocast(device.type, enabled=False):  # the twin keeps its own types
            self.twin = SteppingTwin(net, labels, images.shape[3], dtype)
        self.images = images
        self.noise: tuple[Tensor, Tensor] | None = None
        self.by_column: list[tuple[Tensor, Tensor]] = []
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def __call__(self, i: int, gumbel: Tensor, logistic: Tensor, given: bool) -> None:
        with torch.autocast(self.device.type, enabled=False):
            if given:
                row = to_unit(self.images[:, :, i])
                self.twin.row(lambda params, j: row[:, :, j])
            else:
                self.images[:, :, i] = to_levels(self.draw(i, gumbel, logistic).float())

    def draw(self, i: int, gumbel: Tensor, logistic: Tensor) -> Tensor:
        if self.noise is None:
            self.noise = gumbel, logistic
            self.by_column = list(zip(gumbel.unbind(2), logistic.unbind(2), strict=True))
        else:
            for kept, new in zip(self.noise, (gumbel, logistic), strict=True):
                kept.copy_(new)  # a captured row reads the randomness from here
        if self.device.type != "cuda" or i < 4:
            return self.twin.row(self.choose)
        if i % 4 not in self.graphs:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                row = self.twin.row(self.choose)
            self.graphs[i % 4] = graph, row
        graph, row = self.graphs[i % 4]
        graph.replay()
        return row

    def choose(self, params: Tensor, j: int) -> Tensor:
        return mixture_sample(params, *self.by_column[j])


ROW_DRAWERS = {"incremental": IncrementalRows, "full": FullRows}
