"""The teacher of a run: a discriminative baseline, whose posterior replaces the labels in the cross-entropy."""

import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data import ImageSet
from evaluation.baseline_network import load_baseline
from evaluation.protocol import SAW_HELD_OUT
from model import to_unit
from training.network import OPTIMISTIC, saw_held_out
from training.settings import TrainSettings
from utils.console import notify
from utils.distributed import rank
from utils.errors import CheckpointError, UserError
from utils.files import file_hash
from utils.text import printable


class Teacher:
    """Distillation (Hinton et al. 2015) from a file of evaluation.baseline.

    Args:
        path: the file.
        device: of the images.

    Raises UserError where it cannot be used.

    Attributes:
        net: the ResNet, in eval mode, without gradients.
        sha256: of the file, in hexadecimal.
    """

    def __init__(self, path: str, device: torch.device):
        self.path = path
        if not os.path.isfile(path):
            raise UserError(
                f"--teacher {printable(path)}: no such file; python -m evaluation.baseline --out FILE trains one"
            )
        try:
            net = load_baseline(path, device)
        except CheckpointError as error:
            raise UserError(f"--teacher: {error}") from None
        self.sha256 = file_hash(Path(path))
        self.net = net.requires_grad_(False).to(memory_format=torch.channels_last)

    def match(self, split: ImageSet, settings: TrainSettings) -> None:
        """Take the order of the run's classes. Raises UserError where its images or classes are others."""
        name, net = f"--teacher {printable(self.path)}", self.net
        if sorted(net.class_names) != sorted(split.class_names):
            raise UserError(f"{name} knows other classes than this run has; give one trained on its images")
        shape = (net.image_channels, *net.image_size)
        if shape != tuple(split.images.shape[1:]):
            theirs, ours = ("x".join(map(str, sides)) for sides in (shape, split.images.shape[1:]))
            raise UserError(f"{name} is of images of {theirs} values, this run of {ours}; give another")
        self.saw_held_out = saw_held_out(net, settings)
        if self.saw_held_out and rank() == 0:
            notify(
                f"warning: {name} {OPTIMISTIC} (python -m evaluation.baseline --hold_out true trains one without them)"
            )
        order = [net.class_names.index(label) for label in split.class_names]
        self.order = torch.tensor(order, device=net.fc.weight.device)

    @torch.no_grad()
    def __call__(self, images: Tensor, classes: Tensor) -> Tensor:
        """Its posterior over some classes: uint8 [B, C, H, W], int64 [B, 1 + k] -> float32 [B, 1 + k]."""
        logits = self.net(to_unit(images).contiguous(memory_format=torch.channels_last)).float()
        return logits[:, self.order].gather(1, classes).softmax(dim=1)

    def metadata(self) -> dict[str, Any]:
        """What the checkpoints of the run say of it: parameters, accuracy on validation images where it is known, and
        whether it was trained on the images that are held out."""
        measured = self.net.metadata.get("validation")
        accuracy = measured.get("accuracy") if isinstance(measured, dict) else None
        teacher = {"parameters": sum(p.numel() for p in self.net.parameters()), "accuracy": accuracy}
        return {"teacher": teacher} | ({SAW_HELD_OUT: True} if self.saw_held_out else {})
