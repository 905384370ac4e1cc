"""The images of a run."""

import pytest
import torch

from data import ImageSet
from training import batches
from training.settings import TrainSettings
from utils.errors import DataError, UserError


def test_fewer_images_than_processes_is_one_line(monkeypatch):
    split = ImageSet(torch.zeros(3, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0]), ("a", "b"), tuple("123"))
    monkeypatch.setattr(batches, "world_size", lambda: 4)
    with pytest.raises(UserError, match="3 training images are fewer than the 4 processes"):
        batches.Batches(split, TrainSettings(), torch.device("cpu"))
    monkeypatch.setattr(batches, "world_size", lambda: 3)
    assert batches.Batches(split, TrainSettings(), torch.device("cpu")).per_epoch == 1


def folder_settings(data_dir, **more):
    return TrainSettings(dataset="folder", data_dir=str(data_dir), image_size=8, **more)


def test_one_class_is_refused_unless_the_network_has_no_classes(digits, write_folder, tmp_path):
    write_folder(digits.images[:5], tmp_path / "photos" / "cat")
    with pytest.raises(DataError, match=r"only one class of training images, photos: .* --fusion none$"):
        batches.load_splits(folder_settings(tmp_path))
    train, selection, validation = batches.load_splits(folder_settings(tmp_path, fusion="none"))
    assert (len(train), len(validation), train.num_classes) == (4, 1, 1) and selection is validation


def test_what_is_left_out_is_told_once(own_folder, capsys):
    flat = own_folder / "train"  # both of its splits list the same folder
    (flat / "a" / "x.heic").touch()
    batches.load_splits(folder_settings(flat))
    told = "left out 1 .heic in a; .heic cannot be read here: convert to JPEG or PNG"
    assert capsys.readouterr().err == f"{flat}: {told}\n"


def test_unreadable_images(own_folder, capsys):
    (own_folder / "train/a/000.png").write_bytes(b"")
    (own_folder / "validation/b/001.png").write_bytes(b"")
    named = r"1 of 8 images cannot be read: .*a/000\.png.*; 1 of 4 .*b/001\.png.*--skip_bad_images true"
    with pytest.raises(DataError, match=named):
        batches.load_splits(folder_settings(own_folder))
    train, _, validation = batches.load_splits(folder_settings(own_folder, skip_bad_images=True))
    assert (len(train), len(validation)) == (7, 3)
    told = capsys.readouterr().err.splitlines()
    assert [line[: line.index(":", 9)] for line in told] == [
        "left out: 1 of 8 images cannot be read",
        "left out: 1 of 4 images cannot be read",
    ]
    for number in range(4):
        (own_folder / f"train/a/{number:03d}.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"no image of the class a can be read; 4 of 8 images"):
        batches.load_splits(folder_settings(own_folder, skip_bad_images=True))


def test_held_out_images_are_no_training_images(own_folder, capsys):
    (own_folder / "train/a/000.png").write_bytes(b"")
    settings = folder_settings(own_folder, select_on="holdout", skip_bad_images=True)
    train, selection, validation = batches.load_splits(settings)
    assert train.labels.tolist() == [0, 0, 1, 1, 1] and selection.labels.tolist() == [0, 1] and len(validation) == 4
    assert not {*train.paths} & {*selection.paths}
    assert "left out: 1 of 8 images cannot be read" in capsys.readouterr().err
    for name in "ab":
        for number in range(1, 4):
            (own_folder / f"train/{name}/{number:03d}.png").unlink()
    (own_folder / "train/a/000.png").write_bytes((own_folder / "train/b/000.png").read_bytes())
    with pytest.raises(UserError, match="--select_on holdout: no class has two training images"):
        batches.load_splits(settings)


def drawn(**settings):
    """Images of one bright pixel, as in epochs 1 to 4, in their own order: [4, 40, 1, 8, 8]."""
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 4, 2], images[:, 0, 0, 0] = 255, torch.arange(40)
    split = ImageSet(images, torch.arange(40) % 2, ("a", "b"), tuple(map(str, range(40))))
    source = batches.Batches(split, TrainSettings(batch_size=10, **settings), torch.device("cpu"))
    epochs = []
    for epoch in range(1, 5):
        seen = torch.cat([images for images, _ in source.epoch(epoch)])
        order, *_ = source._draw(epoch)
        epochs.append(seen[order.argsort()])
    return torch.stack(epochs)


def test_each_image_is_mirrored_in_every_other_epoch():
    mirrored = drawn(augment="flip")[:, :, 0, 4, 5] == 255
    assert torch.equal(mirrored[0], ~mirrored[1]) and torch.equal(mirrored[::2], mirrored[:1].expand(2, -1))
    assert torch.equal(mirrored[1::2], mirrored[1:2].expand(2, -1)) and 8 < mirrored[0].sum() < 32
    assert not torch.equal(drawn(augment="flip", seed=2)[:, :, 0, 4, 5] == 255, mirrored)


@pytest.mark.parametrize(("largest", "reach"), [(0.25, 2), (0.125, 1), (0.0, 0)])
def test_images_move_as_far_as_largest_shift(largest, reach):
    rows = (drawn(augment="flip+shift", largest_shift=largest)[:, :, 0] == 255).any(dim=3)
    where = {row for row in range(8) if rows[:, :, row].any()}
    assert where == set(range(4 - reach, 5 + reach))


def test_only_the_share_for_the_cross_entropy_is_moved():
    """Of each batch of 10 in the order they come: the first 6 stay, the others move."""
    settings = {"augment": "flip+shift", "largest_shift": 0.5, "discriminative_weight": 0.1}
    images = torch.zeros(40, 1, 8, 8, dtype=torch.uint8)
    images[:, :, 4, :] = 255
    split = ImageSet(images, torch.arange(40) % 2, ("a", "b"), tuple(map(str, range(40))))
    for share, still in ((0.4, 6), (0.0, 0)):
        more = TrainSettings(batch_size=10, discriminative_share=share, **settings)
        seen = torch.cat([x for x, _ in batches.Batches(split, more, torch.device("cpu")).epoch(1)])
        moved = (seen != images).flatten(1).any(1).view(4, 10)
        assert not moved[:, :still].any() and moved[:, still:].sum() > (40 - 4 * still) // 2


def test_a_share_of_no_image_is_refused():
    """Else all images would be moved, and none mixed."""
    split = ImageSet(torch.zeros(8, 1, 8, 8, dtype=torch.uint8), torch.arange(8) % 2, ("a", "b"), tuple("12345678"))
    for size, share in ((4, 0.1), (1, 0.9)):
        settings = TrainSettings(batch_size=size, discriminative_weight=0.1, discriminative_share=share)
        with pytest.raises(UserError, match=f"--discriminative_share {share} of {size} images per step and process is"):
            batches.Batches(split, settings, torch.device("cpu"))
    settings = TrainSettings(batch_size=4, discriminative_share=0.1)  # it has no effect
    assert batches.Batches(split, settings, torch.device("cpu")).in_likelihood == 4
