"""Folders of runs that start at the same time."""

import pytest
import torch

from plots.images import labelled_grid, write_png
from training import run_folder
from training.settings import TrainSettings
from utils.errors import UserError


def test_runs_of_one_second_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.setattr(run_folder.time, "strftime", lambda _: "now")
    settings = TrainSettings(dataset="digits", save_dir=str(tmp_path / "runs"))
    paths = [run_folder.new_path(settings) for _ in range(3)]
    assert len(set(paths)) == 3 and all(path.is_dir() for path in paths)


def test_a_folder_that_cannot_be_made_is_one_line(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(UserError, match=r"cannot write the run to .*runs.*give another folder"):
        run_folder.new_path(TrainSettings(dataset="digits", save_dir=str(tmp_path / "runs")))


def test_samples_that_cannot_be_written_leave_no_run(tmp_path):
    (tmp_path / "file").write_text("")
    for samples in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(UserError, match=r"cannot write the samples to .*file.*give another folder"):
            run_folder.check_place(TrainSettings(save_dir=str(tmp_path / "runs"), sample_dir=str(samples)))


def test_sample_grids_replace_no_other_image(tmp_path):
    settings = TrainSettings(save_dir=str(tmp_path / "runs"), sample_dir=str(tmp_path))
    image = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    labelled_grid(image, torch.tensor([0]), ["a"], tmp_path / "epoch_0025.png")
    write_png(image[0], tmp_path / "photo.png")
    run_folder.check_place(settings)
    write_png(image[0], tmp_path / "epoch_0050.png")
    with pytest.raises(UserError, match=r"--sample_dir: .*epoch_0050\.png is no sample grid of this program"):
        run_folder.check_place(settings)


@pytest.mark.parametrize("line", ["5", "[1, 2]", "{}", "{", '{"epoch": "1"}', '{"epoch": 1, "seconds": "2"}'])
def test_metrics_that_are_damaged_are_an_error(tmp_path, line):
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 2.0}\n')
    assert run_folder.read_reports(tmp_path) == [{"epoch": 1, "seconds": 2.0}]
    (tmp_path / "metrics.jsonl").write_text('{"epoch": 1, "seconds": 2.0}\n' + line + "\n")
    with pytest.raises(ValueError):
        run_folder.read_reports(tmp_path)
