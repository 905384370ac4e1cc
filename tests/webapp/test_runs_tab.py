import json
import os

import pytest

from tests.webapp.application import write_run, write_runs
from training.runs import find_runs, metric_names, metric_title, points, read_folder, settings_table
from webapp.runs import Runs, curve, grids_at, open_figure, short_names, whole_ticks


@pytest.fixture
def folders(tmp_path):
    return write_runs(tmp_path / "runs")


@pytest.fixture
def both(folders):
    runs = Runs([folders])
    return runs.read(sorted(runs.names()))


def test_runs_and_trials_are_found(folders, both):
    assert [run.name for run in both] == [str(folders / "first"), str(folders / "sweep" / "trial_0001")]
    assert [len(run.reports) for run in both] == [3, 5]
    assert list(both[1].grids) == [1, 2, 3, 4, 5] and both[0].confusion.name == "confusion.png"
    assert Runs([folders / "none"]).names() == []
    assert Runs([folders]).read(["/etc", "../.."]) == []


def test_curves_of_several_runs(both):
    assert metric_names(both) == ["accuracy", "val_bpd", "lr", "train_bpd"]
    assert metric_title("val_bpd", both) == "validation bits/dim"
    assert points(both[0], "accuracy") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    chart = json.loads(curve(both, "accuracy").plot)
    (rows,) = [chart["data"]["values"]]
    assert len(rows) == 8 and {row["run"] for row in rows} == {"first", "sweep/trial_0001"}
    assert whole_ticks([{"epoch": 1}, {"epoch": 100}]) == list(range(1, 101, 13))
    assert whole_ticks([]) == [1]


def test_grids_up_to_an_epoch(both):
    assert [caption for _, caption in grids_at(both, 4)] == ["first, epoch 3", "sweep/trial_0001, epoch 4"]
    assert grids_at(both, 0) == []


def test_settings_that_differ(both):
    assert settings_table(both) == [["dataset", "digits", "digits"], ["lr", "0.1", "0.2"],
                                    ["select_on", "validation", "validation"]]  # fmt: skip
    assert settings_table(both, differing=True) == [["lr", "0.1", "0.2"]]


def test_damaged_runs_are_said_and_not_fatal(tmp_path):
    folder = write_run(tmp_path / "run", 2, 0.1)
    (folder / "metrics.jsonl").write_text("{")
    (folder / "config.yaml").write_text("- a list")
    (folder / "confusion.png").write_bytes(b"no picture")
    run = read_folder("run", folder)
    assert run.problem.startswith("run: config.yaml holds no settings; metrics.jsonl cannot be read")
    assert run.settings == {} and run.reports == ()
    assert open_figure(run.confusion) is None and open_figure(None) is None
    (folder / "samples" / "epoch_0009.png").symlink_to("/etc/hostname")
    assert open_figure(folder / "samples" / "epoch_0009.png") is None


def test_the_newest_run_is_first(tmp_path):
    for number in range(3):
        folder = write_run(tmp_path / str(number), 1, 0.1)
        for name in ("config.yaml", "metrics.jsonl"):
            os.utime(folder / name, (1000 + number, 1000 + number))
    assert list(find_runs([tmp_path])) == [str(tmp_path / name) for name in ("2", "1", "0")]


def test_short_names():
    assert short_names(["runs/a", "runs/b"]) == {"runs/a": "a", "runs/b": "b"}
    assert short_names(["runs/a"]) == {"runs/a": "a"}
    assert short_names(["/x/runs/a", "sweeps/a/t"]) == {"/x/runs/a": "/x/runs/a", "sweeps/a/t": "sweeps/a/t"}
    assert short_names([]) == {}


def test_odd_content_of_a_run_is_shown_or_said(tmp_path):
    """A pipe would be waited for, aliases of YAML expand to gigabytes, and a number may be too large for a float."""
    for name in ("config.yaml", "metrics.jsonl"):
        folder = write_run(tmp_path / f"pipe {name}", 1, 0.1)
        (folder / name).unlink()
        os.mkfifo(folder / name)
        assert read_folder("run", folder).problem == f"run: {name} is no file of a run"
    folder = write_run(tmp_path / "odd", 2, 0.1)
    aliases = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n"
    aliases += "".join(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 9))
    (folder / "config.yaml").write_text(f"select_on: [a]\n{aliases}")
    (folder / "metrics.jsonl").write_text('{"epoch": 1, "val_bpd": 1' + "0" * 400 + ', "accuracy": 0.5}\n')
    run = read_folder("odd", folder)
    assert not run.problem and metric_names([run]) == ["accuracy"]
    assert all(len(cell) < 500 for row in settings_table([run]) for cell in row)
    assert "validation" in metric_title("val_bpd", [run])
    assert json.loads(curve([run], "accuracy").plot)["data"]["values"] and curve([run], "val_bpd")
