"""A user's own folder of images, in both layouts."""

import shutil

import pytest
import torch
from PIL import Image

from data import load_split
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


@pytest.mark.parametrize("validation", ["validation", "val"])
def test_folders_by_split(tmp_path, validation):
    put(tmp_path, "train/b/1.png", 1)
    put(tmp_path, "train/a/2.png", 2)
    put(tmp_path, "train/c/sub/3.png", 3)
    put(tmp_path, f"{validation}/c/4.png", 4)
    put(tmp_path, "test/a/5.png", 5)
    splits = ("train", "validation", "test")
    train, held_out, test = (load_split("folder", split, (4, 8), tmp_path) for split in splits)
    assert train.class_names == held_out.class_names == test.class_names == ("a", "b", "c")
    assert train.images[:, 0, 0, 0].tolist() == [2, 1, 3] and train.labels.tolist() == [0, 1, 2]
    assert train.paths == ("train/a/2.png", "train/b/1.png", "train/c/sub/3.png")
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


def test_a_broken_image_is_named(flat):
    (flat / "one/only.jpg").write_bytes(b"broken")
    with pytest.raises(DataError, match=r"one/only\.jpg: not a readable image"):
        load_split("folder", "train", data_dir=flat)
