"""A split as PNG files."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from data import ImageSet, find_images, load_split, read_image
from data.export import export_split, main
from utils.errors import DataError


def test_pixels_and_classes_come_back(tmp_path):
    split = load_split("digits", "validation")
    export_split(split, tmp_path / "out")
    paths = find_images(tmp_path / "out")
    assert len(paths) == len(split) == 360
    for path in paths[::37]:
        number = int(path.stem)
        assert path.parent.name == split.class_names[split.labels[number]]
        assert torch.equal(read_image(path, 1, (8, 8)), split.images[number])


def test_a_folder_in_use_is_left_alone(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(DataError, match="not empty"):
        export_split(load_split("digits", "validation"), tmp_path)
    with pytest.raises(DataError, match="not empty"):
        main(["digits", "validation", str(tmp_path)])
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]


def test_a_disk_that_fills_up_is_one_line_and_leaves_no_half_image(tmp_path, monkeypatch):
    save, count = Image.Image.save, 0

    def full(self, path, **more):
        nonlocal count
        count += 1
        if count == 3:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        save(self, path, **more)

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(DataError, match=r"cannot all be written to .*out \(.*No space left on device.*\); remove it"):
        export_split(load_split("digits", "validation"), tmp_path / "out")
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert len(files) == 2 and all(read_image(path, 1, (8, 8)).shape == (1, 8, 8) for path in files)


def test_a_slash_in_a_class_name_is_no_folder(tmp_path):
    split = ImageSet(
        torch.zeros(2, 1, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]), ("T-shirt/top", "Bag"), ("a", "b")
    )
    export_split(split, tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["Bag", "T-shirt_top"]


def test_what_is_left_out_is_told(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / "set/train" / name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(tmp_path / "set/train" / name / "1.png")
    (tmp_path / "set/train/a/3.heic").touch()
    (tmp_path / "set/train/b/3.png").touch()
    flags = ["folder", "train", str(tmp_path / "out"), "--data_dir", str(tmp_path / "set")]
    with pytest.raises(DataError, match=r"1 of 3 images cannot be read: .*b/3\.png"):
        main(flags)
    main([*flags, "--skip_bad_images", "true"])
    told = capsys.readouterr().err
    assert "left out 1 .heic in a" in told and "left out: 1 of 3 images cannot be read" in told
    assert len(find_images(tmp_path / "out")) == 2


@pytest.mark.integration
def test_a_mistake_at_the_shell_is_one_line(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    used, no_folder = str(tmp_path), str(tmp_path / "mine.txt")
    mistakes = [["digits", "validation", out] for out in (used, no_folder, "-")]
    for flags in (*mistakes, ["digits", "validation"], ["--image_size", "big"]):
        command = [sys.executable, "-m", "data.export", *flags]
        done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
