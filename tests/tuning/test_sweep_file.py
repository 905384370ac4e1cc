"""Sweep files: every distribution of W&B, and the errors of invalid files."""

import math
from pathlib import Path

import optuna
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from tuning.search_space import parse_parameter
from tuning.sweep_file import fixed_settings, parse_sweep, read_sweep
from utils.errors import UserError

CONFIGS = Path(__file__).resolve().parents[2] / "configs"


def sample(options, count, name="lr", method="random"):
    """``count`` values of one parameter."""
    parameter = parse_parameter(name, options)
    sampler = {"random": optuna.samplers.RandomSampler, "bayes": optuna.samplers.TPESampler}[method](seed=1)
    study = optuna.create_study(sampler=sampler)
    values = []
    for _ in range(count):
        trial = study.ask()
        values.append(parameter.suggest(trial))
        study.tell(trial, 0.0)
    return values


@pytest.fixture(autouse=True)
def quiet():
    optuna.logging.set_verbosity(optuna.logging.ERROR)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"min": 0.5, "max": 2.0}, stats.uniform(0.5, 1.5)),
        ({"distribution": "uniform", "min": 1, "max": 3}, stats.uniform(1, 2)),
        ({"distribution": "log_uniform", "min": -7, "max": -2}, stats.loguniform(math.exp(-7), math.exp(-2))),
        ({"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}, stats.loguniform(1e-4, 1e-1)),
        ({"distribution": "inv_log_uniform", "min": 2, "max": 7}, stats.loguniform(math.exp(-7), math.exp(-2))),
        ({"distribution": "inv_log_uniform_values", "min": 1e-4, "max": 1e-1}, stats.loguniform(1e-4, 1e-1)),
        ({"distribution": "normal", "mu": 3, "sigma": 2}, stats.norm(3, 2)),
        ({"distribution": "normal"}, stats.norm(0, 1)),
        ({"distribution": "log_normal", "mu": -3, "sigma": 0.5}, stats.lognorm(0.5, scale=math.exp(-3))),
        ({"distribution": "beta", "a": 2, "b": 5}, stats.beta(2, 5)),
    ],
)
def test_continuous_distributions(options, expected):
    values = sample(options, 400)
    assert stats.kstest(values, expected.cdf).pvalue > 1e-3
    assert all(isinstance(value, float) for value in values)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"distribution": "q_uniform", "min": 0, "max": 1, "q": 0.1}, stats.uniform(0, 1)),
        ({"distribution": "q_uniform", "min": 3, "max": 90, "q": 20}, stats.uniform(3, 87)),
        ({"distribution": "q_log_uniform", "min": 0, "max": 5}, stats.loguniform(1, math.exp(5))),
        ({"distribution": "q_log_uniform_values", "min": 8, "max": 100, "q": 4}, stats.loguniform(8, 100)),
        ({"distribution": "q_normal", "mu": 30, "sigma": 10, "q": 5}, stats.norm(30, 10)),
        ({"distribution": "q_log_normal", "mu": 2, "sigma": 1, "q": 0.5}, stats.lognorm(1, scale=math.exp(2))),
        ({"distribution": "q_beta", "a": 2, "b": 2, "q": 0.25}, stats.beta(2, 2)),
    ],
)
def test_quantised_distributions(options, expected):
    """round(X / q) q: an integer q gives integers, and P(value <= k q) is that of X <= (k + 1/2) q."""
    q = options.get("q", 1)
    values = sample(options, 400)
    assert all(isinstance(value, int if isinstance(q, int) else float) for value in values)
    steps = [round(value / q) for value in values]
    assert all(value == pytest.approx(step * q) for value, step in zip(values, steps, strict=True))
    for step in set(steps):
        below = sum(s <= step for s in steps)
        assert stats.binomtest(below, len(steps), float(expected.cdf((step + 0.5) * q))).pvalue > 1e-4


@settings(max_examples=30, deadline=None)
@given(st.integers(-1000, 1000), st.integers(0, 1000))
def test_integers_between_min_and_max(low, span):
    values = sample({"min": low, "max": low + span}, 20, "nr_filters")
    assert all(isinstance(value, int) and low <= value <= low + span for value in values)


@settings(max_examples=30, deadline=None)
@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.sampled_from([1, 5, 0.25, 0.1]))
def test_quantised_values_are_within_half_a_step_of_the_range(low, span, q):
    for value in sample({"distribution": "q_uniform", "min": low, "max": low + span, "q": q}, 10):
        assert low - q / 2 - 1e-9 <= value <= low + span + q / 2 + 1e-9


@pytest.mark.parametrize("method", ["random", "bayes"])
def test_categorical_values(method):
    assert set(sample({"values": [16, 32, 64]}, 60, "batch_size", method)) == {16, 32, 64}
    assert set(sample({"distribution": "categorical", "values": ["flip", "none"]}, 40, "augment", method)) == {
        "flip",
        "none",
    }
    assert set(sample({"values": [None, True, False, 0.5, "x"]}, 90, "tag", method)) == {None, True, False, 0.5, "x"}


def test_probabilities_weigh_the_values():
    for options in ({}, {"distribution": "categorical_w_probabilities"}, {"distribution": "categorical"}):
        values = sample(options | {"values": [1, 2, 3, 4], "probabilities": [0, 1, 3, 0]}, 400)
        assert set(values) == {2, 3}
        assert stats.binomtest(values.count(3), 400, 0.75).pvalue > 1e-4


def test_yaml_numbers_without_a_point_are_numbers():
    parameter = parse_parameter("lr", yaml.safe_load("{distribution: log_uniform_values, min: 1e-4, max: 1E-2}"))
    assert parameter.options == {"min": 1e-4, "max": 1e-2}
    assert parse_parameter("lr", yaml.safe_load("{values: [1e-4, 1.5e-3]}")).options["values"] == [1e-4, 1.5e-3]


def test_the_published_sweep():
    sweep = read_sweep("sweep.yaml")
    assert (sweep.name, sweep.method, sweep.metric, sweep.goal) == ("sweep", "bayes", "accuracy", "maximize")
    assert sweep.constants == {"lr_decay": 0.99995, "max_epochs": 200, "en_wandb": True}
    assert {p.name: p.options["values"] for p in sweep.parameters} == {
        "batch_size": [16, 32, 64],
        "nr_filters": [40, 60, 80, 100],
        "nr_logistic_mix": [5, 10, 15, 20, 25],
        "nr_resnet": [1, 2, 3],
        "sample_batch_size": [8, 16, 24],
    }


def test_the_ablation_is_the_digits_with_seven_fusions():
    sweep = read_sweep("configs/ablation.yaml")
    assert sweep.method == "grid"
    values = {p.name: p.options["values"] for p in sweep.parameters}
    assert values.pop("fusion") == [
        "early", "middle", "film", "early+middle", "early+film", "early+late", "early+film+late"
    ]  # fmt: skip
    assert values == {"seed": [1, 2]}
    with open("configs/digits.yaml") as file:
        digits = yaml.safe_load(file)
    assert sweep.constants == digits | {"max_epochs": 4, "sampling_interval": 4}


@pytest.mark.parametrize(
    "path",
    ["sweep.yaml", *sorted(str(path) for path in CONFIGS.glob("*.yaml") if "\nparameters:" in path.read_text())],
)
def test_the_shipped_sweeps_can_run(path):
    sweep = read_sweep(path)
    assert sweep.parameters and fixed_settings(sweep).keys() >= sweep.constants.keys()


def test_the_optimizer_sweep_ranks_by_held_out_likelihood():
    sweep = read_sweep("configs/optimizer_sweep.yaml")
    assert sweep.metric == "val_bpd" and sweep.goal == "minimize"
    assert math.prod(len(p.options["values"]) for p in sweep.parameters) == 36


def content(**changes):
    base = {"method": "random", "metric": {"name": "accuracy", "goal": "maximize"}, "parameters": {"lr": {"value": 1}}}
    base["parameters"] = {"nr_filters": {"values": [4, 8]}}
    return base | changes


def test_a_grid_holds_every_value():
    parameters = {
        "nr_filters": {"values": [4, 8]},
        "seed": {"min": 1, "max": 3},
        "dropout": {"distribution": "q_uniform", "min": 0, "max": 0.3, "q": 0.1},
        "lr": {"value": 0.1},
    }
    sweep = parse_sweep(content(method="grid", parameters=parameters), "x")
    values = {p.name: p.options["values"] for p in sweep.parameters}
    assert values == {"nr_filters": [4, 8], "seed": [1, 2, 3], "dropout": [0.0, 0.1, 0.2, 0.3]}
    assert sweep.constants == {"lr": 0.1}


def test_the_goal_is_to_minimize_unless_it_is_named(capsys):
    assert parse_sweep(content(metric={"name": "val_bpd"}), "x").goal == "minimize"
    assert capsys.readouterr().err == ""
    assert parse_sweep(content(metric={"name": "accuracy"}), "x").goal == "minimize"
    assert "accuracy is minimized" in capsys.readouterr().err


def test_only_bayes_needs_a_metric():
    for method in ("random", "grid"):
        without = content(method=method)
        del without["metric"]
        sweep = parse_sweep(without, "x")
        assert (sweep.metric, sweep.goal) == ("accuracy", "maximize")


def test_the_best_value_of_a_metric_is_its_name_in_the_summary_at_wandb():
    assert parse_sweep(content(metric={"name": "best_val_bpd"}), "x").metric == "val_bpd"
    with pytest.raises(UserError, match="no run reports best_lr"):
        parse_sweep(content(metric={"name": "best_lr"}), "x")


@pytest.mark.parametrize(
    ("command", "flags", "notice"),
    [
        (["${env}", "${interpreter}", "${program}", "${args}"], [], ""),
        (["/usr/bin/env", "python3", "pcnn_train.py", "${args_no_boolean_flags}"], [], ""),
        (["${env}", "python", "${program}", "--dataset", "digits", "${args}", "--seed=3"],
         ["--dataset", "digits", "--seed=3"], ""),
        (["${program}", "--config", "${args_json_file}", "--seed", 3], ["--seed", "3"], ""),
        (["${program}", "--data_dir=${envvar:SWEEP_TEST}/x", "${args}"], ["--data_dir=/data/x"], ""),
        (["${program}", "--tag", "${envvar:SWEEP_TEST_UNSET}"], ["--tag", "SWEEP_TEST_UNSET"], ""),
        (["${env}", "OMP_NUM_THREADS=2", "torchrun", "${program}", "${args}"], [],
         "command: OMP_NUM_THREADS=2 torchrun has no effect"),
        (["bash", "train.sh", "${args}"], [], "command: it does not start pcnn_train.py and has no effect"),
    ],
)  # fmt: skip
def test_a_command_gives_its_own_flags(command, flags, notice, capsys, monkeypatch):
    monkeypatch.setenv("SWEEP_TEST", "/data")
    monkeypatch.delenv("SWEEP_TEST_UNSET", raising=False)
    sweep = parse_sweep(content(command=command), "x")
    assert list(sweep.flags) == flags
    errors = capsys.readouterr().err
    assert errors.startswith(notice) if notice else errors == ""


def test_the_flags_of_a_command_reach_the_trials():
    command = ["${interpreter}", "${program}", "--dataset", "digits", "--lr", "0.1", "--seed", "4", "${args}"]
    parameters = {"nr_filters": {"values": [4, 8]}, "lr": {"value": 0.2}}
    fixed = fixed_settings(parse_sweep(content(command=command, parameters=parameters), "x"), ["--seed", "5"])
    assert fixed == {"dataset": "digits", "lr": 0.2, "seed": 5, "en_wandb": False}


def test_a_boolean_is_no_constant_text():
    """YAML reads on as one, which a flag would make the text true."""
    file = parse_sweep(content(parameters={"nr_filters": {"values": [4, 8]}, "tag": {"value": True}}), "x")
    with pytest.raises(UserError, match=r"--tag True: .* put quotes around a text"):
        fixed_settings(file)


def test_keys_of_wandb_alone_are_allowed():
    parse_sweep(content(controller={"type": "local"}, kind="sweep", project="p", description="d"), "x")
    parse_sweep(content(metric={"name": "accuracy", "goal": "maximize", "impute": "worst"}), "x")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ([], "mapping"),
        (content(early_terminate={"type": "hyperband"}), "early_terminate: give min_iter, or max_iter and s"),
        (content(early_terminate={"type": "median"}), "early_terminate: give a type"),
        (content(early_terminate="hyperband"), "early_terminate: give a type"),
        (content(early_terminate={"type": "hyperband", "min_iter": 0}), "min_iter is 0; give a whole number of 1"),
        (content(early_terminate={"type": "hyperband", "min_iter": 3, "eta": 1.5}), "eta is 1.5; give a whole .* of 2"),
        (content(early_terminate={"type": "hyperband", "max_iter": 2, "s": 1}), "max_iter 2 is below eta 3"),
        (content(early_terminate={"type": "hyperband", "iter": 2}), "key iter is not supported"),
        (content(command="python ${program}"), "command must be a list"),
        (content(scheduler={"engine": "ax"}), "key scheduler is not supported"),
        (content(method="annealing"), "method is 'annealing'.*bayes"),
        (content(method=None), "method is None"),
        (content(program="train.py"), "program is 'train.py'"),
        (content(run_cap=0), "run_cap is 0"),
        (content(method="bayes", metric=None), "metric must have a name"),
        (content(metric={}), "metric must have a name"),
        (
            content(metric={"name": "val_accuracy"}),
            "no run reports val_accuracy; name one of accuracy, balanced_accuracy, f1, ",
        ),
        (content(metric={"name": "epoch"}), "no run reports epoch"),
        (
            content(metric={"name": "validation_accuracy"}),
            "validation_accuracy is measured once all is chosen; name acc",
        ),
        (content(metric={"name": "accuracy", "targets": 1}), "key targets"),
        (content(metric={"name": "accuracy", "target": "high"}), "target is 'high', not a number"),
        (content(metric={"name": "accuracy", "goal": "up"}), "goal is 'up'"),
        (content(parameters=[]), "parameters must be a mapping"),
        (content(parameters={"lr": {"value": 1}}), "no setting to search"),
        (content(method="grid", parameters={"lr": {"min": 0.1, "max": 0.2}}), "lr: a grid cannot hold uniform"),
    ],
)
def test_invalid_files(bad, words):
    with pytest.raises(UserError, match=words) as error:
        parse_sweep(bad, "x")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nr_filter", {"values": [1]}, "no setting nr_filter"),
        ("run_dir", {"values": ["a", "b"]}, "run_dir cannot be swept"),
        ("lr", 0.1, "lr: give a mapping"),
        ("lr", {}, "lr: give value, values, min and max"),
        ("lr", {"min": 1}, "lr: give value, values, min and max"),
        ("lr", {"parameters": {"a": {"value": 1}}}, "lr is nested; nested settings are not supported"),
        (
            "optimizer",
            {"parameters": {"lr": {"values": [1]}}},
            "optimizer is nested; nested settings are not supported",
        ),
        ("lr", {"distribution": "cauchy"}, "distribution cauchy is not supported"),
        ("lr", {"distribution": ["normal"]}, "distribution .* is not supported"),
        ("lr", {"distribution": "normal", "min": 1}, "normal has no key min"),
        ("lr", {"values": [1], "max": 1}, "categorical has no key max"),
        ("lr", {"distribution": "q_uniform", "min": 0}, "q_uniform needs max"),
        ("lr", {"values": []}, "values must be"),
        ("lr", {"values": 3}, "values must be"),
        ("lr", {"values": [1, 2, 1.0]}, "without duplicates"),
        ("lr", {"values": [[1], [2]]}, r"\[1\] is not supported as a value"),
        ("lr", {"value": {"a": 1}}, "is not supported as a value"),
        ("lr", {"values": [1, 2], "probabilities": [1]}, "one number for each"),
        ("lr", {"values": [1, 2], "probabilities": [1, -1]}, "0 or more"),
        ("lr", {"values": [1, 2], "probabilities": [0, 0]}, "not all of them 0"),
        ("lr", {"min": "low", "max": 1}, "min is 'low', not a number"),
        ("lr", {"min": 0.0, "max": math.inf}, "max is inf, not a number"),
        ("lr", {"min": 2, "max": 1}, "min 2 is above max 1"),
        ("lr", {"distribution": "int_uniform", "min": 0.5, "max": 1}, "whole numbers"),
        ("lr", {"distribution": "log_uniform_values", "min": 0, "max": 1}, "min 0 has no logarithm"),
        ("lr", {"distribution": "log_uniform", "min": 1, "max": 1000}, "natural logarithms"),
        ("lr", {"distribution": "log_normal", "mu": 1000}, "natural logarithms"),
        ("lr", {"distribution": "normal", "sigma": 0}, "sigma is 0; it must be above 0"),
        ("lr", {"distribution": "q_normal", "q": -1}, "q is -1; it must be above 0"),
    ],
)
def test_invalid_parameters(name, options, words):
    with pytest.raises(UserError, match=words) as error:
        parse_parameter(name, options)
    assert "\n" not in str(error.value)


def test_unreadable_files(tmp_path):
    for text, words in (
        ("a: [1", "not valid YAML"),
        ("a: 2024-02-30", "not valid YAML: day is out of range"),
        ("a: 1", "key a is not supported"),
    ):
        path = tmp_path / "x.yaml"
        path.write_text(text)
        with pytest.raises(UserError, match=rf"x\.yaml.*{words}") as error:
            read_sweep(path)
        assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"none\.yaml cannot be read"):
        read_sweep(tmp_path / "none.yaml")


def test_a_study_that_cannot_be_a_file_is_one_line(tmp_path):
    import sweep

    (tmp_path / "file").write_text("")
    for name in ("a/b", "..", "a?b", "a#b", "a%20b"):
        with pytest.raises(UserError, match=r"--study .* cannot be a file's name"):
            sweep.main(["configs/sweep_digits.yaml", "--study", name, "--save_dir", str(tmp_path / "new")])
    for folder in ("file", "file/x"):
        with pytest.raises(UserError, match="cannot be written"):
            sweep.main(["configs/sweep_digits.yaml", "--save_dir", str(tmp_path / folder)])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_en_wandb_reads_words_of_truth():
    import sweep

    for word, value in (("False", False), ("false", False), ("no", False), ("True", True), ("true", True)):
        assert sweep.parse(["sweep.yaml", "--en_wandb", word]).en_wandb is value
    with pytest.raises(UserError, match="maybe"):
        sweep.parse(["sweep.yaml", "--en_wandb", "maybe"])
