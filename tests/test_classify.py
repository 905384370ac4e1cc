"""classify.py through its command line."""

import csv
import math

import pytest
import torch
from PIL import Image

import classify
from data import read_image
from model import PixelCNN, class_log_likelihoods, load_checkpoint, save_checkpoint
from utils.errors import UserError
from utils.script import run_script

NAMES = ("cat", "dog", "owl")


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    net = PixelCNN(1, 8, 2, 3, 3)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    save_checkpoint(path, net, image_size=(8, 8), class_names=NAMES, dataset="folder")
    return path


@pytest.fixture
def photos(tmp_path):
    """Two images of each class, and one broken file."""
    generator = torch.Generator().manual_seed(0)
    for name in NAMES:
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            pixels = torch.randint(0, 256, (8, 8, 3), generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).save(tmp_path / "photos" / name / f"{i}, x.png")
    return tmp_path / "photos"


def rows(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_cell_is_what_the_network_says(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert classify.main(["--checkpoint", str(checkpoint), str(photos), "--out", str(out), "--precision", "fp32"]) == 0
    net = load_checkpoint(checkpoint)
    table = rows(out)
    assert [row["path"] for row in table] == [str(path) for path in sorted(photos.rglob("*.png"))]
    columns = ["path", "label", "class_name", "confidence", "bpd", *(f"logp_{name}" for name in NAMES), "error"]
    assert list(table[0]) == columns
    correct = 0
    for row in table:
        image = read_image(row["path"], 3, (8, 8))
        scores = class_log_likelihoods(net, image[None])[0]
        assert [float(row[f"logp_{name}"]) for name in NAMES] == pytest.approx(scores.tolist(), rel=1e-5)
        best = int(scores.argmax())
        assert row["label"] == str(best) and row["class_name"] == NAMES[best] and row["error"] == ""
        assert float(row["confidence"]) == pytest.approx(scores.double().softmax(0)[best].item(), rel=1e-3)
        assert float(row["bpd"]) == pytest.approx(-scores[best].item() / (3 * 8 * 8 * math.log(2)), rel=1e-5)
        correct += f"/{NAMES[best]}/" in row["path"]
    assert f"accuracy {correct / 6:.4f}" in capsys.readouterr().out
    with Image.open(tmp_path / "confusion.png") as picture:
        assert picture.format == "PNG"


def test_a_broken_file_gets_an_error_row_and_the_rest_go_on(checkpoint, photos, tmp_path, capsys):
    (photos / "cat" / "0b.png").write_bytes(b"no image")
    out = tmp_path / "out.csv"
    assert classify.main(["--checkpoint", str(checkpoint), str(photos), "--out", str(out)]) == 1
    table = rows(out)
    broken = [row for row in table if row["error"]]
    assert len(table) == 7 and len(broken) == 1
    assert broken[0]["path"].endswith("0b.png") and broken[0]["label"] == broken[0]["logp_cat"] == ""
    assert "1 of 7" in capsys.readouterr().err


def test_a_file_that_is_missing_gets_a_row_and_one_without_an_extension_is_counted(
    checkpoint, photos, tmp_path, monkeypatch, capsys
):
    image = next(photos.rglob("*.png"))
    (photos / "notes").write_bytes(image.read_bytes())
    out = tmp_path / "out.csv"
    paths = [str(photos / "gone.png"), str(photos / "notes"), str(photos)]
    assert classify.main(["--checkpoint", str(checkpoint), *paths, "--out", str(out)]) == 1
    table = rows(out)
    assert [row["path"] for row in table] == [*paths[:2], *map(str, sorted(photos.rglob("*.png")))]
    assert [bool(row["error"]) for row in table] == [True, *[False] * 7] and "No such file" in table[0]["error"]
    told = capsys.readouterr()
    assert "1 of 8" in told.err and f"skipped: 1 files without an image's extension, such as {paths[1]}" in told.out


def test_a_prior_moves_labels_and_batches_do_not(checkpoint, photos, tmp_path):
    out = tmp_path / "out.csv"
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(out)]
    classify.main([*flags, "--batch_size", "1"])
    one = rows(out)
    classify.main([*flags, "--batch_size", "5"])
    assert [row["label"] for row in rows(out)] == [row["label"] for row in one]
    classify.main([*flags, "--prior", "1e-300", "1e-300", "1"])
    assert {row["class_name"] for row in rows(out)} == {"owl"}


def test_a_split_of_a_data_set(tmp_path, capsys):
    torch.manual_seed(0)
    path, out = tmp_path / "net.pt", tmp_path / "out.csv"
    save_checkpoint(
        path, PixelCNN(1, 4, 1, 1, 10), image_size=(8, 8), class_names=tuple("0123456789"), dataset="digits"
    )
    assert classify.main(["--checkpoint", str(path), "--dataset", "digits", "--out", str(out)]) == 0
    assert len(rows(out)) == 360 and "all 360 images" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "word"),
    [
        ("--checkpoint nowhere.pt x.png", "nowhere.pt"),
        ("--checkpoint CKPT", "PATH"),
        ("--checkpoint CKPT PHOTOS --dataset digits", "PATH"),
        ("--checkpoint CKPT nowhere", "nowhere"),
        ("--checkpoint CKPT EMPTY", "EMPTY"),
        ("--checkpoint CKPT PHOTOS --device cuda:77", "cuda:77"),
        ("--checkpoint CKPT PHOTOS --device meta", "--device meta"),
        ("--checkpoint CKPT PHOTOS --prior 1 2", "--prior"),
        ("--checkpoint CKPT PHOTOS --prior 1 2 -1", "prior"),
        ("--checkpoint CKPT --dataset digits", "another data set"),
        ("--checkpoint CKPT --dataset digits --split third", "third"),
        ("--checkpoint CKPT PHOTOS --out PHOTOS", "folder"),
        ("--checkpoint CKPT PHOTOS --batch_size 0", "batch_size"),
    ],
)
def test_a_mistake_gets_one_line(checkpoint, photos, tmp_path, monkeypatch, capsys, flags, word):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "EMPTY").mkdir()
    argv = [{"CKPT": str(checkpoint), "PHOTOS": str(photos)}.get(flag, flag) for flag in flags.split()]
    with pytest.raises(SystemExit) as stop:
        run_script(lambda: classify.main(argv))
    lines = capsys.readouterr().err.strip().splitlines()
    assert stop.value.code == 2 and len(lines) == 1 and lines[0].startswith("error: ") and word in lines[0]
    assert not (tmp_path / "predictions.csv").exists()


def test_in_a_real_process(script, checkpoint, photos, tmp_path):
    result = script("classify.py", "--checkpoint", checkpoint, photos, "--out", tmp_path / "o.csv")
    assert result.returncode == 0 and len(rows(tmp_path / "o.csv")) == 6
    result = script("classify.py", "--checkpoint", photos, photos)
    assert result.returncode == 2 and "Traceback" not in result.stderr


def test_tta_flip_is_the_mean_of_an_image_and_its_mirror_image(checkpoint, photos, tmp_path):
    out = tmp_path / "out.csv"
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(out), "--precision", "fp32", "--tta", "flip"]
    assert classify.main(flags) == 0
    net = load_checkpoint(checkpoint)
    for row in rows(out):
        image = read_image(row["path"], 3, (8, 8))[None]
        scores = (class_log_likelihoods(net, image) + class_log_likelihoods(net, image.flip(3)))[0] / 2
        assert [float(row[f"logp_{name}"]) for name in NAMES] == pytest.approx(scores.tolist(), rel=1e-5)


def test_the_checkpoint_s_temperature_is_used(checkpoint, photos, tmp_path, capsys):
    shipped, out = tmp_path / "shipped.pt", tmp_path / "out.csv"
    net = load_checkpoint(checkpoint)
    save_checkpoint(shipped, net, image_size=(8, 8), class_names=NAMES, dataset="folder", temperature=1e6)
    assert classify.main(["--checkpoint", str(shipped), str(photos), "--out", str(out)]) == 0
    assert [float(row["confidence"]) for row in rows(out)] == pytest.approx([1 / 3] * 6, rel=1e-2)
    told = capsys.readouterr().out
    assert "expected calibration error" in told and "F1 per class: cat: " in told
    assert (tmp_path / "reliability.png").exists()
    classify.main(["--checkpoint", str(shipped), str(photos), "--out", str(out), "--temperature", "1"])
    assert max(float(row["confidence"]) for row in rows(out)) > 0.5


def test_resume_goes_on_and_only_with_the_same_settings(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out.csv"
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(out), "--batch_size", "2"]
    assert classify.main(flags) == 0
    whole = out.read_bytes()

    def cut(self, images):
        if len(self.seen) == 2:
            raise KeyboardInterrupt
        self.seen.append(images)
        return score(self, images)

    score = classify.Scorer.__call__
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify.Scorer, "seen", [], raising=False)
        patch.setattr(classify.Scorer, "__call__", cut)
        with pytest.raises(KeyboardInterrupt):
            classify.main(flags)
    partial = tmp_path / "out.csv.partial"
    assert len(rows(partial)) == 4 and out.read_bytes() == whole
    with pytest.raises(UserError, match="another"):
        classify.main([*flags, "--resume", "--prior", "1", "2", "3"])
    out.unlink()
    capsys.readouterr()
    assert classify.main([*flags, "--resume"]) == 0
    assert out.read_bytes() == whole and "over all 6 images" in capsys.readouterr().out and not partial.exists()
