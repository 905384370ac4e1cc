import json

import numpy as np
import pytest
import torch

from evaluation.cache import Cache, pixel_hash

KEY = {"kind": "scores", "how": ["abc", 1]}


@pytest.fixture
def computed() -> list[int]:
    return []


@pytest.fixture
def compute(computed):
    def compute() -> dict[str, np.ndarray]:
        computed.append(1)
        return {"scores": np.arange(6, dtype=np.float32).reshape(2, 3)}

    return compute


def test_arrays_are_computed_once(tmp_path, compute, computed):
    for _ in range(3):
        arrays = Cache(tmp_path / "cache").arrays(KEY, compute)
        assert arrays.keys() == {"scores"} and arrays["scores"].dtype == np.float32
        assert arrays["scores"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(computed) == 1


def test_another_key_is_computed_anew(tmp_path, compute, computed):
    Cache(tmp_path).arrays(KEY, compute)
    Cache(tmp_path).arrays(KEY | {"how": ["abc", 2]}, compute)
    assert len(computed) == 2 and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["empty", "cut", "one bit", "another key", "no array"])
def test_a_damaged_file_is_rebuilt(tmp_path, compute, computed, damage):
    Cache(tmp_path).arrays(KEY, compute)
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()
    if damage == "empty":
        file.write_bytes(b"")
    elif damage == "cut":
        file.write_bytes(whole[: len(whole) // 2])
    elif damage == "one bit":
        place = whole.index(b"scores.npy") + 60  # in the compressed pixels, which have a checksum
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
    elif damage == "another key":
        np.savez(file.open("wb"), key=np.array(json.dumps({})), scores=np.zeros(3))
    else:
        np.savez(file.open("wb"), scores=np.zeros(3))
    assert Cache(tmp_path).arrays(KEY, compute)["scores"].tolist() == [[0, 1, 2], [3, 4, 5]]
    assert len(computed) == 2
    Cache(tmp_path).arrays(KEY, compute)
    assert len(computed) == 2


def test_a_folder_that_cannot_be_written_is_said_once(tmp_path, compute, computed, capsys):
    (tmp_path / "file").write_text("")
    cache = Cache(tmp_path / "file")
    for number in range(2):
        assert cache.arrays(KEY | {"number": number}, compute)["scores"].shape == (2, 3)
    assert capsys.readouterr().err.count("results are not kept") == 1


def test_the_hash_depends_on_pixels_and_shape():
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    assert pixel_hash(images) == pixel_hash(images.clone())
    assert pixel_hash(images) == pixel_hash(images.to(memory_format=torch.channels_last))
    assert pixel_hash(images) != pixel_hash(images.flip(0))
    assert pixel_hash(images) != pixel_hash(images.reshape(2, 3, 4, 1))
