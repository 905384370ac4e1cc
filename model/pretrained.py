"""What the methods `from_pretrained`, `classify` and `sample` of a network do."""

import math
import operator
import os
import re
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from model.checkpoint import load_checkpoint
from model.exported import CONFIG, WEIGHTS
from model.likelihood import class_log_likelihoods, posterior
from model.pixelcnn import PixelCNN
from model.sampling import image_generators, sample
from model.temperature import posterior_temperature, sample_temperature
from utils.errors import CheckpointError, summary
from utils.text import composed, printable

IMAGES = 64  # images x classes at a time
HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


def load_pretrained(source: str | Path, device: str | torch.device = "cpu") -> PixelCNN:
    """See `PixelCNN.from_pretrained`."""
    is_file = os.path.exists(source) or Path(source).suffix in (".pt", ".safetensors")
    if not is_file and HUB_ID.fullmatch(str(source)):
        source = download(str(source))
    return load_checkpoint(source, device)


def download(name: str) -> Path:
    """The folder of an exported checkpoint on the Hugging Face Hub, from its cache once it is there.

    Raises CheckpointError.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError
    except ImportError:
        raise CheckpointError(
            f"there is no file or folder {printable(name)}; for the Hugging Face Hub, pip install huggingface_hub"
        ) from None
    try:
        files = [hf_hub_download(name, file) for file in (CONFIG, WEIGHTS)]
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        raise CheckpointError(
            f"{printable(name)} is no file or folder here, and was not found on the Hugging Face Hub: {summary(error)}"
        ) from None
    return Path(files[0]).parent


def classify(net: PixelCNN, images: Tensor) -> Tensor:
    """See `PixelCNN.classify`."""
    shape = (net.image_channels, *getattr(net, "image_size", images.shape[2:]))
    if images.dtype != torch.uint8 or images.dim() != 4 or tuple(images.shape[1:]) != shape:
        wanted = ", ".join(map(str, shape))
        raise ValueError(f"images are {images.dtype} {list(images.shape)}; they must be torch.uint8 [N, {wanted}]")
    mode = net.training
    net.eval()
    try:
        batches = images.split(max(1, IMAGES // net.num_classes))
        nats = torch.cat([class_log_likelihoods(net, batch).cpu() for batch in batches])
    finally:
        net.train(mode)
    return posterior(nats, temperature=posterior_temperature(None, net))


def draw(
    net: PixelCNN,
    labels: Tensor | Sequence[int | str],
    seed: int | None,
    temperature: float | None,
    image_size: tuple[int, int] | None,
) -> Tensor:
    """See `PixelCNN.sample`."""
    numbers = torch.as_tensor([class_number(net, label) for label in labels], dtype=torch.int64)
    if not len(numbers):
        raise ValueError("there are no labels; give at least one")
    if temperature is not None and not 0 < temperature < math.inf:
        raise ValueError(f"temperature is {temperature}; it must be above 0")
    temperature = sample_temperature(temperature, net)
    generators = None if seed is None else image_generators(seed, 0, len(numbers))
    return sample(net, numbers, image_size or net.image_size, generators, temperature=temperature)


def class_number(net: PixelCNN, label: int | str | Tensor) -> int:
    """The number of a class of a network, by number or name. Raises ValueError, TypeError."""
    if isinstance(label, str):
        names = getattr(net, "class_names", ())
        if composed(label) not in names:
            raise ValueError(f"there is no class {label!r}; the classes are {', '.join(names)}")
        return names.index(composed(label))
    number = operator.index(label)  # TypeError for a fraction
    if not 0 <= number < net.num_classes:
        raise ValueError(f"label is {number}; the network has {net.num_classes} classes, from 0")
    return number
