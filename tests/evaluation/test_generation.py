import pytest
import torch

from evaluation.generation import BLANK, draw_images, draw_rows, keep_top
from model import PixelCNN
from utils.errors import UserError


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    made = PixelCNN(1, 8, 2, 3, 2).eval()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return made


@pytest.mark.parametrize("kept", [0, 3])
def test_rows_become_the_images_of_draw_images(net, kept):
    keep = torch.randint(0, 256, (3, kept, 8), dtype=torch.uint8) if kept else None
    options = {"seed": 4, "temperature": 0.9, "batch_size": 3, "keep": keep}
    expected = list(draw_images(net, [1, 0], 2, (8, 8), shared=False, **options))
    parts = list(draw_rows(net, [1, 0], 2, (8, 8), **options))
    assert [(len(part.batch), part.rows) for part in parts] == [(n, row) for n in (3, 1) for row in range(1, 9)]
    complete = [part for part in parts if part.rows == 8]
    drawn = [(*which, image) for part in complete for which, image in zip(part.batch, part.images, strict=True)]
    assert [(label, number) for label, number, _ in drawn] == [(1, 0), (1, 1), (0, 0), (0, 1)]
    assert all(torch.equal(ours[2], theirs[2]) for ours, theirs in zip(drawn, expected, strict=True))
    for part in parts:
        final = complete[0 if len(part.batch) == 3 else 1].images
        assert torch.equal(part.images[:, :, : part.rows], final[:, :, : part.rows])
        assert (part.images[:, :, max(part.rows, kept) :] == BLANK).all() or part.rows < kept


def test_a_drawing_that_is_left_can_be_begun_again(net):
    first = draw_rows(net, [0], 2, (8, 8))
    next(first)
    first.close()
    *_, last = draw_rows(net, [0], 2, (8, 8))
    expected = [image for *_, image in draw_images(net, [0], 2, (8, 8), shared=False)]
    assert torch.equal(last.images, torch.stack(expected))


def test_the_top_of_an_image():
    image = torch.arange(3 * 4 * 4, dtype=torch.uint8).view(3, 4, 4)
    kept, blanked = keep_top(image, 1)
    assert torch.equal(kept, image[:, :1]) and torch.equal(blanked[:, :1], kept)
    assert (blanked[:, 1:] == BLANK).all() and image[0, 3, 3] == 15
    for rows in (0, 4, -1):
        with pytest.raises(UserError, match="keep 1 to 3"):
            keep_top(image, rows)
