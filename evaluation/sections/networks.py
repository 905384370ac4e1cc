"""The networks of an evaluation, and their results from the cache."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from data import ImageSet
from evaluation.baseline_network import BaselineScorer, is_baseline, load_baseline
from evaluation.cache import Arrays, Cache, pixel_hash
from evaluation.evaluate import score_all
from evaluation.generation import draw_images
from evaluation.images import check_data_set
from evaluation.scoring import Score, Scorer
from model import checkpoint_hash, load_checkpoint
from model.temperature import sample_temperature
from utils.distributed import gather, in_order, rank, shared_batches
from utils.errors import UserError
from utils.precision import Precision
from utils.text import file_stems, printable

OF_RUNS = ("best", "last")  # checkpoints of pcnn_train.py, called after their run's folder


class Network:
    """A checkpoint of pcnn_train.py or evaluation.baseline.

    Args:
        name: in tables, and in the names of metrics and files.
        path: of the checkpoint.
        device: where it runs.
        precision: of the scores; samples are always fp32.
        batch_size: images at a time, None for the device's default.
        cache: of the results.

    Raises CheckpointError.
    """

    def __init__(
        self,
        name: str,
        path: str,
        device: torch.device,
        precision: Precision,
        batch_size: int | None,
        cache: Cache,
    ):
        self.name, self.path, self.cache, self.batch_size = name, path, cache, batch_size
        self.generative = not is_baseline(path)
        self.sha256 = checkpoint_hash(path)
        self.net: Any = load_checkpoint(path, device) if self.generative else load_baseline(path, device)
        self.scorer: Score
        if self.generative:
            self.scorer = Scorer(self.net, precision, batch_size, self.net.image_size)
        else:
            self.scorer = BaselineScorer(self.net, precision, batch_size)
        self.how = [self.sha256, device.type, precision, self.scorer.batch_size]

    def cached(self, kind: str, what: Sequence[Any], compute: Callable[[], Arrays]) -> Arrays:
        return self.cache.arrays({"kind": kind, "how": self.how, "what": list(what)}, compute)

    def scores(self, images: Tensor, description: str = "scoring") -> Tensor:
        """uint8 [N, C, H, W] -> float32 [N, num_classes]: log p(image | class) in nats; of a baseline
        log p(class | image)."""
        kept = self.cached(
            "scores",
            [pixel_hash(images)],
            lambda: {"scores": score_all(self.scorer, images, f"{description}, {self.name}").numpy()},
        )
        return torch.from_numpy(kept["scores"])

    def log_likelihood(self, split: ImageSet, description: str) -> Tensor:
        """log p(image | its class) in nats, float32 [N]: a pass per image, not one per class."""
        labels = split.labels

        def compute() -> Arrays:
            assert isinstance(self.scorer, Scorer)
            size = self.scorer.batch_size * split.num_classes  # fills the memory of a batch under all classes
            quiet = None if rank() == 0 else True
            batches = tqdm(shared_batches(len(split), size), f"{description}, {self.name}", leave=False, disable=quiet)
            mine = [
                self.scorer.of_class(split.images[batch.start : batch.stop], labels[batch.start : batch.stop])
                for batch in batches
            ]
            return {"nats": torch.cat(in_order(gather(mine))).numpy()}

        kept = self.cached("log_likelihood", [pixel_hash(split.images), labels.tolist()], compute)
        return torch.from_numpy(kept["nats"])

    def samples(self, per_class: int, seed: int, temperature: float | None = None) -> tuple[Tensor, Tensor]:
        """uint8 [N, C, H, W] and int64 [N]: one of each class in turn. ``generate.py`` draws the same, up to rounding.

        The temperature is by default the checkpoint's, or 1. Whether ``torchrun`` shares the work changes nothing.
        """
        net, temperature = self.net, sample_temperature(temperature, self.net)

        def compute() -> Arrays:
            drawn = draw_images(
                net,
                range(net.num_classes),
                per_class,
                net.image_size,
                seed=seed,
                temperature=temperature,
                batch_size=self.batch_size,
            )
            mine = [(number, label, image.numpy()) for label, number, image in drawn]
            everyone = sorted((part for parts in gather(mine) for part in parts), key=lambda part: part[:2])
            return {
                "images": np.stack([image for *_, image in everyone]),
                "labels": np.array([label for _, label, _ in everyone], dtype=np.int64),
            }

        kept = self.cached("samples", [per_class, seed, *([temperature] if temperature != 1 else [])], compute)
        return torch.from_numpy(kept["images"]), torch.from_numpy(kept["labels"])


def unique_names(paths: Sequence[str]) -> list[str]:
    """A name for each file or folder, usable as a file name."""
    resolved = [Path(path).resolve() for path in paths]
    return file_stems([path.parent.name if path.stem in OF_RUNS else path.stem for path in resolved])


def check_networks(networks: Sequence[Network], split: ImageSet) -> None:
    """Raise UserError unless the networks take the images and classes of ``split``."""
    for network in networks:
        check_data_set(split, network.net)
        if network.net.image_size != split.image_size:
            height, width = network.net.image_size
            raise UserError(
                f"{printable(network.path)} is of images of {height}x{width}, {networks[0].path} of "
                f"{split.image_size[0]}x{split.image_size[1]}; evaluate them one by one"
            )
