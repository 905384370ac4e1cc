"""The discriminative baseline: a ResNet (He et al. 2016) for small images, its file, and its scores of images.

`evaluation.baseline` trains it.
"""

from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from evaluation.scoring import maps_at_a_time
from model import check_description, check_tensors, to_unit, torch_load, write_checkpoint
from utils.errors import CheckpointError, reason
from utils.memory import FittingBatches
from utils.precision import Precision, autocast, pick_precision

if TYPE_CHECKING:
    from torchvision.models.resnet import ResNet

FORMAT = "resnet baseline 1"
WIDTH = 64  # channels of the first stage; each further one has twice as many at half the resolution
MOST_STAGES = 4
MOST_BLOCKS = 100  # of a stage


def build_baseline(blocks: Sequence[int], image_channels: int, num_classes: int) -> "ResNet":
    """A ResNet of 1 to 4 stages of basic blocks, ``blocks`` of them in each: float [B, C, H, W] -> logits [B, classes].

    The first convolution keeps the resolution, and no pooling follows, as is usual for images of 32x32 pixels. The
    attribute ``image_channels`` is C.
    """
    from torchvision.models.resnet import BasicBlock, ResNet

    missing = MOST_STAGES - len(blocks)
    net = ResNet(BasicBlock, [*blocks, *[1] * missing], num_classes)
    net.conv1 = nn.Conv2d(image_channels, WIDTH, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(net.conv1.weight, mode="fan_out", nonlinearity="relu")  # as torchvision's own
    net.maxpool = nn.Identity()
    for stage in range(len(blocks), MOST_STAGES):
        setattr(net, f"layer{stage + 1}", nn.Identity())
    net.fc = nn.Linear(WIDTH << (len(blocks) - 1), num_classes)
    net.image_channels = image_channels
    return net


def save_baseline(
    path: str | Path,
    net: "ResNet",
    blocks: Sequence[int],
    *,
    image_size: tuple[int, int],
    class_names: Sequence[str],
    dataset: str,
    **more: Any,
) -> None:
    """Write the network with everything needed to use it again; ``more`` holds plain values and tensors only.

    An existing file at ``path`` is replaced only after the new one was written and read back. Raises CheckpointError.
    """
    counters = "num_batches_tracked"  # which nothing reads
    content = {
        "format": FORMAT,
        "blocks": list(blocks),
        "weights": {name: value for name, value in net.state_dict().items() if not name.endswith(counters)},
        "image_size": list(image_size),
        "class_names": list(class_names),
        "dataset": dataset,
        **more,
    }
    write_checkpoint(path, content, load_baseline)


def is_baseline(path: str | Path) -> bool:
    """Whether a file is one of `save_baseline`, and not a checkpoint of a PixelCNN++. Raises CheckpointError."""
    content = torch_load(path)
    return isinstance(content, dict) and content.get("format") == FORMAT


def load_baseline(path: str | Path, device: str | torch.device = "cpu") -> "ResNet":
    """The network of a file of `save_baseline`, in eval mode on ``device``.

    Sets the network's attributes ``class_names`` (tuple of str, in composed Unicode), ``image_size`` (H, W),
    ``dataset`` (str) and ``metadata`` (all other entries of the file). Raises CheckpointError.
    """
    content = torch_load(path)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointError(f"{path} is not a baseline; give a file that python -m evaluation.baseline wrote")
    missing = {"blocks", "weights", "image_size", "class_names", "dataset"} - content.keys()
    if missing:
        raise CheckpointError(f"{path} lacks {', '.join(sorted(missing))}; it cannot be used")
    blocks, weights, names = content.pop("blocks"), content.pop("weights"), content.pop("class_names")
    try:
        names, size = check_description(names, content.pop("image_size"))
        check_blocks(blocks)
        check_tensors(weights)
        if any((value < 0).any() for name, value in weights.items() if name.endswith("running_var")):
            raise ValueError("a running variance is negative")
        with torch.device("meta"):  # allocates nothing before the shapes are checked
            channels = weights["conv1.weight"].shape[1]
            if channels not in (1, 3):
                raise ValueError(f"images of {channels} channels")
            net = build_baseline(blocks, channels, len(names))
        net.load_state_dict(weights, assign=True)  # BatchNorm makes up for its counters
    except (RuntimeError, TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
        raise CheckpointError(f"{path} is inconsistent and cannot be used: {reason(error)}") from None
    net.class_names, net.image_size = names, size
    net.dataset = str(content.pop("dataset"))
    net.metadata = content
    return net.float().to(device).eval()


def check_blocks(blocks: Any) -> None:
    """Raise ValueError unless ``blocks`` are those of a network that can be built."""
    if not isinstance(blocks, list) or not 1 <= len(blocks) <= MOST_STAGES:
        raise ValueError(f"blocks is not a list of 1 to {MOST_STAGES} numbers")
    if not all(isinstance(number, int) and 1 <= number <= MOST_BLOCKS for number in blocks):
        raise ValueError(f"blocks has a number that is not from 1 to {MOST_BLOCKS}")


class BaselineScorer:
    """log p(class | image) of images by a baseline as it is now; a `Score`.

    Args:
        net: the network, with its ``image_size``; its mode does not matter.
        precision: of the network.
        batch_size: images at a time, None for the device's default; halved, for good, when memory runs out.
    """

    def __init__(self, net: "ResNet", precision: Precision = "fp32", batch_size: int | None = None):
        self.net = deepcopy(net).to(memory_format=torch.channels_last).requires_grad_(False).eval()
        self.device = net.fc.weight.device
        self.precision = pick_precision(precision, self.device)
        self.batches = FittingBatches(batch_size or maps_at_a_time(self.device, net.image_size))

    @property
    def batch_size(self) -> int:
        """Images at a time."""
        return self.batches.batch_size

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 [N, C, H, W] -> nats float32 [N, num_classes], on the CPU.

        Raises UserError where not even one image fits.
        """
        item = f"{images.shape[2]}x{images.shape[3]} image"
        scores = [scores for _, scores in self.batches.map(self.score_batch, images, item)]
        return torch.cat([torch.empty(0, self.net.fc.out_features), *scores])

    @torch.inference_mode()
    def score_batch(self, images: Tensor) -> Tensor:
        """The same, all images at once."""
        x = to_unit(images.to(self.device)).contiguous(memory_format=torch.channels_last)
        with autocast(self.precision, self.device):
            logits = self.net(x)
        return logits.float().log_softmax(dim=1).cpu()
