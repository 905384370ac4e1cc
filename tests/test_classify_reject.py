"""classify.py: the column typicality and --reject."""

import pytest
import torch

import classify
from data import load_split, read_image
from evaluation.scoring import MirrorScorer, Scorer
from evaluation.typicality import typicality, typicality_reference
from model import PRETRAINED, load_checkpoint, save_checkpoint
from plots.images import write_png
from tests.photos import NAMES, rows
from tests.runs import interrupted_after_batches
from utils.errors import UserError

COLUMNS = ["path", "label", "class_name", "confidence", "bpd", "typicality", *(f"logp_{name}" for name in NAMES)]


@pytest.fixture
def typical(checkpoint, photos, tmp_path):
    """The checkpoint with a reference of the photos themselves, so that their typicality is 0, 1/6, ... 5/6."""
    net, path = load_checkpoint(checkpoint), tmp_path / "typical.pt"
    images = torch.stack([read_image(file, 3, (8, 8)) for file in sorted(photos.rglob("*.png"))])
    reference = typicality_reference(images, Scorer(net, "fp32")(images))
    save_checkpoint(path, net, image_size=(8, 8), class_names=NAMES, dataset="folder", typicality=reference)
    return path


@pytest.fixture
def flags(typical, photos, tmp_path):
    return ["--checkpoint", str(typical), str(photos), "--precision", "fp32", "--out", str(tmp_path / "out.csv")]


def test_the_column_is_the_share_of_odder_reference_images(flags, photos, tmp_path):
    (photos / "cat" / "0b.png").write_bytes(b"no image")
    assert classify.main(flags) == 1
    table = rows(tmp_path / "out.csv")
    assert list(table[0]) == [*COLUMNS, "error"]
    (broken,) = (row for row in table if row["error"])
    assert broken["typicality"] == "" and broken["path"].endswith("0b.png")
    cells = sorted(row["typicality"] for row in table if not row["error"])
    assert cells == ["0", "0.166666667", "0.333333333", "0.5", "0.666666667", "0.833333333"]


def test_rejected_images_have_no_class_and_count_for_nothing(flags, photos, tmp_path, capsys):
    assert classify.main(flags) == 0
    before = rows(tmp_path / "out.csv")
    capsys.readouterr()
    assert classify.main([*flags, "--reject", "0.4", "--explain", str(tmp_path / "maps")]) == 0
    after, correct = rows(tmp_path / "out.csv"), 0
    for old, new in zip(before, after, strict=True):
        if float(old["typicality"]) < 0.4:
            assert new == old | {"label": "-1", "class_name": ""}
        else:
            assert new == old
            correct += f"/{new['class_name']}/" in new["path"]
    told = capsys.readouterr().out
    assert [row["label"] for row in after].count("-1") == 3
    assert "3 images classified: " in told and "3 images rejected (typicality below 0.4), coverage 0.5000\n" in told
    assert f"accuracy {correct / 3:.4f}" in told and "(over all 3 images of known class)" in told
    assert "attribution maps: 6 in" in told  # of the two most probable classes all the same


def test_where_all_images_are_rejected_there_are_no_scores(checkpoint, photos, tmp_path, capsys):
    path, out = tmp_path / "strict.pt", tmp_path / "out.csv"
    reference = {"score": "input_complexity", "format": "png", "images": 1, "values": torch.tensor([1e9])}
    net = load_checkpoint(checkpoint)
    save_checkpoint(path, net, image_size=(8, 8), class_names=NAMES, dataset="folder", typicality=reference)
    table = rows_after(["--checkpoint", str(path), str(photos), "--reject", "0.001", "--out", str(out)], tmp_path)
    assert {(row["label"], row["typicality"]) for row in table} == {("-1", "0")}
    told = capsys.readouterr().out
    assert "6 images rejected (typicality below 0.001), coverage 0.0000" in told and "accuracy" not in told
    assert not (tmp_path / "confusion.png").exists()


def rows_after(flags, tmp_path):
    assert classify.main(flags) == 0
    return rows(tmp_path / "out.csv")


def test_with_tta_flip_it_is_that_of_the_averaged_log_likelihoods(flags, typical, photos, tmp_path):
    net = load_checkpoint(typical)
    images = torch.stack([read_image(file, 3, (8, 8)) for file in sorted(photos.rglob("*.png"))])
    expected = typicality(net.metadata["typicality"], images, MirrorScorer(Scorer(net, "fp32"))(images))
    table = rows_after([*flags, "--tta", "flip"], tmp_path)
    assert [float(row["typicality"]) for row in table] == pytest.approx(expected.tolist(), abs=1e-8)


@pytest.mark.parametrize("reject", [[], ["--reject", "0.4"]])
def test_resume_takes_up_rejected_rows(flags, tmp_path, capsys, reject):
    out, partial = tmp_path / "out.csv", tmp_path / "out.csv.partial"
    flags = [*flags, "--batch_size", "2", "--prior", "1", "2", "3", *reject]
    assert classify.main(flags) == 0
    whole, told = out.read_bytes(), capsys.readouterr().out
    with interrupted_after_batches(2), pytest.raises(KeyboardInterrupt):
        classify.main(flags)
    kept = rows(partial)
    assert len(kept) == 4 and ("-1" in [row["label"] for row in kept]) == bool(reject)
    with pytest.raises(UserError, match="another checkpoint, prior or setting"):
        classify.main([*flags, "--resume", "--reject", "0.3"])
    out.unlink()
    assert classify.main([*flags, "--resume", "--explain", str(tmp_path / "maps")]) == 0
    resumed = capsys.readouterr().out
    assert out.read_bytes() == whole and resumed.startswith(told) and "maps: 6 in" in resumed


@pytest.mark.parametrize("edit", [("-1", "-2"), ("-1", "0"), ("-1,", "-1,cat")])
def test_a_rejected_row_that_was_edited_is_not_gone_on_with(flags, photos, tmp_path, edit, monkeypatch):
    flags = [*flags, "--reject", "0.99"]
    real = classify.PredictionFile.write

    def stop(self, prediction):
        real(self, prediction)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(classify.PredictionFile, "write", stop)
        classify.main(flags)
    partial = tmp_path / "out.csv.partial"
    partial.write_text(partial.read_text().replace(f",{edit[0]}", f",{edit[1]}", 1))
    with pytest.raises(UserError, match=r"or was edited \(row 1\)"):
        classify.main([*flags, "--resume"])


def test_without_a_reference_the_column_is_empty_and_reject_refused(checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("evaluation.typicality.compressed_bits", lambda *_: pytest.fail("files were compressed"))
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(tmp_path / "out.csv")]
    assert {row["typicality"] for row in rows_after(flags, tmp_path)} == {""}
    (tmp_path / "out.csv").unlink()
    with pytest.raises(UserError, match="--reject: the checkpoint has no reference of typicality"):
        classify.main([*flags, "--reject", "0.05"])
    for wrong in ("0", "1", "nan", "x"):
        with pytest.raises(UserError, match="--reject"):
            classify.main([*flags, "--reject", wrong])
    assert not (tmp_path / "out.csv").exists() and not (tmp_path / "out.csv.partial").exists()


def test_the_pretrained_checkpoint_rejects_digits_and_noise_but_not_its_own_samples(tmp_path, capsys):
    digits = load_split("digits", "validation", 32).images[:16].expand(-1, 3, -1, -1)
    noise = torch.randint(0, 256, (4, 3, 32, 32), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    (tmp_path / "others").mkdir()
    for number, image in enumerate([*digits, *noise]):
        write_png(image, tmp_path / "others" / f"{number:02d}.png")
    flags = ["--checkpoint", PRETRAINED, "--reject", "0.05", "--out", str(tmp_path / "out.csv")]
    table = rows_after([*flags, str(tmp_path / "others"), "examples"], tmp_path)
    rejected = [row["label"] == "-1" for row in table]
    assert sum(rejected[:16]) >= 14 and all(rejected[16:20]) and not any(rejected[20:]) and len(table) == 28
    assert all(float(row["confidence"]) > 0.9 for row in table[:16])  # it alone would not tell them
