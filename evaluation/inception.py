"""Features of pytorch-fid's Inception network, and the file of its weights."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d
from tqdm import tqdm

from utils.console import notify
from utils.download import download
from utils.errors import DataError, UserError, reason, summary
from utils.files import file_hash
from utils.text import printable

OFFICIAL_SHA256 = "6726825d"  # the first digits, which the official file carries in its name
BATCH_SIZE = 50  # pytorch-fid's own


class InceptionFeatures:
    """pytorch-fid's Inception network, from images to features.

    Args:
        dims: features per image, 64, 192, 768 or 2048: the channels of the block whose output is averaged.
        weights: a copy of pytorch-fid's weights; None is the official file in torch's cache, downloaded if missing.
        device: where the network runs.

    Attributes:
        weights: the file that was loaded.
        weights_sha256: its sha256 in hexadecimal.

    Raises UserError where pytorch-fid cannot be imported or there are no usable weights; the message is one line with
    the file and the folder to put it in.
    """

    def __init__(self, dims: int = 2048, weights: str | Path | None = None, device: torch.device | str = "cpu"):
        try:
            import pytorch_fid.inception  # noqa: F401
        except ImportError as error:
            raise UserError(f"pytorch-fid cannot be imported ({summary(error)}): pip install pytorch-fid") from error
        self.dims, self.device = dims, torch.device(device)
        self.weights = given_weights(weights) if weights else official_weights()
        self.network = load_network(dims, self.weights).to(self.device)
        self.weights_sha256 = file_hash(self.weights)

    @property
    def official(self) -> bool:
        """Whether the weights are those that every published FID is computed with."""
        return self.weights_sha256.startswith(OFFICIAL_SHA256)

    @torch.no_grad()
    def __call__(self, images: Tensor | Sequence[Path]) -> np.ndarray:
        """pytorch-fid's features of images.

        Args:
            images: uint8 [N, C, H, W], C = 1 or 3, or N image files of any size; gray becomes RGB. N at least 1.

        Returns:
            float64 [N, dims].

        Raises DataError for a file that cannot be decoded.
        """
        features = []
        batches = images.cpu().split(BATCH_SIZE) if isinstance(images, Tensor) else read_batches(images)
        with tqdm(total=len(images), desc="Inception", unit=" images", leave=False, disable=None) as bar:
            for batch in batches:
                pixels = batch.expand(-1, 3, -1, -1).contiguous().float() / 255  # on the CPU, as pytorch-fid divides
                maps = self.network(pixels.to(self.device))[0]  # [N, dims, H', W'], of 2048 dims [N, 2048, 1, 1]
                features.append(adaptive_avg_pool2d(maps, 1).flatten(1).cpu().double().numpy())
                bar.update(len(batch))
        return np.concatenate(features)


def read_batches(files: Sequence[Path]) -> Iterator[Tensor]:
    """Image files in their order as uint8 [n, 3, H, W], n at most 50; images of another size start a new batch.

    Raises DataError for a file that cannot be decoded.
    """
    batch: list[Tensor] = []
    for file in files:
        image = read_rgb(file)
        if batch and (len(batch) == BATCH_SIZE or image.shape != batch[0].shape):
            yield torch.stack(batch)
            batch = []
        batch.append(image)
    if batch:
        yield torch.stack(batch)


def read_rgb(file: Path) -> Tensor:
    """An image file as uint8 [3, H, W], converted by Pillow alone, as pytorch-fid does. Raises DataError."""
    try:
        with Image.open(file) as image:
            return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    except Exception as error:  # on garbage, Pillow's decoders raise nearly every built-in exception
        raise DataError(f"{printable(file)}: not a readable image ({reason(error)}); replace or remove it") from error


def given_weights(weights: str | Path) -> Path:
    """The file of --fid_weights. Raises UserError where there is none."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    file = Path(weights)
    if not file.is_file():
        name = os.path.basename(FID_WEIGHTS_URL)
        raise UserError(f"--fid_weights {printable(file)}: no such file; give a copy of {name}")
    return file


def cached_weights() -> Path | None:
    """The official file in torch's cache; None where it is not there."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(FID_WEIGHTS_URL))
    return file if file.is_file() else None


def official_weights() -> Path:
    """The official file in torch's cache, downloaded if missing. Raises UserError where that fails."""
    from pytorch_fid.inception import FID_WEIGHTS_URL

    if (cached := cached_weights()) is not None:
        return cached
    file = Path(torch.hub.get_dir(), "checkpoints", os.path.basename(FID_WEIGHTS_URL))
    notify(f"downloading {FID_WEIGHTS_URL} to {printable(file.parent)}")
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        download(FID_WEIGHTS_URL, file, OFFICIAL_SHA256)
    except Exception as error:  # network and disk errors have no common class
        raise UserError(
            f"the Inception weights {file.name} are not in {printable(file.parent)} and could not be downloaded "
            f"({summary(error)}); put the file there, or give --fid_weights FILE. It is at {FID_WEIGHTS_URL}"
        ) from error
    return file


def load_network(dims: int, file: Path) -> torch.nn.Module:
    """pytorch-fid's network up to the block with ``dims`` channels, in eval mode.

    Raises UserError where the file does not hold its weights.
    """
    from pytorch_fid import inception

    block = inception.InceptionV3.BLOCK_INDEX_BY_DIM[dims]
    try:
        weights = torch.load(file, map_location="cpu", weights_only=True)  # a file from anywhere must not run code
        # The constructor always loads its weights through this function, which knows one place only and would run
        # code in the file; it has no argument for weights, so the function gives it those loaded here.
        load = patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights)
        with load, torch.random.fork_rng(devices=[]):  # a new network draws weights, which are then overwritten
            return inception.InceptionV3([block]).eval()
    except Exception as error:  # disk, unpickling and shape errors have no common class
        problem = f"{printable(file)} does not hold pytorch-fid's Inception weights ({summary(error)}); replace it"
        raise UserError(problem) from error
