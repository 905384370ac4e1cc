"""Rows of a table from run folders, and the distance that needs no Inception weights."""

import json

import pytest
from PIL import Image

import pcnn_train
from training import results
from training.settings import TrainSettings
from utils.errors import UserError

TINY = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --batch_size 256 --dropout 0 --precision fp32 "
    "--sampling_interval 0 --fid_samples 0 --max_epochs 2"
).split()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    assert pcnn_train.main([*TINY, "--run_dir", str(folder)]) == 0
    return folder


def test_a_row_is_the_best_epoch(run, capsys):
    figure = run.parent / "figure.png"
    assert results.main([str(run), "--figure", str(figure)]) == 0 and figure.stat().st_size > 5000
    header, rule, row = capsys.readouterr().out.strip().splitlines()
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    best = max(reports, key=lambda report: (report["accuracy"], -report["val_bpd"]))
    names, cells = (line.strip("| ").split(" | ") for line in (header, row))
    assert cells[:4] == ["tiny", "1/8/2, early+middle", "likelihood", "1"]
    measured = [f"{best[key]:.4f}" for key in ("accuracy", "balanced_accuracy", "f1")]
    assert cells[4:10] == [f"{best['epoch']} of 2", "validation", *measured, f"{best['val_bpd']:.3f}"]
    assert names[5] == "evaluated on" and names[10] == "on the validation images"
    assert cells[10:12] == ["the same figures", "not available"]
    assert header.count("|") == rule.count("|") == row.count("|")


def test_what_a_hybrid_run_minimizes_is_named():
    given = {"discriminative_weight": 0.5, "posterior_temperature": 25.0}
    assert results.objective(TrainSettings(**given)) == "w = 0.5, T = 25"
    more = TrainSettings(**given, teacher="t.pt", cutmix_prob=0.7)
    assert results.objective(more) == "w = 0.5, T = 25, teacher, CutMix"
    assert results.objective(TrainSettings(teacher="t.pt")) == "likelihood"


def test_a_figure_goes_to_standard_output_alone_and_never_over_a_run(run, tmp_path, monkeypatch, capfd):
    assert results.main([str(run)]) == 0
    table = capfd.readouterr().out
    with open(tmp_path / "figure.png", "wb") as stdout:  # capfd decodes text
        monkeypatch.setattr("sys.__stdout__", stdout)
        assert results.main([str(run), "--figure", "-"]) == 0
    with Image.open(tmp_path / "figure.png") as figure:
        assert figure.format == "PNG" and figure.width > 300
    assert capfd.readouterr() == ("", table)
    before = {path: path.read_bytes() for path in run.iterdir() if path.is_file()}
    (tmp_path / "link.png").symlink_to(run / "metrics.jsonl")
    for figure in (run / "config.yaml", tmp_path / "link.png"):
        with pytest.raises(UserError, match=r"--figure .* would overwrite .*, which is an input"):
            results.main([str(run), "--figure", str(figure)])
    with pytest.raises(UserError, match="is a folder"):
        results.main([str(run), "--figure", str(tmp_path)])
    assert before == {path: path.read_bytes() for path in run.iterdir() if path.is_file()}


def test_a_run_of_an_older_version_has_a_row(run, tmp_path):
    old = tmp_path / "old"
    old.mkdir()
    config = (run / "config.yaml").read_text().splitlines(keepends=True)
    (old / "config.yaml").write_text(
        "".join(line for line in config if not line.startswith(("best_metric", "select_on")))
    )
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    unknown = ("not measured", "not measured")
    for report in reports:
        del report["balanced_accuracy"], report["f1"]
    (old / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    assert results.row(results.read_run(old))[5:9] == ("validation", results.row(results.read_run(run))[6], *unknown)


def test_a_row_says_which_images_chose_the_epoch_and_what_the_validation_images_gave(run, tmp_path, monkeypatch):
    holdout = tmp_path / "holdout"
    holdout.mkdir()
    config = (run / "config.yaml").read_text().replace("select_on: validation", "select_on: holdout")
    (holdout / "config.yaml").write_text(config)
    lines = (run / "metrics.jsonl").read_text()
    (holdout / "metrics.jsonl").write_text(lines)  # as of a run that is not over
    row = dict(zip(results.COLUMNS, results.row(results.read_run(holdout)), strict=True))
    assert (row["evaluated on"], row["on the validation images"]) == ("held-out", "not measured")
    final = json.loads(lines.splitlines()[-1])
    final |= {"validation_accuracy": 0.8, "validation_balanced_accuracy": 0.7, "validation_f1": 0.6}
    final |= {"validation_bpd": 3.25, "validation_images": 10}
    (holdout / "metrics.jsonl").write_text(lines.splitlines()[0] + "\n" + json.dumps(final) + "\n")
    row = dict(zip(results.COLUMNS, results.row(results.read_run(holdout)), strict=True))
    shown = "accuracy 0.8000 (95 % interval 0.4902 to 0.9433, n = 10), balanced 0.7000, macro F1 0.6000, 3.250 bits/dim"
    assert row["on the validation images"] == shown
    figures = []
    monkeypatch.setattr(results, "plot_tradeoff", lambda curves, images, path: figures.append((images, *dict(curves))))
    for runs in ([run], [holdout], [run, holdout]):
        assert results.main([*map(str, runs), "--figure", str(tmp_path / "x.png")]) == 0
    assert figures[:2] == [("validation", "likelihood"), ("held-out", "likelihood")]
    assert figures[2] == ("held-out or validation", "likelihood, validation", "likelihood, held-out")


def test_a_folder_that_is_no_run(tmp_path, run):
    with pytest.raises(UserError, match=r"config\.yaml"):
        results.main([str(tmp_path)])
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        results.main([str(tmp_path)])
    with pytest.raises(UserError, match="folders"):
        results.main([])
