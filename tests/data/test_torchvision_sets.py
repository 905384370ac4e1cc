"""The torchvision sets, from small files in the formats torchvision reads; checksums are switched off."""

import gzip
import pickle
import struct

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets

from data import DATASETS, load_split
from utils.errors import DataError

random = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    for name in ("CIFAR10", "CIFAR100"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "url", "file:///no/such/archive.tar.gz")
    for name in ("MNIST", "FashionMNIST"):
        monkeypatch.setattr(getattr(torchvision.datasets, name), "mirrors", ["file:///no/such/mirror/"])
    url = "file:///no/such/file.mat"
    files = {split: [url, f"{split}_32x32.mat", None] for split in ("train", "test", "extra")}
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", files)


def make_cifar(root, monkeypatch, name, label_key, classes, per_batch):
    """Pickled batches; returns all training images [N, 3, 32, 32] and labels, and those of the test batch."""
    dataset = getattr(torchvision.datasets, name)
    folder = root / dataset.base_folder
    folder.mkdir(parents=True)
    batches = []
    for attribute in ("train_list", "test_list"):
        entries = [[file, None] for file, _ in getattr(dataset, attribute)]
        monkeypatch.setattr(dataset, attribute, entries)
        images = random.integers(0, 256, (len(entries), per_batch, 3, 32, 32), dtype=np.uint8)
        labels = np.tile(np.arange(per_batch) % classes, (len(entries), 1))
        for (file, _), pixels, targets in zip(entries, images, labels, strict=True):
            batch = {"data": pixels.reshape(per_batch, -1), label_key: targets.tolist()}
            (folder / file).write_bytes(pickle.dumps(batch))
        batches += [images.reshape(-1, 3, 32, 32), labels.reshape(-1)]
    meta = {**dataset.meta, "md5": None}
    monkeypatch.setattr(dataset, "meta", meta)
    class_names = {meta["key"]: [f"thing {i}" for i in range(classes)]}
    (folder / meta["filename"]).write_bytes(pickle.dumps(class_names))
    return batches


def make_cifar10(root, monkeypatch):
    return make_cifar(root, monkeypatch, "CIFAR10", "labels", 10, 40)


def make_cifar100(root, monkeypatch):
    return make_cifar(root, monkeypatch, "CIFAR100", "fine_labels", 100, 1000)


def make_idx(root, name):
    """MNIST's big-endian idx files, unzipped."""
    folder = root / name / "raw"
    folder.mkdir(parents=True)
    batches = []
    for part, count in (("train", 200), ("t10k", 30)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        header = struct.pack(">II", 0x801, count)
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(header + labels.tobytes())
        batches += [images[:, None], labels]
    return batches


def make_mnist(root, monkeypatch):
    return make_idx(root, "MNIST")


def make_fashion_mnist(root, monkeypatch):
    return make_idx(root, "FashionMNIST")


def make_svhn(root, monkeypatch):
    """Matlab files, X [32, 32, 3, N] and y [N, 1] with 10 for the digit 0."""
    root.mkdir(parents=True)
    batches = []
    for split, count in (("train", 200), ("test", 30)):
        images = random.integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
        labels = np.arange(count) % 10
        y = np.where(labels == 0, 10, labels).astype(np.uint8)[:, None]
        scipy.io.savemat(root / f"{split}_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": y})
        batches += [images, labels]
    return batches


MAKERS = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "mnist": make_mnist,
    "fashion_mnist": make_fashion_mnist,
    "svhn": make_svhn,
}


@pytest.mark.parametrize("name", MAKERS)
def test_splits(name, tmp_path, monkeypatch):
    train_images, train_labels, test_images, test_labels = MAKERS[name](tmp_path / name, monkeypatch)
    train, validation, test = (
        load_split(name, split, data_dir=tmp_path / name) for split in ("train", "validation", "test")
    )
    source = DATASETS[name]
    for split in (train, validation, test):
        assert split.images.dtype == torch.uint8 and split.labels.dtype == torch.int64
        assert split.images.shape[1:] == (source.channels, source.image_size, source.image_size)
        assert len(split) == len(split.paths) == len(split.images)
    assert np.array_equal(test.images, test_images) and np.array_equal(test.labels, test_labels)

    label_of = {image.tobytes(): label for image, label in zip(train_images, train_labels, strict=True)}
    seen = []
    for split in (train, validation):
        for image, label in zip(split.images, split.labels, strict=True):
            assert label_of[image.numpy().tobytes()] == label
            seen.append(image.numpy().tobytes())
    assert len(seen) == len(set(seen)) == len(train_labels)  # each image in one of the two
    assert len(validation) == len(train_labels) // 10
    assert len(set(validation.labels.bincount().tolist())) == 1  # stratified: the same count of each class
    assert validation.num_classes == len(validation.labels.unique())
    again = load_split(name, "validation", data_dir=tmp_path / name)
    assert torch.equal(again.images, validation.images)
    assert validation.paths[3] == f"{name}/validation/00003"


def test_class_names(tmp_path, monkeypatch):
    def names(name):
        MAKERS[name](tmp_path / name, monkeypatch)
        return load_split(name, "test", data_dir=tmp_path / name).class_names

    assert names("cifar10")[:2] == ("thing 0", "thing 1")
    assert names("mnist")[3] == "3 - three"
    assert names("fashion_mnist")[9] == "Ankle boot"
    assert names("svhn") == tuple("0123456789")


@pytest.mark.parametrize("name", ["mnist", "svhn"])
def test_default_folder_and_other_size(name, tmp_path, monkeypatch):
    make = MAKERS[name]
    make(tmp_path / "datasets" / name, monkeypatch)
    monkeypatch.chdir(tmp_path)
    test = load_split(name, "test", image_size=(16, 8))
    assert test.images.shape == (30, DATASETS[name].channels, 16, 8)


@pytest.mark.parametrize("name", MAKERS)
def test_failed_download(name, tmp_path):
    with pytest.raises(
        DataError, match=rf"{name} is not in .*/here .*could not be downloaded.*: put .+ there$"
    ) as caught:
        load_split(name, "train", data_dir=tmp_path / "here")
    assert "\n" not in str(caught.value)


def test_broken_files(tmp_path, monkeypatch):
    make_mnist(tmp_path, monkeypatch)
    file = tmp_path / "MNIST/raw/train-images-idx3-ubyte"
    file.write_bytes(gzip.compress(file.read_bytes()))
    with pytest.raises(DataError, match="mnist"):
        load_split("mnist", "train", data_dir=tmp_path)
