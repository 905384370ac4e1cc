"""Mirror images and translations."""

import torch
import torch.nn.functional as F

from data.augmentation import augment, draw_shifts


def batch(height=16, width=32):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (6, 3, height, width), dtype=torch.uint8, generator=generator)


def test_it_is_a_crop_of_the_reflected_image():
    images = batch()
    shifts = torch.tensor([[0, 0], [1, 0], [-1, 2], [0, -2], [1, 1], [-1, -1]])
    mirrored = torch.tensor([False, True, False, True, True, False])
    moved = augment(images, mirrored, shifts)
    for image, mirror, (down, right), ours in zip(images, mirrored, shifts.tolist(), moved, strict=True):
        padded = F.pad((image.flip(2) if mirror else image).float(), (2, 2, 1, 1), mode="reflect")
        assert torch.equal(ours.float(), padded[:, 1 - down :, 2 - right :][:, :16, :32])
    assert moved.dtype == torch.uint8 and moved.is_contiguous()


def test_mirrored_twice_is_the_image():
    images, still = batch(), torch.zeros(6, 2, dtype=torch.long)
    everyone = torch.ones(6, dtype=torch.bool)
    assert torch.equal(augment(images, everyone, still), images.flip(3))
    assert torch.equal(augment(images, ~everyone, still), images)


def test_shifts_reach_a_sixteenth_of_each_side_unless_told_otherwise():
    shifts = draw_shifts(2000, (16, 48), torch.Generator().manual_seed(1))
    assert shifts[:, 0].unique().tolist() == [-1, 0, 1] and shifts[:, 1].unique().tolist() == [*range(-3, 4)]
    assert not draw_shifts(100, (8, 8), torch.Generator()).any()  # 8x8 digits stay where they are
    farther = draw_shifts(2000, (8, 32), torch.Generator().manual_seed(1), 1 / 8)
    assert farther[:, 0].unique().tolist() == [-1, 0, 1] and farther[:, 1].unique().tolist() == [*range(-4, 5)]


def test_shifts_draw_the_same_numbers_as_ever():
    """Else an epoch that is resumed would show other images."""
    shifts = draw_shifts(6, (32, 64), torch.Generator().manual_seed(3))
    generator = torch.Generator().manual_seed(3)
    down = torch.randint(-2, 3, (6,), generator=generator)
    assert torch.equal(shifts, torch.stack([down, torch.randint(-4, 5, (6,), generator=generator)], dim=1))
