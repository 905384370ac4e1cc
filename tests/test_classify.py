"""classify.py through its command line."""

import math
import unicodedata

import pytest
import torch
from PIL import Image

import classify
import generate
from data import read_image
from model import PixelCNN, class_log_likelihoods, load_checkpoint, save_checkpoint
from tests.photos import NAMES, rows
from tests.runs import interrupted_after_batches
from utils.errors import UserError
from utils.script import run_script


def test_every_cell_is_what_the_network_says(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out.csv"
    assert classify.main(["--checkpoint", str(checkpoint), str(photos), "--out", str(out), "--precision", "fp32"]) == 0
    net = load_checkpoint(checkpoint)
    table = rows(out)
    assert [row["path"] for row in table] == [str(path) for path in sorted(photos.rglob("*.png"))]
    columns = [
        "path",
        "label",
        "class_name",
        "confidence",
        "bpd",
        "typicality",
        *(f"logp_{name}" for name in NAMES),
        "error",
    ]
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


def test_a_prior_by_name(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out.csv"
    flags = ["--checkpoint", str(checkpoint), "--out", str(out), "--prior"]
    classify.main([*flags, "owl=1e-300", "cat=2", "dog=1e-300", str(photos)])
    assert {row["class_name"] for row in rows(out)} == {"cat"}
    told = capsys.readouterr().out
    assert "prior: cat: 1, dog: 5e-301, owl: 5e-301\n6 images classified: cat: 6, dog: 0, owl: 0\n" in told
    named = out.read_bytes()
    classify.main([*flags, "2", "1e-300", "1e-300", str(photos)])
    assert out.read_bytes() == named


def test_folders_of_one_class_in_another_unicode_form(tmp_path, capsys, recwarn):
    torch.manual_seed(0)
    composed, decomposed = (unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD"))
    net, out = PixelCNN(1, 4, 1, 3, 2), tmp_path / "out.csv"
    for in_checkpoint, on_disk in ((composed, decomposed), (decomposed, composed)):
        path = tmp_path / f"{len(in_checkpoint)}.pt"
        save_checkpoint(path, net, image_size=(8, 8), class_names=("bar", in_checkpoint), dataset="folder")
        folder = tmp_path / f"set{len(on_disk)}" / on_disk
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / "1.png")
        argv = ["--checkpoint", str(path), "--out", str(out), "--prior", "bar=1e-300", f"{on_disk}=1"]
        assert classify.main([*argv, str(folder.parent)]) == 0
        assert "accuracy 1.0000, balanced accuracy 1.0000, macro F1 1.0000 (over all 1" in capsys.readouterr().out
        assert rows(out)[0]["class_name"] == composed
    assert not [warning for warning in recwarn if "label" in str(warning.message)]  # of scikit-learn


def test_what_is_skipped_is_told_by_kind(checkpoint, photos, tmp_path, capsys):
    for name in ("cat/1.HEIC", "dog/2.heic", "notes.txt"):
        (photos / name).touch()
    (photos / "...x").mkdir()
    Image.new("RGB", (8, 8)).save(photos / "...x" / "1.png")
    flags = ["--checkpoint", str(checkpoint), "--out", str(tmp_path / "out.csv")]
    assert classify.main([*flags, str(photos)]) == 0
    told = capsys.readouterr().out
    assert "skipped: 3 files without an image's extension, such as" in told
    assert "(2 .heic, 1 .txt; .heic cannot be read here: convert to JPEG or PNG)" in told
    assert f"skipped: 1 images in folders whose names begin with a dot, such as {photos}/...x/1.png" in told
    (tmp_path / "phone").mkdir()
    (tmp_path / "phone" / "1.HEIC").touch()
    with pytest.raises(UserError, match=r"has no files with an image's .*, but 1 \.heic; .*convert to JPEG or PNG"):
        classify.main([*flags, str(tmp_path / "phone")])


def test_a_bad_image_of_a_split_has_a_row(tmp_path, own_folder, capsys):
    path, out = tmp_path / "net.pt", tmp_path / "out.csv"
    save_checkpoint(path, PixelCNN(1, 4, 1, 3, 2), image_size=(8, 8), class_names=("a", "b"), dataset="folder")
    (own_folder / "validation/a/001.png").write_bytes(b"")
    flags = ["--checkpoint", str(path), "--out", str(out), "--dataset", "folder", "--data_dir", str(own_folder)]
    assert classify.main(flags) == 1
    table = rows(out)
    assert [row["path"] for row in table] == [f"validation/{name}/00{i}.png" for name in "ab" for i in (0, 1)]
    assert [bool(row["error"]) for row in table] == [False, True, False, False]
    told = capsys.readouterr()
    assert "over all 3 images of known class" in told.out and "1 of 4 files could not be read" in told.err


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
        ("--checkpoint CKPT PHOTOS --prior 1 2", "give one for each, in this order: cat, dog, owl"),
        ("--checkpoint CKPT PHOTOS --prior x", "--prior x: give positive, finite numbers, or NAME=NUMBER"),
        ("--checkpoint CKPT PHOTOS --prior=cat", "--prior cat: give positive, finite numbers, or NAME=NUMBER"),
        ("--checkpoint CKPT PHOTOS --prior cat=1 dog=1", "--prior lacks owl"),
        ("--checkpoint CKPT --prior cat=1 dog=1 owl=x PHOTOS", "--prior owl=x: give positive, finite numbers"),
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
    with interrupted_after_batches(2), pytest.raises(KeyboardInterrupt):
        classify.main(flags)
    partial = tmp_path / "out.csv.partial"
    assert len(rows(partial)) == 4 and out.read_bytes() == whole
    with pytest.raises(UserError, match="another"):
        classify.main([*flags, "--resume", "--prior", "1", "2", "3"])
    out.unlink()
    capsys.readouterr()
    assert classify.main([*flags, "--resume"]) == 0
    assert out.read_bytes() == whole and "over all 6 images" in capsys.readouterr().out and not partial.exists()


def test_a_network_that_does_not_see_the_class_is_said_in_every_script(photos, tmp_path, capsys):
    path = tmp_path / "none.pt"
    save_checkpoint(path, PixelCNN(1, 4, 1, 3, 3, "none"), image_size=(8, 8), class_names=NAMES, dataset="folder")
    flags = ["--checkpoint", str(path)]
    out = tmp_path / "out.csv"
    assert classify.main([*flags, str(photos), "--out", str(out), "--explain", str(tmp_path / "maps")]) == 0
    error = capsys.readouterr().err
    assert "--fusion none" in error and "labels and confidences mean nothing" in error
    assert {row["class_name"] for row in rows(out)} == {"cat"}
    assert generate.main([*flags, "--per_class", "1", "--out", str(tmp_path / "drawn")]) == 0
    assert "the images of all classes are drawn from one distribution" in capsys.readouterr().err


def test_the_labels_of_a_few_photos_are_printed(checkpoint, photos, tmp_path, capsys):
    paths = sorted(photos.rglob("*.png"))
    for count in (1, 5, 6):
        out = tmp_path / f"{count}.csv"
        assert classify.main(["--checkpoint", str(checkpoint), *map(str, paths[:count]), "--out", str(out)]) == 0
        told = capsys.readouterr().out.splitlines()
        expected = [f"{r['path']}: {r['class_name']} (confidence {float(r['confidence']):.3f})" for r in rows(out)]
        assert [line for line in told if "(confidence" in line] == (expected if count < 6 else [])
        assert any(line.startswith(f"{count} image{'s' if count > 1 else ''} classified: ") for line in told)
