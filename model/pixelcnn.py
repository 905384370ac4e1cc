"""The conditional PixelCNN++ network: p(image | class) as a mixture of logistics per pixel.

Salimans et al. 2017, "PixelCNN++: Improving the PixelCNN with Discretized Logistic Mixture Likelihood and Other
Modifications". Differences from the paper: class conditioning by early fusion (one-hot maps concatenated to
the input), by middle fusion or FiLM (after every residual block) and by late fusion (at the coarsest resolution and
before the head).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from layers import (
    FUSIONS,
    DownRightShiftedConv2d,
    DownRightShiftedDeconv2d,
    DownShiftedConv2d,
    DownShiftedDeconv2d,
    FiLM,
    GatedResidualBlock,
    LateFusion,
    MiddleFusion,
    NetworkInNetwork,
    NoFusion,
)
from layers.fusion import Condition
from model.mixture import params_per_component

NR_RESOLUTIONS = 3  # full, half, quarter
# allowed image sides: at 512 the published network takes 2.4 GB per image and class
SIDES = range(4, 513, 4)


class Stream(nn.Module):
    """One of the two streams: a U-Net of gated residual blocks over three resolutions.

    Args:
        conv, deconv: classes of shifted convolutions.
        nr_resnet: R; R blocks per resolution in the ``up`` pass (to coarser maps), R, R+1, R+1 in the ``down`` pass.
        nr_filters: F, channels of every map.
        sees_other: whether each block takes the output of the other stream's matching block (ul takes u's).
        dropout: dropout probability in the blocks.
    """

    # one ModuleList of blocks per resolution; Any, as ModuleList has no element type
    up: Any
    down: Any

    def __init__(self, conv: Any, deconv: Any, nr_resnet: int, nr_filters: int, sees_other: bool, dropout: float):
        super().__init__()

        def blocks(count: int, nr_sides: int) -> nn.ModuleList:
            return nn.ModuleList(GatedResidualBlock(conv, nr_filters, nr_sides, dropout) for _ in range(count))

        coarsest = NR_RESOLUTIONS - 1
        counts = [nr_resnet + (level < coarsest) for level in range(NR_RESOLUTIONS)]
        self.up = nn.ModuleList(blocks(nr_resnet, int(sees_other)) for _ in range(NR_RESOLUTIONS))
        self.shrink = nn.ModuleList(conv(nr_filters, nr_filters, stride=2) for _ in range(coarsest))
        self.grow = nn.ModuleList(deconv(nr_filters, nr_filters) for _ in range(coarsest))
        self.down = nn.ModuleList(blocks(count, 1 + int(sees_other)) for count in counts)
        for index, block in enumerate(m for m in self.modules() if isinstance(m, GatedResidualBlock)):
            block.index = index  # index into conditions and features
        self.nr_blocks = index + 1

    def forward(
        self, x: Tensor, conditions: list[Condition], other: dict[int, Tensor] | None = None
    ) -> tuple[Tensor, dict[int, Tensor]]:
        """x [B, F, H, W] -> the last map [B, F, H, W], and every block's output for the other stream."""
        features: dict[int, Tensor] = {}

        def run(block: GatedResidualBlock, x: Tensor, *skip: Tensor) -> Tensor:
            sides = skip if other is None else (other[block.index], *skip)
            features[block.index] = x = block(x, sides, conditions[block.index])
            return x

        return self.unet(x, run, 0), features

    def unet(self, x: Tensor, run: Callable[..., Tensor], level: int) -> Tensor:
        """The U-Net from this resolution down; each block is applied by ``run(block, x, *skip)``."""
        # a method: a recursive closure in `forward` is a reference cycle, and a sampler would leave thousands
        skips = [x]
        for block in self.up[level]:
            skips.append(x := run(block, x))
        if level == NR_RESOLUTIONS - 1:
            skips.pop()  # x itself
        else:
            coarse = self.shrink[level](x)
            if coarse is not None:  # None in incremental sampling where no coarse pixel is due
                coarse = self.unet(coarse.to(x.dtype), run, level + 1)
            x = self.grow[level](coarse).to(x.dtype)
        for block in self.down[level]:
            x = run(block, x, skips.pop())
        return x


class PixelCNN(nn.Module):
    """p(image | class): images [B, C, H, W] in [-1, 1] and labels [B] -> mixture parameters.

    Args:
        nr_resnet: R, residual blocks per resolution.
        nr_filters: F, channels of the feature maps.
        nr_logistic_mix: K, mixture components.
        image_channels: C, 1 or 3.
        num_classes: C_y, classes.
        fusion: class conditioning, one of ``layers.FUSIONS``.
        dropout: in the residual blocks, during training.

    H and W must be multiples of 4. Raises ValueError for settings outside their ranges.
    """

    fusion: MiddleFusion | FiLM | NoFusion
    late: LateFusion | None
    # set by `load_checkpoint`, before which metadata is empty
    class_names: tuple[str, ...]
    image_size: tuple[int, int]
    dataset: str
    metadata: dict[str, Any]

    def __init__(
        self,
        nr_resnet: int = 2,
        nr_filters: int = 80,
        nr_logistic_mix: int = 10,
        image_channels: int = 3,
        num_classes: int = 4,
        fusion: str = "early+middle",
        dropout: float = 0.5,
    ):
        super().__init__()
        self.settings: dict[str, Any] = {
            "nr_resnet": nr_resnet,
            "nr_filters": nr_filters,
            "nr_logistic_mix": nr_logistic_mix,
            "image_channels": image_channels,
            "num_classes": num_classes,
            "fusion": fusion,
            "dropout": dropout,
        }
        for name in ("nr_resnet", "nr_filters", "nr_logistic_mix", "num_classes"):
            if self.settings[name] < 1:
                raise ValueError(f"{name} is {self.settings[name]}; it must be at least 1")
        if image_channels not in (1, 3):
            raise ValueError(f"image_channels is {image_channels}; it must be 1 or 3")
        if fusion not in FUSIONS:
            raise ValueError(f"fusion is {fusion!r}; it must be one of {', '.join(FUSIONS)}")
        if not 0 <= dropout < 1:
            raise ValueError(f"dropout is {dropout}; it must be at least 0 and below 1")
        self.metadata = {}
        self.image_channels, self.num_classes, self.nr_logistic_mix = image_channels, num_classes, nr_logistic_mix

        self.conditional = fusion != "none"
        parts = fusion.split("+")
        self.early = "early" in parts
        c_in = image_channels + 1 + (num_classes if self.early else 0)  # + ones, to distinguish padding
        self.u_init = DownShiftedConv2d(c_in, nr_filters, (2, 3), shift_down=True)
        self.ul_init_above = DownShiftedConv2d(c_in, nr_filters, (1, 3), shift_down=True)
        self.ul_init_left = DownRightShiftedConv2d(c_in, nr_filters, (2, 1), shift_right=True)
        streams: dict[str, Any] = {"nr_resnet": nr_resnet, "nr_filters": nr_filters, "dropout": dropout}
        self.u_stream = Stream(DownShiftedConv2d, DownShiftedDeconv2d, sees_other=False, **streams)
        self.ul_stream = Stream(DownRightShiftedConv2d, DownRightShiftedDeconv2d, sees_other=True, **streams)
        nr_blocks = self.u_stream.nr_blocks + self.ul_stream.nr_blocks
        if "middle" in parts:
            self.fusion = MiddleFusion(num_classes, nr_filters, nr_blocks)
        elif "film" in parts:
            self.fusion = FiLM(num_classes, nr_filters, nr_blocks)
        else:
            self.fusion = NoFusion(nr_blocks)
        self.late = LateFusion(num_classes, nr_filters, self._late_blocks()) if "late" in parts else None
        self.head = NetworkInNetwork(nr_filters, params_per_component(image_channels) * nr_logistic_mix)

    @classmethod
    def from_pretrained(cls, source: str | Path, device: str | torch.device = "cpu") -> "PixelCNN":
        """The network of a checkpoint, in eval mode on ``device``.

        Args:
            source: a .pt file; a folder that `model.export` wrote, or its model.safetensors; or the id of such a
                folder on the Hugging Face Hub, which needs huggingface_hub.
            device: cpu, cuda, ...

        Raises CheckpointError.

        >>> net = PixelCNN.from_pretrained("checkpoints/cpen455.pt")
        >>> net.class_names, net.image_size
        (('burger', 'panda', 'koala', 'pizza'), (32, 32))
        """
        from model.pretrained import load_pretrained  # it imports this module

        return load_pretrained(source, device)

    def classify(self, images: Tensor) -> Tensor:
        """p(class | image) in fp32: uint8 [N, C, H, W] of the checkpoint's size -> float32 [N, num_classes] on the CPU.

        All classes are equally probable before, and the temperature is the checkpoint's, as in classify.py. Raises
        ValueError for other images.

        >>> net = PixelCNN.from_pretrained("checkpoints/cpen455.pt")
        >>> gray = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
        >>> net.classify(gray).shape
        torch.Size([2, 4])
        """
        from model.pretrained import classify

        return classify(self, images)

    def sample(
        self,
        labels: Tensor | Sequence[int | str],
        seed: int | None = None,
        temperature: float | None = None,
        image_size: tuple[int, int] | None = None,
    ) -> Tensor:
        """An image for each label: numbers or names of classes [N] -> uint8 [N, C, H, W] on the network's device.

        Args:
            labels: of the images.
            seed: of the random numbers, a stream for each image; by default torch's generator.
            temperature: above 0; by default the checkpoint's for samples, or 1.
            image_size: (H, W), by default the checkpoint's.

        The network is in eval mode, as `from_pretrained` returns it. Raises ValueError for an unknown class.

        >>> net = PixelCNN.from_pretrained("checkpoints/cpen455_samples.pt")
        >>> net.sample(["panda", "pizza"], seed=1).shape
        torch.Size([2, 3, 32, 32])
        """
        from model.pretrained import draw

        return draw(self, labels, seed, temperature, image_size)

    def _late_blocks(self) -> list[int]:
        """The last block of each stream on its way to the coarsest resolution, and the last one before the head."""
        first_ul = self.u_stream.nr_blocks
        coarsest = self.u_stream.up[-1][-1].index
        return [coarsest, first_ul + coarsest, first_ul + self.ul_stream.down[0][-1].index]

    def join_class(self, x: Tensor, labels: Tensor) -> Tensor:
        """Append a channel of ones and, with early fusion, one-hot maps: [B, C, H, W] -> [B, c_in, H, W]."""
        constant = x.new_ones(x.shape[0], 1)
        if self.early:
            constant = torch.cat((constant, F.one_hot(labels, self.num_classes).to(x.dtype)), dim=1)
        joined = torch.cat((x, constant[:, :, None, None].expand(-1, -1, *x.shape[2:])), dim=1)
        if x.is_cuda and torch.is_autocast_enabled("cuda"):  # tensor cores use 16-bit maps channels-last
            joined = joined.contiguous(memory_format=torch.channels_last)
        return joined

    def conditions(self, labels: Tensor, dtype: torch.dtype) -> tuple[list[Condition], list[Condition]]:
        """Class conditions of each block of the u and of the ul stream, each [B, F, 1, 1]."""

        def shaped(x: Tensor | None) -> Tensor | None:
            return None if x is None else x.to(dtype)[:, :, None, None]

        conditions = self.fusion(labels)
        if self.late is not None:
            conditions = self.late(labels, conditions)
        both = [(shaped(scale), shaped(shift)) for scale, shift in conditions]
        return both[: self.u_stream.nr_blocks], both[self.u_stream.nr_blocks :]

    def forward(self, x: Tensor, labels: Tensor) -> Tensor:
        """x float [B, C, H, W] in [-1, 1], labels int64 [B] -> [B, 10K, H, W] (C = 3) or [B, 3K, H, W] (C = 1).

        Under autocast only the convolutions between feature maps run in 16 bits. Input pixels, mixture parameters
        and residual sums stay in fp32: each would cost nats of log-likelihood in 16 bits.
        """
        x = self.join_class(x, labels)
        with torch.autocast(x.device.type, enabled=False):
            u = self.u_init(x)
            ul = self.ul_init_above(x) + self.ul_init_left(x)
        u_conditions, ul_conditions = self.conditions(labels, u.dtype)
        _, u_features = self.u_stream(u, u_conditions)
        ul, _ = self.ul_stream(ul, ul_conditions, u_features)
        with torch.autocast(x.device.type, enabled=False):
            return self.head(F.elu(ul))
