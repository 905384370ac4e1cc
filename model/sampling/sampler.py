"""Sampling of images from p(image | class), pixel by pixel in raster order."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from model.mixture import mixture_noise, mixture_sample, to_levels, to_unit
from model.pixelcnn import PixelCNN
from model.sampling.incremental import SteppingTwin
from utils.cuda_graph import capture

Generators = torch.Generator | Sequence[torch.Generator] | None

RANDOM_NUMBERS = 2**24  # drawn at a time, for as many rows as possible


def image_generators(seed: int, first: int, count: int) -> list[torch.Generator]:
    """One generator per image, from number ``first``: the random numbers of image i do not depend on its batch."""
    # torch's CPU generator uses 32 bits of its seed; all images of one seed differ
    base = int(np.random.SeedSequence(seed).generate_state(1)[0])
    return [torch.Generator().manual_seed((base + index) % 2**32) for index in range(first, first + count)]


def uniform_rows(generator: Generators, rows: int, batch: int, channels: int, width: int) -> Tensor:
    """Uniform random numbers for the next rows, [rows, B, channels, W] in [0, 1), on the generator's device."""
    if isinstance(generator, Sequence):
        return torch.stack([torch.rand(rows, channels, width, generator=g) for g in generator], dim=1)
    where = generator.device if generator is not None else "cpu"
    return torch.rand(rows, batch, channels, width, generator=generator, device=where)


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

    See `Sampler`, which reuses its state across batches.
    """
    return Sampler(net, image_size, method)(labels, generator, temperature, keep, progress)


class Sampler:
    """Draws batches of images; state such as CUDA graphs is reused by batches of one size.

    Runs in fp32, also under autocast: residual sums in 16 bits cost nats of log-likelihood. Weight norms are folded,
    so create a new one after training steps.

    Args:
        net: the network, in eval mode.
        image_size: (H, W), multiples of 4.
        method: "incremental" caches causal convolutions, about one forward pass in total; "full" (naive sampling)
            runs the network for every pixel, H * W passes. Both draw the same images up to rounding.
        graphs: whether to replay rows as CUDA graphs; None means on CUDA. A smaller batch than before is then padded,
            so that no new graphs are captured.

    Raises ValueError for an invalid image size or method.
    """

    def __init__(
        self,
        net: PixelCNN,
        image_size: tuple[int, int],
        method: str = "incremental",
        graphs: bool | None = None,
    ):
        if method not in ROW_DRAWERS:
            raise ValueError(f"method is {method!r}; it must be one of {', '.join(ROW_DRAWERS)}")
        if min(image_size) < 4 or any(side % 4 for side in image_size):
            raise ValueError(f"image_size is {tuple(image_size)}; both sides must be multiples of 4")
        self.net, self.image_size, self.method = net, tuple(image_size), method
        self.device = next(net.parameters()).device
        self.graphs = method == "incremental" and (self.device.type == "cuda" if graphs is None else graphs)
        self.images = torch.empty(0)
        self.rows: Any = None  # IncrementalRows or FullRows, or None before the first batch

    def _prepare(self, count: int) -> None:
        """Create the state for batches of ``count`` images, unless it can be reused."""
        if self.rows is None or count > len(self.images) or (count < len(self.images) and not self.graphs):
            self.rows = None  # first: memory may not suffice for both
            shape = (count, self.net.image_channels, *self.image_size)
            self.images = torch.zeros(shape, dtype=torch.uint8, device=self.device)
            self.rows = ROW_DRAWERS[self.method](self.net, self.images, self.graphs)

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """Make the network's device current, and disable autocast and TF32."""
        cudnn, tf32 = torch.backends.cudnn, torch.backends.cudnn.allow_tf32
        with ExitStack() as stack:
            stack.enter_context(torch.autocast(self.device.type, enabled=False))
            if self.device.type == "cuda":
                stack.enter_context(torch.cuda.device(self.device))
                stack.callback(setattr, cudnn, "allow_tf32", tf32)
                cudnn.allow_tf32 = False
            yield

    @contextmanager
    def _whole_or_nothing(self) -> Iterator[None]:
        """Discard the state of a batch that fails, such as by running out of memory."""
        try:
            yield
        except BaseException:
            self.rows, self.images = None, torch.empty(0)
            raise

    @torch.inference_mode()
    def __call__(
        self,
        labels: Tensor,
        generator: Generators = None,
        temperature: float = 1.0,
        keep: Tensor | None = None,
        progress: bool = False,
    ) -> Tensor:
        """Draw one image for each label: labels int64 [N] -> uint8 [N, C, H, W] on the network's device.

        Args:
            generator: the randomness: one generator for the batch, or a list with one for each image (see
                `image_generators`), or None for torch's default.
            temperature: above 0; 1 samples from the model, lower values give more likely images.
            keep: uint8 [N, C, rows, W], the top rows of the images; only the rows below are drawn.
            progress: show a progress bar over rows.

        Raises ValueError for invalid generators, temperature or kept rows.
        """
        quiet = None if progress else True
        with tqdm(total=self.image_size[0], desc="drawing rows", disable=quiet, leave=False) as bar:
            for _ in self.rows_of(labels, generator, temperature, keep):
                bar.update()
        return self.images[: len(labels)].clone()

    @torch.inference_mode()
    def rows_of(
        self,
        labels: Tensor,
        generator: Generators = None,
        temperature: float = 1.0,
        keep: Tensor | None = None,
    ) -> Iterator[Tensor]:
        """Draw the same images, and yield them after each of the H rows, the kept ones too.

        Each is uint8 [N, C, H, W] on the network's device, whose lower rows hold anything. The next row overwrites it.
        Arguments and errors as above. Another batch must not begin before the end, or before this is closed.
        """
        count, channels, (height, width) = len(labels), self.net.image_channels, self.image_size
        if not temperature > 0:
            raise ValueError(f"temperature is {temperature}; it must be above 0")
        if isinstance(generator, Sequence) and len(generator) != count:
            raise ValueError(f"{len(generator)} generators for {count} images; give one for each")
        shape = (count, channels, height, width)
        if keep is not None and (keep.shape[2] > height or keep[:, :, :0].shape != (*shape[:2], 0, width)):
            raise ValueError(f"keep is {tuple(keep.shape)}; it must hold the top rows of images {shape}")
        kept = 0 if keep is None else keep.shape[2]
        components = self.net.nr_logistic_mix
        with self._whole_or_nothing():
            with self._on_device():
                self._prepare(count)
                batch = len(self.images)
                filled = torch.arange(batch).clamp(max=count - 1)  # the last image is repeated to pad the batch
                if keep is not None:
                    self.images[:, :, :kept] = keep[filled.to(keep.device)].to(self.device)
                self.rows.begin(labels[filled.to(labels.device)].to(self.device))
            together = min(height, max(1, RANDOM_NUMBERS // (batch * (components + channels) * width)))  # rows
            for i in range(height):
                with self._on_device():  # left before the row is yielded: it is a state of the thread
                    if i % together == 0:
                        rows = min(together, height - i)
                        uniform = uniform_rows(generator, rows, count, components + channels, width)
                        uniform = uniform[:, filled.to(uniform.device)].to(self.device)
                        noise = mixture_noise(uniform.flatten(0, 1), components, temperature)
                        gumbel, logistic = (x.unflatten(0, (rows, batch)) for x in noise)
                    self.rows(i, gumbel[i % together], logistic[i % together], given=i < kept)
                yield self.images[:count]


class FullRows:
    """Draws a row by running the whole network for every pixel (naive sampling)."""

    def __init__(self, net: PixelCNN, images: Tensor, graphed: bool = False):
        self.net, self.images = net, images

    def begin(self, labels: Tensor) -> None:
        self.labels, self.x = labels, to_unit(self.images)

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
    """Draws a row with the incremental network; on CUDA as a graph for each of the four kinds of row.

    A row's kind is its index modulo 4, which determines the resolutions to compute. The first row of each kind runs
    eagerly, the second is captured, later ones are replayed, also in later batches: one launch instead of thousands.

    Args:
        net: the network.
        images: uint8 [B, C, H, W], to which rows are written.
        graphed: whether rows are captured and replayed.
    """

    def __init__(self, net: PixelCNN, images: Tensor, graphed: bool):
        self.images, self.graphed = images, graphed
        self.twin = SteppingTwin(net, len(images), images.shape[3])
        self.noise: tuple[Tensor, Tensor] | None = None
        self.by_column: list[tuple[Tensor, Tensor]] = []
        self.drawn: set[int] = set()  # kinds of rows
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, Tensor]] = {}

    def begin(self, labels: Tensor) -> None:
        self.twin.begin(labels)

    def __call__(self, i: int, gumbel: Tensor, logistic: Tensor, given: bool) -> None:
        self.twin.start_row(i)
        if given:
            row = to_unit(self.images[:, :, i])
            self.twin.row(lambda params, j: row[:, :, j])
        else:
            self.images[:, :, i] = to_levels(self.draw(i % 4, gumbel, logistic))

    def draw(self, kind: int, gumbel: Tensor, logistic: Tensor) -> Tensor:
        if self.noise is None:
            self.noise = gumbel.clone(), logistic.clone()
            self.by_column = list(zip(*(x.unbind(2) for x in self.noise), strict=True))
        else:
            for kept, new in zip(self.noise, (gumbel, logistic), strict=True):
                kept.copy_(new)  # a captured row reads its noise from here
        if not self.graphed or kind not in self.drawn:
            self.drawn.add(kind)
            return self.twin.row(self.choose)
        if kind not in self.graphs:
            self.graphs[kind] = capture(lambda: self.twin.row(self.choose))
        graph, row = self.graphs[kind]
        graph.replay()
        return row

    def choose(self, params: Tensor, j: int) -> Tensor:
        return mixture_sample(params, *self.by_column[j])


ROW_DRAWERS = {"incremental": IncrementalRows, "full": FullRows}
