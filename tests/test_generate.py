"""generate.py through its command line."""

import os
import shutil
import unicodedata

import numpy as np
import pytest
import torch
from PIL import Image

import generate
from data import read_image
from model import PixelCNN, Sampler, save_checkpoint
from utils.errors import UserError
from utils.script import run_script


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    save_checkpoint(path, PixelCNN(1, 8, 2, 1, 3), image_size=(8, 8), class_names=("a/b", "dog", "owl"), dataset="x")
    return path


def drawn(checkpoint, out, *flags):
    assert generate.main(["--checkpoint", str(checkpoint), "--out", str(out), *flags]) == 0
    return {path.name: read_image(path, 1, (8, 8)) for path in sorted(out.iterdir())}


def test_png_files_and_a_grid_beside_them(checkpoint, tmp_path):
    images = drawn(checkpoint, tmp_path / "s", "--per_class", "2")
    assert list(images) == [f"{name}_000{i}.png" for name in ("a_b", "dog", "owl") for i in (1, 2)]
    for name in images:
        with Image.open(tmp_path / "s" / name) as image:
            assert image.format == "PNG" and image.size == (8, 8)
    assert (tmp_path / "s_grid.png").is_file()


def test_an_image_depends_on_seed_class_and_number_alone(checkpoint, tmp_path):
    all_of_them = drawn(checkpoint, tmp_path / "1", "--per_class", "3")
    assert len({image.numpy().tobytes() for image in all_of_them.values()}) == 9
    some = drawn(checkpoint, tmp_path / "2", "--per_class", "2", "--classes", "owl", "dog", "--batch_size", "3")
    assert set(some) == {"owl_0001.png", "owl_0002.png", "dog_0001.png", "dog_0002.png"}
    assert all(torch.equal(some[name], all_of_them[name]) for name in some)
    other = drawn(checkpoint, tmp_path / "3", "--per_class", "1", "--seed", "1")
    assert not torch.equal(other["dog_0001.png"], all_of_them["dog_0001.png"])


def test_the_temperature_is_by_default_the_checkpoint_s(checkpoint, tmp_path):
    cool = tmp_path / "cool.pt"
    content = torch.load(checkpoint, weights_only=True)
    torch.save(content | {"sample_temperature": 0.5}, cool)
    plain, default = drawn(checkpoint, tmp_path / "1"), drawn(cool, tmp_path / "2")
    for images in (drawn(checkpoint, tmp_path / "3", "--temperature", "0.5"), default):
        assert all(torch.equal(images[name], default[name]) for name in images)
    assert not any(torch.equal(plain[name], default[name]) for name in plain)
    warm = drawn(cool, tmp_path / "4", "--temperature", "1")
    assert all(torch.equal(warm[name], plain[name]) for name in plain)


def test_a_class_in_another_unicode_form(tmp_path):
    path = tmp_path / "net.pt"
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    for in_checkpoint, given in ((composed, decomposed), (decomposed, composed)):
        save_checkpoint(path, PixelCNN(1, 4, 1, 1, 2), image_size=(8, 8), class_names=("a", in_checkpoint), dataset="x")
        assert list(drawn(path, tmp_path / given, "--per_class", "1", "--classes", given)) == [f"{composed}_0001.png"]


def test_files_of_others_are_never_lost(checkpoint, tmp_path):
    out = tmp_path / "s"
    drawn(checkpoint, out, "--per_class", "2")
    (out / "mine.txt").write_text("mine")
    flags = ["--checkpoint", str(checkpoint), "--out", str(out), "--per_class", "1"]
    with pytest.raises(SystemExit):
        run_script(lambda: generate.main(flags))
    assert len(list(out.iterdir())) == 7
    assert generate.main([*flags, "--overwrite", "true"]) == 0
    names = sorted(path.name for path in out.iterdir())
    assert names == ["a_b_0001.png", "dog_0001.png", "mine.txt", "owl_0001.png"]


def test_a_grid_is_replaced_only_with_overwrite(checkpoint, tmp_path):
    grid = tmp_path / "s_grid.png"
    grid.write_bytes(b"mine")
    flags = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "s"), "--per_class", "1"]
    with pytest.raises(UserError, match=r"s_grid\.png exists; give another --out, or --overwrite true"):
        generate.main(flags)
    assert grid.read_bytes() == b"mine" and not (tmp_path / "s").exists()
    assert generate.main([*flags, "--overwrite", "true"]) == 0 and grid.read_bytes().startswith(b"\x89PNG")


def test_what_is_completed_is_neither_removed_nor_written_over(checkpoint, tmp_path):
    out = tmp_path / "s"
    drawn(checkpoint, out, "--per_class", "1")
    (tmp_path / "link.png").symlink_to(out / "owl_0001.png")
    flags = ["--checkpoint", str(checkpoint), "--out", str(out), "--per_class", "1", "--overwrite", "true"]
    before = {name: (out / name).read_bytes() for name in ("dog_0001.png", "owl_0001.png")}
    assert generate.main([*flags, "--complete", str(out / "dog_0001.png"), str(tmp_path / "link.png")]) == 0
    new = [f"{start}_{name}_0001.png" for start in ("dog_0001", "link") for name in ("a_b", "dog", "owl")]
    assert sorted(path.name for path in out.iterdir()) == sorted([*before, *new])  # a_b_0001.png was no input
    assert all((out / name).read_bytes() == content for name, content in before.items())

    files = {path: path.read_bytes() for path in [*out.iterdir(), tmp_path / "s_grid.png"]}
    os.link(tmp_path / "s_grid.png", tmp_path / "hard.png")
    for inputs in (["dog_0001.png", "dog_0001_owl_0001.png"], ["../s_grid.png"], ["../hard.png"]):
        with pytest.raises(UserError, match=r"--out .* would overwrite .*, which is an input; give another --out"):
            generate.main([*flags, "--complete", *(str(out / name) for name in inputs)])
    with pytest.raises(UserError, match=r"--out .* is in the folder of --fid"):
        generate.main([*flags, "--fid", str(out), "--per_class", "2"])  # the reference holds earlier samples
    assert files == {path: path.read_bytes() for path in [*out.iterdir(), tmp_path / "s_grid.png"]}


@pytest.fixture
def reference(tmp_path):
    """A data set folder with five images to test on, in test/owl."""
    for split, count in (("train", 1), ("test", 5)):
        folder = tmp_path / "data" / split / "owl"
        folder.mkdir(parents=True)
        for number in range(count):
            Image.effect_noise((8, 8), 60 + number).save(folder / f"{number}.png")
    return tmp_path / "data"


def test_fid_against_a_folder_a_split_and_saved_statistics(checkpoint, reference, hub, tmp_path, capsys):
    from pytorch_fid.fid_score import save_fid_stats

    scores, saved = [], str(tmp_path / "statistics.npz")
    save_fid_stats([str(reference / "test" / "owl"), saved], 5, "cpu", 64, num_workers=0)
    for number, given in enumerate((str(reference / "test"), "folder:test", saved)):
        flags = ["--fid", given]
        flags += ["--fid_dims", "64", "--data_dir", str(reference), "--per_class", "2", "--device", "cpu"]
        assert len(drawn(checkpoint, tmp_path / f"s{number}", *flags)) == 6
        out, err = capsys.readouterr()
        (line,) = (line for line in out.splitlines() if "pytorch-fid" in line)
        name, score = line.split()[:2]
        assert name == "frechet_distance_unofficial_weights" and "not the official weights" in err
        them = "statistics" if given == saved else 5
        assert f"dims 64, 6 images against the {them} of {given}" in line and "6726825d" in line
        scores.append(float(score))
    assert scores[0] > 0.1 and scores == pytest.approx([scores[0]] * 3, rel=0.05)


def test_fid_without_weights_costs_no_draws(checkpoint, reference, empty_hub, tmp_path, capsys):
    argv = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "s"), "--per_class", "1", "--fid", str(reference)]
    assert generate.main(argv) == 1
    out, err = capsys.readouterr()
    assert len(list((tmp_path / "s").iterdir())) == 3 and "pytorch-fid" not in out
    assert sum(str(empty_hub / "checkpoints") in line and "--fid_weights" in line for line in err.splitlines()) == 1


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("--fid nowhere", "nowhere"),
        ("--fid cow:test", "cpen455"),
        ("--fid digits:test", "validation"),
        ("--fid_dims 100", "fid_dims"),
        ("--classes cow", "owl"),
        ("--classes=[]", "--classes has no values"),
        ("--complete=[]", "--complete has no values"),
        ("--out /", "/ is a folder"),
        ("--out -", "takes one file"),
        ("--out /dev/null", "is not a folder"),
        ("--per_class 0", "per_class"),
        ("--temperature 0", "temperature"),
        ("--seed -1", "seed"),
        ("--device cuda:77", "cuda:77"),
        ("--checkpoint nowhere.pt", "nowhere.pt"),
    ],
)
def test_a_mistake_gets_one_line(checkpoint, tmp_path, capsys, flags, word):
    argv = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "s"), *flags.split()]
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: generate.main(argv))
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and word in lines[0]
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("--fid ONE", "two or more"),
        ("--fid FIVE --per_class 1 --classes owl", "raise --per_class"),
        ("--fid STATISTICS", "192 dimensions, and --fid_dims is 64"),
        ("--fid HALF", "no statistics of FID"),
        ("--fid FIVE --fid_weights nowhere.pth", "nowhere.pth"),
        ("--fid OUT --overwrite true", "in the folder of --fid"),
        ("--fid DAMAGED", "damaged.png"),
    ],
)
def test_what_fid_cannot_be_measured_with_is_told_before_anything_is_drawn(
    checkpoint, reference, hub, tmp_path, capsys, monkeypatch, flags, word
):
    monkeypatch.setattr(generate, "draw_images", lambda *_, **__: pytest.fail("drawn"))
    five, out = reference / "test", tmp_path / "s"
    for name, count in (("one", 1), ("damaged", 2), ("s", 2)):
        (tmp_path / name).mkdir()
        for file in sorted((five / "owl").iterdir())[:count]:
            shutil.copy(file, tmp_path / name / f"dog_{file.stem:>04}.png")
    (tmp_path / "damaged" / "damaged.png").write_bytes(b"junk")
    np.savez(tmp_path / "statistics.npz", mu=np.zeros(192), sigma=np.eye(192))
    (tmp_path / "half.npz").write_bytes((tmp_path / "statistics.npz").read_bytes()[:999])
    places = {"ONE": tmp_path / "one", "DAMAGED": tmp_path / "damaged", "OUT": out, "FIVE": five}
    places |= {"STATISTICS": tmp_path / "statistics.npz", "HALF": tmp_path / "half.npz"}
    argv = [str(places.get(flag, flag)) for flag in flags.split()]
    argv = ["--checkpoint", str(checkpoint), "--out", str(out), "--fid_dims", "64", "--device", "cpu", *argv]
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: generate.main(argv))
    *_, line = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and line.startswith("error: ") and word in line
    assert len(list(out.iterdir())) == 2  # nothing of an earlier run is removed


def test_completions_keep_the_rows_exactly(checkpoint, tmp_path):
    pixels = torch.randint(0, 256, (8, 8), dtype=torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "my photo.png")
    Image.fromarray(255 - pixels.numpy()).save(tmp_path / "other.png")
    flags = ["--complete", str(tmp_path / "my photo.png"), str(tmp_path / "other.png"), "--keep_rows", "3"]
    images = drawn(checkpoint, tmp_path / "s", *flags, "--per_class", "2", "--classes", "owl", "dog")
    expected = [
        f"{file}_{name}_000{i}.png" for file in ("my_photo", "other") for name in ("dog", "owl") for i in (1, 2)
    ]
    assert list(images) == expected
    for name, image in images.items():
        top = pixels if name.startswith("my") else 255 - pixels
        assert torch.equal(image[0, :3], top[:3]) and not torch.equal(image[0, 3:], top[3:])
    with Image.open(tmp_path / "s_grid.png") as grid:  # four rows; the image, its kept rows, two completions
        assert grid.height == 4 * 100 + 4 and grid.width >= 4 * 100 + 4


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("--complete nowhere.png", "nowhere.png"),
        ("--complete PHOTO --keep_rows 8", "1 to 7"),
        ("--keep_rows 3", "--complete"),
        ("--complete CKPT", "not a readable image"),
    ],
)
def test_a_mistaken_completion_gets_one_line(checkpoint, tmp_path, capsys, flags, word):
    photo = tmp_path / "photo.png"
    Image.new("L", (8, 8)).save(photo)
    test_a_mistake_gets_one_line(
        checkpoint, tmp_path, capsys, flags.replace("PHOTO", str(photo)).replace("CKPT", str(checkpoint)), word
    )


def test_batches_halve_when_memory_runs_out(checkpoint, tmp_path, monkeypatch):
    sizes, real = [], Sampler.__call__

    def limited(self, labels, *arguments, **more):
        sizes.append(len(labels))
        if len(labels) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(self, labels, *arguments, **more)

    whole = drawn(checkpoint, tmp_path / "1", "--per_class", "2")
    monkeypatch.setattr(Sampler, "__call__", limited)
    parts = drawn(checkpoint, tmp_path / "2", "--per_class", "2")
    assert sizes == [6, 3, 1, 1, 1, 1, 1, 1] and all(torch.equal(parts[name], whole[name]) for name in whole)
