"""Studies: sampling, resuming, which settings a study holds, and its report."""

import math
import random

import optuna
import pytest
import yaml
from PIL import Image

from tuning.analysis import TrialRow, correlations, setting_importances, trial_rows
from tuning.database import open_storage
from tuning.report import metric_titles, plot_settings, trial_table, write_report
from tuning.study import claim_untried, make_sampler, open_study
from tuning.sweep_file import Sweep, fix_settings, fixed_settings, parse_sweep, read_sweep
from tuning.trial import TrialFailed, best_metrics
from utils.errors import UserError


@pytest.mark.parametrize("method", ["bayes", "random", "grid"])
def test_each_method_samples_and_a_resumed_search_repeats_nothing(method):
    """Every trial has a new sampler, as in a sweep that is killed after each trial."""
    values = {"nr_filters": {"values": list(range(1, 9))}}
    if method != "grid":
        values["lr"] = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-2}
    metric = {"name": "accuracy", "goal": "maximize"}
    file = parse_sweep({"method": method, "metric": metric, "parameters": values}, "x")
    sweep = Sweep(file, {}, None)
    study = optuna.create_study(direction="maximize")

    def objective(trial):
        study.sampler = make_sampler(sweep, trial.number)
        trial = claim_untried(study, sweep, trial) if method == "grid" else trial
        settings = {parameter.name: parameter.suggest(trial) for parameter in file.parameters}
        return -(math.log10(settings["lr"] / 1e-3) ** 2) if "lr" in settings else 0

    count = 8 if method == "grid" else 40
    for _ in range(count):
        study.sampler = make_sampler(sweep, 0)
        study.optimize(objective, 1)
    samples = [trial.params for trial in study.trials]
    assert len({tuple(params.values()) for params in samples}) == count
    assert all(type(params["nr_filters"]) is int for params in samples)
    if method != "grid":
        near = sum(5e-4 < params["lr"] < 2e-3 for params in samples[-20:])  # by chance 6 of 20
        assert near > 10 if method == "bayes" else near < 10


def test_a_study_has_one_search(tmp_path):
    file = read_sweep("sweep.yaml")
    storage = open_storage(f"sqlite:///{tmp_path}/x.db")
    open_study(Sweep(file, fixed_settings(file), tmp_path), "x", storage)
    open_study(Sweep(file, fixed_settings(file, ["--device", "cpu", "--data_dir", "d"]), tmp_path), "x", storage)
    fixed = fix_settings(file, ["max_epochs=2"])
    with pytest.raises(UserError, match=r"other fixed .*--study NAME"):
        open_study(Sweep(fixed, fixed_settings(fixed), tmp_path), "x", storage)
    fixed = fix_settings(file, ["nr_resnet=1"])
    with pytest.raises(UserError, match=r"other parameters"):
        open_study(Sweep(fixed, fixed_settings(fixed), tmp_path), "x", storage)


def test_precedence_of_settings(tmp_path):
    """--set, then the file, then flags after --, then the defaults; W&B is off by default."""
    file = fix_settings(read_sweep("sweep.yaml"), ["max_epochs=2", "fusion=film"])
    fixed = fixed_settings(file, ["--config", "configs/digits.yaml", "--lr_decay", "0.9"])
    assert fixed["max_epochs"] == 2 and fixed["lr_decay"] == 0.99995 and fixed["dataset"] == "digits"
    assert fixed["fusion"] == "film" and fixed["en_wandb"] is False and "nr_filters" not in fixed
    assert fixed_settings(file, en_wandb=True)["en_wandb"] is True


def synthetic_study(path, folder, count):
    """A study with synthetic metrics, of a sweep file."""
    file = read_sweep(path)
    sweep = Sweep(file, fixed_settings(file), folder)
    folder.mkdir(exist_ok=True)
    study = open_study(sweep, file.name, open_storage(f"sqlite:///{folder}/{file.name}.db"))
    numbers = random.Random(0)

    def objective(trial):
        study.sampler = make_sampler(sweep, trial.number)
        trial = claim_untried(study, sweep, trial) if file.method == "grid" else trial
        settings = {parameter.name: parameter.suggest(trial) for parameter in file.parameters}
        quality = numbers.random()
        history = [
            {"epoch": e, "train_bpd": 5 - quality, "val_bpd": 5 - e * quality, "accuracy": e * quality / 4}
            for e in (1, 2, 3)
        ]
        history[2]["accuracy"] = 0.0  # the second epoch is the best
        history[0]["fid"] = 50 - 10 * quality
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("fixed", sweep.fixed)
        trial.set_user_attr("history", history)
        trial.set_user_attr("seconds", 1.0)
        trial.set_user_attr("metrics", best_metrics(history, file.metric, file.goal))
        if trial.number == 3 and file.method != "grid":
            trial.set_user_attr("failure", "error: a | b")
            raise TrialFailed
        return history[1]["accuracy"]

    for _ in range(count):
        study.sampler = make_sampler(sweep, 0)
        study.optimize(objective, 1, catch=(TrialFailed,))
    return study


def test_the_report(tmp_path):
    study = synthetic_study("sweep.yaml", tmp_path / "s", 12)
    written = write_report(study, tmp_path / "report")
    assert {path.name for path in written} == {
        "table.md", "best.yaml", "curves.png", "parallel_accuracy.png", "parallel_fid.png",
        "importance_accuracy.png", "importance_fid.png",
    }  # fmt: skip
    for path in written:
        if path.suffix == ".png":
            with Image.open(path) as image:
                assert image.format == "PNG" and min(image.size) > 150
    rows = trial_rows(study)
    assert [row.state for row in rows] == ["complete"] * 11 + ["failed"]
    accuracies = [row.metrics["accuracy"] for row in rows[:11]]
    assert accuracies == sorted(accuracies, reverse=True) and all(row.metrics["epoch"] == 2 for row in rows)
    table = (tmp_path / "report" / "table.md").read_text().splitlines()
    assert table[0].startswith("| trial | batch_size | nr_filters |") and " fid " in table[0]
    assert table[-1] == "Metrics are of the epoch with the best accuracy; those of samples are the best of the run."
    assert table[2].startswith(f"| {rows[0].number} |") and r"failed: error: a \| b" in table[13]
    best = yaml.safe_load((tmp_path / "report" / "best.yaml").read_text())
    assert best == rows[0].settings | {"lr_decay": 0.99995, "max_epochs": 200, "en_wandb": False}


def test_metrics_of_samples_are_the_best_of_the_run():
    history = [
        {"epoch": 1, "accuracy": 0.5, "fid": 30.0, "frechet_distance": 200.0, "class_agreement": 0.6, "derailed": 0.2},
        {"epoch": 2, "accuracy": 0.9},
        {"epoch": 3, "accuracy": 0.7, "fid": 40.0, "frechet_distance": 150.0, "class_agreement": 0.8, "derailed": 0.3},
    ]
    sampled = {"fid": 30.0, "frechet_distance": 150.0, "class_agreement": 0.8, "derailed": 0.2}
    assert best_metrics(history, "accuracy", "maximize") == {"epoch": 2, "accuracy": 0.9} | sampled
    assert best_metrics(history, "fid", "minimize") == {"epoch": 1, "accuracy": 0.5} | sampled


def test_importance_and_correlation_of_the_settings():
    """accuracy = nr_filters / 100, independent of batch_size; distributions that Optuna lacks keep their names."""
    parameters = {
        "nr_filters": {"distribution": "q_normal", "mu": 50, "sigma": 10, "q": 5},
        "batch_size": {"values": [16, 32, 64]},
        "augment": {"values": ["none", "flip"]},
    }
    metric = {"name": "accuracy", "goal": "maximize"}
    file = parse_sweep({"method": "random", "metric": metric, "parameters": parameters}, "x")
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0), direction="maximize")
    study.set_user_attr("sweep", {"goal": "maximize", "metric": "accuracy"})

    def objective(trial):
        settings = {parameter.name: parameter.suggest(trial) for parameter in file.parameters}
        trial.set_user_attr("settings", settings)
        trial.set_user_attr("metrics", {"accuracy": settings["nr_filters"] / 100})
        trial.set_user_attr("fixed", {})
        trial.set_user_attr("seconds", 1.0)
        return settings["nr_filters"] / 100

    study.optimize(objective, 30)
    importances = setting_importances(study, "accuracy")
    assert set(importances) == set(parameters) and importances["nr_filters"] > 0.9
    found = correlations(trial_rows(study), list(parameters), "accuracy")
    assert found["nr_filters"] == pytest.approx(1) and abs(found["batch_size"]) < 0.5 and "augment" not in found


def test_titles_name_the_images_that_epochs_are_chosen_on():
    spec = {"parameters": {"lr": {"min": 0.1, "max": 0.2}}, "fixed": {"dataset": "digits"}}
    assert metric_titles(spec)["accuracy"] == "validation accuracy"
    held = metric_titles(spec | {"fixed": {"select_on": "holdout"}})
    assert (held["val_bpd"], held["fid"]) == ("held-out bits/dim", "FID")
    both = {"select_on": {"values": ["validation", "holdout"]}}
    assert metric_titles(spec | {"parameters": both})["f1"] == "held-out or validation macro F1"


def test_the_table_has_the_figures_of_the_validation_images():
    history = [{"epoch": 1, "accuracy": 0.9, "val_bpd": 3.0}, {"epoch": 2, "accuracy": 0.8, "val_bpd": 2.9}]
    without = TrialRow(0, "complete", {}, {}, best_metrics(history, "accuracy", "maximize"), history, 1.0)
    assert "validation" not in trial_table([without], [], "accuracy")
    history[1] |= {"validation_accuracy": 0.7, "validation_bpd": 3.1, "validation_images": 360}
    metrics = best_metrics(history, "accuracy", "maximize")
    assert (metrics["epoch"], metrics["accuracy"], metrics["validation_accuracy"]) == (1, 0.9, 0.7)
    row = TrialRow(1, "complete", {}, {}, metrics, history, 1.0)
    header, _, first, second, _, note = trial_table([row, without], [], "accuracy").splitlines()
    assert header == "| trial | accuracy | val_bpd | epoch | validation_accuracy | validation_bpd | seconds | state |"
    assert first == "| 1 | 0.9 | 3 | 1 | 0.7 | 3.1 | 1 | complete |" and " | 1 |  |  | 1 | " in second
    assert note.endswith("; validation_accuracy and validation_bpd are of best.pt, evaluated once at the end.")


def test_the_ablation(tmp_path):
    study = synthetic_study("configs/ablation.yaml", tmp_path / "s", 14)
    written = write_report(study, tmp_path / "report")
    assert {"ablation.md", "ablation.png"} <= {path.name for path in written}
    table = (tmp_path / "report" / "ablation.md").read_text().splitlines()
    assert table[0] == "| fusion | validation accuracy | validation bits/dim | FID | seeds |"
    names = ["early", "early+film", "early+film+late", "early+late", "early+middle", "film", "middle"]
    assert [line.split(" | ")[0] for line in table[2:9]] == [f"| {name}" for name in names]
    film = [row.metrics["accuracy"] for row in trial_rows(study) if row.settings["fusion"] == "film"]
    mean, spread = sum(film) / 2, abs(film[0] - film[1]) / 2**0.5
    assert f"| film | {mean:.4f} ± {spread:.4f} |" in table[7] and table[7].endswith("| 2 |")
    with Image.open(tmp_path / "report" / "ablation.png") as image:
        assert image.format == "PNG"


def test_trials_of_equal_settings_have_no_importances(tmp_path, capsys):
    study = optuna.create_study()
    study.set_user_attr("sweep", {"goal": "maximize", "metric": "accuracy"})
    for value in (0.5, 0.6):
        settings = {"lr": 1.0, "tag": "$\\frac{$"}  # no TeX
        attributes = {"settings": settings, "fixed": {}, "seconds": 1.0, "metrics": {"accuracy": value}}
        distributions = {
            "lr": optuna.distributions.FloatDistribution(0, 2),
            "tag": optuna.distributions.CategoricalDistribution(["$\\frac{$", "x"]),
        }
        trial = optuna.trial.create_trial(
            params=settings, distributions=distributions, value=value, user_attrs=attributes
        )
        study.add_trial(trial)
    written = plot_settings(study, trial_rows(study), ["lr", "tag"], "accuracy", "accuracy", "maximize", tmp_path)
    assert [path.name for path in written] == ["parallel_accuracy.png"]
    assert "importances" in capsys.readouterr().err
