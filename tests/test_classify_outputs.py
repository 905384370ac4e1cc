"""Where classify.py writes: links, pipes and standard output, and never over an image."""

import errno

import pytest
import torch
from PIL import Image

import classify
from data import ImageSet
from tests.photos import NAMES, rows
from utils.errors import UserError


def test_standard_output_holds_the_csv_alone(checkpoint, photos, tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    flags = ["--checkpoint", str(checkpoint), "photos", "--explain", "maps", "--out"]
    assert classify.main([*flags, "out.csv"]) == 0
    assert "confusion.png" in capfd.readouterr().out
    for figure in ("confusion.png", "reliability.png"):
        (tmp_path / figure).unlink()
    before = sorted(tmp_path.iterdir())
    assert classify.main([*flags, "-"]) == 0
    told = capfd.readouterr()
    assert told.out == (tmp_path / "out.csv").read_text(encoding="utf-8") and sorted(tmp_path.iterdir()) == before
    for words in ("accuracy", "calibration error", "predictions: standard output", "attribution maps: 6 in maps"):
        assert words in told.err
    assert "confusion" not in told.err  # no figure is claimed
    with pytest.raises(UserError, match="--resume: standard output keeps no rows"):
        classify.main([*flags, "-", "--resume"])


def test_no_input_is_written_over(checkpoint, photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link.csv").symlink_to(checkpoint)
    image = min(photos.rglob("*.png"))
    image.rename(photos / "confusion.png")  # a photo of that name, beside which the figure would go
    flags = ["--checkpoint", str(checkpoint), "photos", "--out"]
    before = {path: path.read_bytes() for path in (*photos.rglob("*.png"), checkpoint)}
    for out in ("photos/confusion.png", "link.csv", "photos/p.csv"):
        with pytest.raises(UserError, match=rf"--out {out} would overwrite .*, which is an input; give another --out"):
            classify.main([*flags, out])
    assert before == {path: path.read_bytes() for path in (*photos.rglob("*.png"), checkpoint)}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link.csv", "photos"]


def test_the_csv_and_maps_replace_no_figure_and_no_other_image(checkpoint, photos, tmp_path):
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out"]
    with pytest.raises(UserError, match=r"--out .*confusion\.png is the name of a figure beside it"):
        classify.main([*flags, str(tmp_path / "confusion.png")])
    (tmp_path / "maps").mkdir()
    photo = tmp_path / "maps" / "overview.png"
    Image.new("RGB", (8, 8)).save(photo)
    before = photo.read_bytes()
    with pytest.raises(UserError, match=r"--explain .*maps would overwrite .*; give another folder"):
        classify.main([*flags, str(tmp_path / "o.csv"), "--explain", str(tmp_path / "maps")])
    assert photo.read_bytes() == before


def test_no_file_of_a_data_set_is_written_over(checkpoint, photos, monkeypatch):
    split = ImageSet(torch.zeros(1, 3, 8, 8, dtype=torch.uint8), torch.tensor([0]), NAMES, ("cat/0, x.png",))
    monkeypatch.setattr(classify, "load_split", lambda *_: split)
    flags = ["--checkpoint", str(checkpoint), "--dataset", "cpen455", "--data_dir", str(photos), "--out"]
    (photos / "validation.csv").write_text("cat/0, x.png,0\n")
    for name in split.paths[0], "validation.csv":
        with pytest.raises(UserError, match=rf"would overwrite .*{name}, which is an input"):
            classify.main([*flags, str(photos / name)])
    for _ in range(2):  # an earlier file of predictions is no input
        assert classify.main([*flags, str(photos / "predictions.csv")]) == 0


def test_figures_beside_the_images_are_no_images(checkpoint, photos, tmp_path, capsys):
    out = photos / "cat" / "out.csv"
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(out), "--explain", str(photos / "dog" / "why")]
    assert classify.main(flags) == 0
    first = out.read_bytes()
    capsys.readouterr()
    assert classify.main(flags) == 0 and out.read_bytes() == first
    assert "left out: 9 figures that this program drew" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"would overwrite .*confusion\.png"):  # it was named
        classify.main([*flags[:2], str(photos / "cat" / "confusion.png"), *flags[2:]])


def test_maps_that_are_missing_are_told(checkpoint, photos, tmp_path, monkeypatch, capsys):
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(tmp_path / "o.csv"), "--explain"]
    real = classify.report

    def remove(*arguments):
        for file in sorted(photos.rglob("*.png"))[:count]:
            file.rename(file.with_suffix(".gone"))
        return real(*arguments)

    monkeypatch.setattr(classify, "report", remove)
    count = 2
    assert classify.main([*flags, str(tmp_path / "maps")]) == 1
    told = capsys.readouterr()
    assert "attribution maps: 4 in " in told.out and "first ones in overview.png" in told.out
    assert "2 images could not be read again and have no map, such as " in told.err and "0, x.png" in told.err
    count = 4
    assert classify.main([*flags, str(tmp_path / "none")]) == 1
    told = capsys.readouterr()
    assert "attribution maps: none\n" in told.out and "overview" not in told.out + told.err
    assert not list((tmp_path / "none").iterdir())


def test_a_byte_order_mark_and_resume_agree(checkpoint, photos, tmp_path, capsys):
    out = tmp_path / "out.csv"
    flags = ["--checkpoint", str(checkpoint), str(photos), "--out", str(out)]
    assert classify.main(flags) == 0
    plain = out.read_bytes()
    assert classify.main([*flags, "--csv_bom", "true"]) == 0
    marked = out.read_bytes()
    assert marked == b"\xef\xbb\xbf" + plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classify, "predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            classify.main([*flags, "--csv_bom", "true"])
    with pytest.raises(UserError, match="another checkpoint, prior or setting"):
        classify.main([*flags, "--resume"])
    assert classify.main([*flags, "--resume", "--csv_bom", "true"]) == 0 and out.read_bytes() == marked


def test_a_summary_is_not_lost_with_a_figure(checkpoint, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", full)
    with pytest.raises(UserError, match=r"confusion\.png cannot be written \(No space left on device\)"):
        classify.main(["--checkpoint", str(checkpoint), str(photos), "--out", str(tmp_path / "out.csv")])
    told = capsys.readouterr().out
    assert "accuracy" in told and "predictions: " in told and len(rows(tmp_path / "out.csv")) == 6


def full(*_, **__):
    raise OSError(errno.ENOSPC, "No space left on device")
