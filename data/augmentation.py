"""Mirror images and small translations of the training images."""

import torch
from torch import Tensor


def draw_shifts(count: int, image_size: tuple[int, int], generator: torch.Generator, largest: float = 1 / 16) -> Tensor:
    """Translations down and to the right of ``count`` images, uniform over whole pixels: int64 [count, 2].

    ``largest`` is the largest one as a fraction of a side, below 1.
    """
    reach = [int(side * largest) for side in image_size]
    return torch.stack([torch.randint(-far, far + 1, (count,), generator=generator) for far in reach], dim=1)


def augment(images: Tensor, mirrored: Tensor, shifts: Tensor) -> Tensor:
    """Images mirrored where ``mirrored`` [B] is true, then moved by ``shifts`` [B, 2]: [B, C, H, W] -> [B, C, H, W].

    What moves in at a border is the reflection of what lies inside it.
    """
    batch, _, height, width = images.shape
    rows, columns = (
        _reflected(torch.arange(side, device=images.device) - shift[:, None], side)
        for side, shift in zip((height, width), shifts.unbind(1), strict=True)
    )
    columns = torch.where(mirrored[:, None], width - 1 - columns, columns)
    image = torch.arange(batch, device=images.device)[:, None, None]
    return images[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def _reflected(index: Tensor, side: int) -> Tensor:
    """Whole numbers from -(side - 1) to 2 (side - 1), folded into 0 .. side - 1 at its ends."""
    return (side - 1) - ((side - 1) - index.abs()).abs()
