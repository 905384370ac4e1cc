"""A user's own folder of images, in both layouts."""

import re
import shutil
import unicodedata

import pytest
import torch
from PIL import Image

from data import load_split
from data.folder import list_split, refuse_one_class
from utils.errors import DataError


def put(folder, name, level=0, size=(10, 7)):
    file = folder / name
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (level, level, level)).save(file)


@pytest.fixture
def flat(tmp_path):
    """Classes dog (10 images, level 10 + i), ant (5, 100 + i) and one (1, 200)."""
    folder = tmp_path / "flat"
    for i in range(10):
        put(folder, f"dog/{'deep/er/' if i % 2 else ''}{i}.png", 10 + i, size=(5 + i, 9))
    for i in range(5):
        put(folder, f"ant/{i}.PNG", 100 + i)
    put(folder, "one/only.jpg", 200)
    put(folder, "cover.png")
    put(folder, ".hidden/x.png")
    put(folder, "dog/.x.png")
    (folder / "dog/notes.txt").write_text("not an image")
    (folder / "empty").mkdir()
    (folder / "texts").mkdir()
    (folder / "texts/a.txt").write_text("no images here")
    return folder


def test_flat_folder(flat):
    train = load_split("folder", "train", data_dir=flat)
    validation = load_split("folder", "validation", data_dir=flat)
    assert train.class_names == validation.class_names == ("ant", "dog", "one")
    assert train.images.shape == (4 + 8 + 1, 3, 32, 32) and train.images.dtype == torch.uint8
    assert train.labels.bincount(minlength=3).tolist() == [4, 8, 1]
    assert validation.labels.bincount(minlength=3).tolist() == [1, 2, 0]
    assert train.labels.dtype == validation.labels.dtype == torch.int64
    # the level tells the class and the file
    levels = sorted(torch.cat([train.images, validation.images])[:, 0, 0, 0].tolist())
    assert levels == [*range(10, 20), *range(100, 105), 200]
    for split in (train, validation):
        for image, label, path in zip(split.images, split.labels, split.paths, strict=True):
            assert split.class_names[label] == path.split("/")[0]
            base = {"ant": 100, "dog": 10, "one": 200}[path.split("/")[0]]
            number = 0 if base == 200 else int(path.split("/")[-1].split(".")[0])
            assert image[0, 0, 0] == base + number


def test_flat_split_is_fixed(flat, tmp_path):
    paths = load_split("folder", "validation", data_dir=flat).paths
    shutil.copytree(flat, tmp_path / "copy")
    assert load_split("folder", "validation", data_dir=tmp_path / "copy").paths == paths
    for i in range(20):
        put(flat, f"bee/{i}.png")
    more = load_split("folder", "validation", data_dir=flat).paths  # a new class moves no image of the others
    assert tuple(path for path in more if not path.startswith("bee")) == paths
    assert len(more) == len(paths) + 4


def test_two_images_of_a_class_go_one_each_way(tmp_path):
    for name in "abc":
        put(tmp_path, f"{name}/1.png")
        put(tmp_path, f"{name}/2.png")
    for split in ("train", "validation"):
        assert load_split("folder", split, data_dir=tmp_path).labels.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    ("training", "validation", "testing"),
    [
        ("train", "validation", "test"),
        ("train", "val", "test"),
        ("train", "valid", "test"),
        ("Train", "Val", "Test"),
        ("training", "Validation", "testing"),
        ("TRAINING", "dev", "TEST"),
    ],
)
def test_folders_by_split(tmp_path, training, validation, testing):
    put(tmp_path, f"{training}/b/1.png", 1)
    put(tmp_path, f"{training}/a/2.png", 2)
    put(tmp_path, f"{training}/c/sub/3.png", 3)
    put(tmp_path, f"{validation}/c/4.png", 4)
    put(tmp_path, f"{testing}/a/5.png", 5)
    splits = ("train", "validation", "test")
    train, held_out, test = (load_split("folder", split, (4, 8), tmp_path) for split in splits)
    assert train.class_names == held_out.class_names == test.class_names == ("a", "b", "c")
    assert train.images[:, 0, 0, 0].tolist() == [2, 1, 3] and train.labels.tolist() == [0, 1, 2]
    assert train.paths == (f"{training}/a/2.png", f"{training}/b/1.png", f"{training}/c/sub/3.png")
    assert held_out.images[:, 0, 0, 0].tolist() == [4] and held_out.labels.tolist() == [2]
    assert held_out.paths == (f"{validation}/c/4.png",)
    assert test.images.shape == (1, 3, 4, 8) and test.labels.tolist() == [0]


def test_a_class_that_train_lacks(tmp_path):
    put(tmp_path, "train/cat/1.png")
    put(tmp_path, "validation/cta/1.png")
    with pytest.raises(DataError, match=r"validation has the class 'cta', which is not in .*train"):
        load_split("folder", "validation", data_dir=tmp_path)


def test_splits_that_are_not_there(flat, tmp_path):
    with pytest.raises(DataError, match="has no split 'test'"):
        load_split("folder", "test", data_dir=flat)
    put(tmp_path, "set/train/a/1.png")
    with pytest.raises(DataError, match=r"has a folder train but none for validation: add .*set/validation"):
        load_split("folder", "validation", data_dir=tmp_path / "set")


def test_no_images(tmp_path):
    with pytest.raises(DataError, match="has no images in class sub-folders"):
        load_split("folder", "train", data_dir=tmp_path)
    put(tmp_path, "loose.png")
    with pytest.raises(DataError, match="has no images in class sub-folders"):
        load_split("folder", "train", data_dir=tmp_path)
    put(tmp_path, "a/1.png")
    assert len(load_split("folder", "train", data_dir=tmp_path)) == 1
    with pytest.raises(DataError, match="none left for validation"):
        load_split("folder", "validation", data_dir=tmp_path)


@pytest.mark.parametrize("name", ["gone", "x" * 5000])
def test_no_folder(tmp_path, name):
    with pytest.raises(DataError, match="no such folder"):
        load_split("folder", "train", data_dir=tmp_path / name)


def test_data_dir_is_needed():
    with pytest.raises(DataError, match="needs data_dir"):
        load_split("folder", "train")


def test_a_file_is_no_folder_of_classes(tmp_path):
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match=r"a\.png: no such folder"):
        load_split("folder", "train", data_dir=tmp_path / "a.png")


def test_two_folders_for_one_split(tmp_path):
    for name in ("train/a", "val/a", "Valid/a"):
        put(tmp_path, f"{name}/1.png")
    assert len(load_split("folder", "train", data_dir=tmp_path)) == 1
    with pytest.raises(DataError, match=r"has 2 folders for validation \(Valid, val\): keep one"):
        load_split("folder", "validation", data_dir=tmp_path)


@pytest.mark.parametrize("names", [("Train", "Val"), ("validation/cat", "test/dog"), ("training",)])
def test_folders_of_splits_are_no_classes(tmp_path, names):
    for name in names:
        put(tmp_path, f"{name}/1.png")
        put(tmp_path, f"{name}/2.png")
    with pytest.raises(DataError, match=r"has folders for splits \(.*\), but no classes to train on: .*train/CLASS"):
        load_split("folder", "train", data_dir=tmp_path)


def test_a_class_may_be_called_train(tmp_path):
    """CIFAR-100 has one."""
    for name in ("bus", "train"):
        put(tmp_path, f"{name}/1.png")
        put(tmp_path, f"{name}/2.png")
    split = load_split("folder", "train", data_dir=tmp_path)
    assert split.class_names == ("bus", "train")
    assert split.notes == (f"{tmp_path}: train is taken for a class, not for a split",)


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["photos/cat/1.png", "photos/cat/2.png", "photos/dog/1.png"], "photos: if cat, dog .* --data_dir DIR/photos$"),
        (["a/b/c/x/1.png", "a/b/c/y/1.png", "a/b/c/0.png"], "a: if x, y are the classes, give --data_dir DIR/a/b/c$"),
        (["train/all/a/1.png", "train/all/b/1.png", "val/all/a/1.png"], "if a, b are .* them out of DIR/train/all"),
        (["cat/1.png", "cat/2.png"], "has only one class of training images, cat: add the others$"),
        (["cat/album/1.png", "cat/album/2.png"], "cat: add the others"),
    ],
)  # fmt: skip
def test_one_class_only(tmp_path, files, message):
    for file in files:
        put(tmp_path, file)
    with pytest.raises(DataError, match=message.replace("DIR", re.escape(str(tmp_path)))):
        refuse_one_class(tmp_path)
    put(tmp_path, f"{'train/' if files[0].startswith('train') else ''}zebra/1.png")
    assert len(list_split("train", tmp_path).class_names) == 2


def test_classes_are_in_the_order_of_their_names(tmp_path):
    for name in ("1", "2", "10"):
        put(tmp_path, f"{name}/1.png")
    assert load_split("folder", "train", data_dir=tmp_path).class_names == ("1", "10", "2")


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for name in (composed, decomposed, "cafz"):  # between them, by their characters
        for i in range(5):
            put(tmp_path, f"flat/{name}/{i}.png", i)
    train = load_split("folder", "train", data_dir=tmp_path / "flat")
    assert train.class_names == ("cafz", composed) and train.labels.tolist() == [0] * 4 + [1] * 8
    assert {path.split("/")[0] for path in train.paths} == {"cafz", composed, decomposed}
    put(tmp_path, f"sorted/train/{composed}/1.png")
    put(tmp_path, f"sorted/validation/{decomposed}/1.png")
    assert load_split("folder", "validation", data_dir=tmp_path / "sorted").class_names == (composed,)


def test_what_is_left_out_is_told(flat):
    for i in range(20):
        (flat / f"ant/{i}.HEIC").write_bytes(b"")
    put(flat, "...x/1.png")
    put(flat, "dog/.thumbs/1.png")  # no class
    notes = load_split("folder", "train", data_dir=flat).notes
    assert notes == (
        f"{flat}: left out 20 .heic in ant, 1 .txt in dog, 1 .txt in texts; "
        ".heic cannot be read here: convert to JPEG or PNG",
        f"{flat}: left out 1 images that lie beside the class folders",
        f"{flat}: left out the images of ...x, .hidden: a class's name begins with no dot",
    )
    assert load_split("folder", "validation", data_dir=flat).notes == notes


@pytest.mark.parametrize("prefix", ["", "train/", "validation/"])
def test_a_class_that_would_vanish(tmp_path, prefix):
    for name in ("train/cat", "validation/cat", "train/dog", "validation/dog") if prefix else ("cat", "dog"):
        put(tmp_path, f"{name}/1.png")
        put(tmp_path, f"{name}/2.png")
    for i in range(3):
        (tmp_path / prefix / "owl").mkdir(exist_ok=True)
        (tmp_path / prefix / "owl" / f"{i}.heic").write_bytes(b"")
    split = "validation" if prefix == "validation/" else "train"
    with pytest.raises(DataError, match=r"a class without any image that can be read: 3 \.heic in owl; .*convert"):
        load_split("folder", split, data_dir=tmp_path)


def test_only_photos_that_cannot_be_read(tmp_path):
    (tmp_path / "1.HEIC").write_bytes(b"")
    with pytest.raises(DataError, match=r"no images in class sub-folders \(it has 1 \.heic; .*convert to JPEG or PNG"):
        load_split("folder", "train", data_dir=tmp_path)


def test_a_broken_image_is_named(flat):
    (flat / "one/only.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"1 of 13 images cannot be read: .*one/only\.jpg: not a readable image"):
        load_split("folder", "train", data_dir=flat)


def test_all_broken_images_are_named_and_skipped_on_demand(tmp_path):
    for i in range(30):
        put(tmp_path, f"train/a/{i:02d}.png", i)
    for i in range(3, 28):
        (tmp_path / f"train/a/{i:02d}.png").write_bytes(b"")
    named = r"25 of 30 images cannot be read: .*a/03\.png: not .*; also train/a/04\.png, .*22\.png and 5 more; repair"
    with pytest.raises(DataError, match=named):
        load_split("folder", "train", data_dir=tmp_path)
    split = load_split("folder", "train", data_dir=tmp_path, skip_bad_images=True)
    assert split.images[:, 0, 0, 0].tolist() == [0, 1, 2, 28, 29] and split.labels.tolist() == [0] * 5
    assert split.paths == tuple(f"train/a/{i:02d}.png" for i in (0, 1, 2, 28, 29))
    assert [bad.position for bad in split.bad] == list(range(3, 28)) and split.bad[0].path == "train/a/03.png"
    assert split.lines()[-1].startswith("left out: 25 of 30 images cannot be read")
    for i in (0, 1, 2, 28, 29):
        (tmp_path / f"train/a/{i:02d}.png").unlink()
    with pytest.raises(DataError, match="25 of 25 images cannot be read"):  # nothing is left
        load_split("folder", "train", data_dir=tmp_path, skip_bad_images=True)
