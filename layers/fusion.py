"""Class conditioning of the residual blocks: a scale and a shift of each block's output."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor, nn

Fusion = Literal[
    "early+middle",
    "early",
    "middle",
    "film",
    "late",
    "early+film",
    "early+late",
    "middle+late",
    "film+late",
    "early+middle+late",
    "early+film+late",
    "none",
]
FUSIONS: tuple[str, ...] = get_args(Fusion)

Condition = tuple[Tensor | None, Tensor | None]  # (scale, shift) of one block, each [B, F, ...] or None


def modulate(x: Tensor, condition: Condition) -> Tensor:
    """scale * x + shift, one value per channel; x is [B, F, ...], scale and shift broadcast against it.

    x may be overwritten.
    """
    scale, shift = condition
    if scale is not None:
        return torch.addcmul(shift, x, scale)  # type: ignore[arg-type]  # a scale always has a shift
    return x if shift is None else x.add_(shift)


class NoFusion(nn.Module):
    """The blocks are not conditioned on the class."""

    def __init__(self, nr_blocks: int):
        super().__init__()
        self.nr_blocks = nr_blocks

    def forward(self, labels: Tensor) -> list[Condition]:
        return [(None, None)] * self.nr_blocks


class MiddleFusion(nn.Module):
    """e_y = alpha * Embed(y), the same for every block: labels [B] -> a shift [B, F] for each block."""

    def __init__(self, num_classes: int, nr_filters: int, nr_blocks: int):
        super().__init__()
        self.nr_blocks = nr_blocks
        self.embed = nn.Embedding(num_classes, nr_filters)
        self.alpha = nn.Parameter(torch.tensor(0.1))  # small: e_y is added after every block

    def forward(self, labels: Tensor) -> list[Condition]:
        return [(None, self.alpha * self.embed(labels))] * self.nr_blocks


class FiLM(nn.Module):
    """A learned scale and shift per class and block, initialised to the identity (Perez et al. 2018)."""

    def __init__(self, num_classes: int, nr_filters: int, nr_blocks: int):
        super().__init__()
        self.nr_blocks = nr_blocks
        self.table = nn.Embedding(num_classes, nr_blocks * 2 * nr_filters)
        nn.init.zeros_(self.table.weight)

    def forward(self, labels: Tensor) -> list[Condition]:
        by_block = self.table(labels).view(len(labels), self.nr_blocks, 2, -1)
        return [(1 + scale, shift) for scale, shift in by_block.permute(1, 2, 0, 3)]


class LateFusion(nn.Module):
    """Late fusion: a shift per class of a few blocks, zero at the start, added to the conditions of another fusion.

    Args:
        num_classes: C_y.
        nr_filters: F.
        blocks: the indices of these blocks among all of the network, each once.
    """

    def __init__(self, num_classes: int, nr_filters: int, blocks: Sequence[int]):
        super().__init__()
        self.blocks = tuple(blocks)
        self.table = nn.Embedding(num_classes, len(self.blocks) * nr_filters)
        nn.init.zeros_(self.table.weight)

    def forward(self, labels: Tensor, conditions: list[Condition]) -> list[Condition]:
        """Labels [B] and the conditions of all blocks -> these with the shifts [B, F] added."""
        conditions = list(conditions)
        shifts = self.table(labels).view(len(labels), len(self.blocks), -1).unbind(1)
        for block, late in zip(self.blocks, shifts, strict=True):
            scale, shift = conditions[block]
            conditions[block] = (scale, late if shift is None else shift + late)
        return conditions
