"""Rows of a table from run folders, and the distance that needs no Inception weights."""

import json

import pytest
import torch

import pcnn_train
from evaluation.pixel_distance import pixel_distance
from training import pixel_distance as distance
from training import results
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
    cells = row.strip("| ").split(" | ")
    assert cells[:4] == ["tiny", "1/8/2, early+middle", "likelihood", "1"]
    assert cells[4:8] == [f"{best['epoch']} of 2", f"{best['accuracy']:.4f}", f"{best['val_bpd']:.3f}", "not available"]
    assert header.count("|") == rule.count("|") == row.count("|")


def test_a_folder_that_is_no_run(tmp_path, run):
    with pytest.raises(UserError, match=r"config\.yaml"):
        results.main([str(tmp_path)])
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(UserError, match=r"metrics\.jsonl"):
        results.main([str(tmp_path)])
    with pytest.raises(UserError, match="folders"):
        results.main([])


def test_the_distance_is_0_to_itself_and_grows_with_noise():
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(300, 3, 4, 4, generator=generator)
    images = (torch.nn.functional.interpolate(coarse, 32) * 255).to(torch.uint8)
    distances = [0.0]
    assert pixel_distance(images, images) == pytest.approx(0, abs=1e-3)
    for deviation in (20, 60, 200):
        noisy = images + deviation * torch.randn(images.shape, generator=generator)
        distances.append(pixel_distance(noisy.clamp(0, 255).to(torch.uint8), images))
    assert distances == sorted(distances) and distances[1] > 1e-3
    # a constant shift moves the mean of each of the 192 numbers by 51 / 255
    dark = (images * 0.5).to(torch.uint8)
    assert pixel_distance(dark + 51, dark) == pytest.approx(192 * 0.2**2, rel=1e-3)


def test_side_by_side_on_the_digits(run, capsys):
    flags = ["--checkpoint", str(run / "best.pt"), "--reference", "digits:train"]
    assert distance.main(flags) == 0
    rows = dict(line.strip("| ").split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("|"))
    values = {name: float(value) for name, value in rows.items()}
    noisy = [values[f"real with noise of {level} levels"] for level in (8, 32, 64)]
    assert values["real (validation)"] < noisy[1] < noisy[2] < values["uniform noise"] and "drawn" in values
    with pytest.raises(UserError, match="--reference"):
        distance.main(["--checkpoint", str(run / "best.pt"), "--reference", "nothing"])
