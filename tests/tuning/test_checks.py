"""What a sweep asks of pcnn_train.py: values and metrics are checked before the first trial."""

import pytest

from evaluation import inception
from evaluation.metrics import FID_NAMES
from tuning.checks import check_candidates
from tuning.search_space import parse_parameter
from tuning.sweep_file import fixed_settings, parse_sweep
from utils.errors import UserError
from utils.files import file_hash


def check(name, options):
    check_candidates([parse_parameter(name, options)], {name: options})


@pytest.mark.parametrize(
    ("name", "options", "value"),
    [
        ("dropout", {"min": 0, "max": 1}, "1"),
        ("dropout", {"min": 0.0, "max": 1.0}, "1.0"),
        ("dropout", {"min": -0.1, "max": 0.5}, "-0.1"),
        ("dropout", {"distribution": "q_uniform", "min": 0.1, "max": 0.9, "q": 0.5}, "1.0"),
        ("dropout", {"values": [0.5, 1.5]}, "1.5"),
        ("dropout", {"distribution": "normal", "mu": 0.5, "sigma": 0.4}, "-0.15"),
        ("dropout", {"distribution": "beta", "a": 1000, "b": 1e-3}, "1.0"),
        ("lr", {"min": 0, "max": 0.1}, "0"),
        ("ema", {"distribution": "log_uniform", "min": -3, "max": 1}, "2.718281828459045"),
        ("ema", {"distribution": "q_beta"}, "1"),
        ("nr_filters", {"min": 8.0, "max": 64.0}, "42.6"),
        ("nr_filters", {"distribution": "q_uniform", "min": 8, "max": 64, "q": 0.5}, "42.5"),
        ("nr_filters", {"distribution": "uniform", "min": 8, "max": 64}, "42.6"),
        ("nr_filters", {"distribution": "log_uniform_values", "min": 8, "max": 64}, "42.6"),
        ("nr_resnet", {"min": 0, "max": 3}, "0"),
        ("image_size", {"min": 8, "max": 1024}, "1024"),
        ("seed", {"min": 0, "max": 2**32}, "4294967296"),
        ("fusion", {"values": ["early", "later"]}, "later"),
        ("augment", {"min": 0, "max": 1}, "0"),
        ("deterministic", {"values": [0.5, 1.5]}, "0.5"),
        ("negatives", {"values": [None, 0]}, "0"),
        ("tag", {"values": [False, True]}, "False, .* put quotes around a text"),  # as YAML reads off and on
        ("precision", {"values": ["fp32", "fp8"], "probabilities": [1, 1]}, "fp8"),
    ],
)
def test_a_value_that_the_setting_does_not_take(name, options, value, capsys):
    with pytest.raises(UserError, match=rf"^{name}: a trial could get {value}") as error:
        check(name, options)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dropout", {"min": 0.0, "max": 0.9}),
        ("dropout", {"distribution": "uniform", "min": 0, "max": 0.9}),
        ("dropout", {"distribution": "q_uniform", "min": 0, "max": 0.9, "q": 0.1}),
        ("dropout", {"values": [0, 0.5]}),
        ("lr", {"distribution": "log_uniform", "min": -9, "max": -4}),
        ("lr", {"distribution": "log_normal", "mu": -7, "sigma": 0.5}),
        ("lr", {"distribution": "int_uniform", "min": 1, "max": 2}),  # as it says
        ("nr_filters", {"min": 8, "max": 64}),
        ("nr_filters", {"distribution": "q_log_uniform_values", "min": 8, "max": 64, "q": 8}),
        ("nr_filters", {"distribution": "q_uniform", "min": 8.0, "max": 64.0}),
        ("negatives", {"values": [None, 1, 2]}),
        ("compile", {"values": [None, True]}),
    ],
)
def test_what_a_setting_takes_needs_no_word(name, options, capsys):
    check(name, options)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("grad_clip", {"min": 0, "max": 3}),
        ("lr", {"min": 1, "max": 2}),
        ("grad_clip", {"distribution": "q_uniform", "min": 0.0, "max": 3.0}),
        ("grad_clip", {"distribution": "q_log_uniform_values", "min": 0.5, "max": 3.5}),
    ],
)
def test_a_decimal_setting_that_gets_whole_numbers_only(name, options, capsys):
    check(name, options)
    assert capsys.readouterr().err.startswith(f"{name} gets whole numbers only, as W&B reads these options; a decimal")


def test_the_advice_for_whole_numbers_out_of_range():
    with pytest.raises(
        UserError, match=r"dropout: a trial could get 1, .*; a decimal point in min, max or q, as in 0.0"
    ):
        check("dropout", {"min": 0, "max": 1})


def test_tails_that_the_setting_does_not_take(capsys):
    check("lr", {"distribution": "normal", "mu": 0.01, "sigma": 0.003})
    errors = capsys.readouterr().err
    assert errors.startswith("lr: a few trials may get values like -0.00") and len(errors.splitlines()) == 1


def sweep(metric, constants):
    parameters = {"nr_filters": {"values": [4, 8]}} | constants
    metric = {"name": metric, "goal": "minimize"}
    return parse_sweep({"method": "bayes", "metric": metric, "parameters": parameters}, "x")


@pytest.mark.parametrize(
    ("metric", "constants", "flags"),
    [
        ("fid", {"sampling_interval": {"value": 0}}, []),
        ("fid", {}, ["--fid_samples", "0"]),
        ("frechet_distance_unofficial_weights", {"fid_samples": {"value": 0}}, []),
        ("train_cross_entropy", {}, []),
        ("kernel_distance", {"sampling_interval": {"value": 0}}, []),
        ("frechet_distance", {}, ["--metric_samples", "0"]),
    ],
)
def test_a_metric_that_these_trials_do_not_measure(metric, constants, flags):
    with pytest.raises(UserError, match=f"{metric} is measured only with [a-z_]+ above 0"):
        fixed_settings(sweep(metric, constants), flags)


def test_class_agreement_needs_a_data_set_with_imagenet_classes():
    fixed_settings(sweep("class_agreement", {}))  # cpen455
    fixed_settings(sweep("class_agreement", {"dataset": {"values": ["digits", "cpen455"]}}))
    with pytest.raises(UserError, match="class_agreement is not measured on digits"):
        fixed_settings(sweep("class_agreement", {"dataset": {"value": "digits"}}))


def test_a_metric_that_some_trials_measure():
    fixed_settings(sweep("fid", {}))
    fixed_settings(sweep("fid", {"fid_samples": {"values": [0, 100]}}))
    fixed_settings(sweep("train_cross_entropy", {}), ["--discriminative_weight", "0.1"])


def check_fid(metric, file=None):
    """The settings of a sweep on ``metric`` whose trials get ``file`` as their weights; one line where it is wrong."""
    flags = ["--fid_weights", str(file)] if file else []
    try:
        return fixed_settings(sweep(metric, {}), flags).get("fid_weights")
    except UserError as error:
        assert "\n" not in str(error)
        raise


def test_fid_has_the_name_that_goes_with_its_weights(empty_hub, inception_weights, monkeypatch):
    assert check_fid(FID_NAMES[1], inception_weights) == str(inception_weights)
    other = f"with the weights .*{inception_weights.name} runs report {FID_NAMES[1]}, not fid; name {FID_NAMES[1]}, or "
    with pytest.raises(UserError, match=other):
        check_fid("fid", inception_weights)
    monkeypatch.setattr(inception, "OFFICIAL_SHA256", file_hash(inception_weights)[:8])
    assert check_fid("fid", inception_weights) == str(inception_weights)
    with pytest.raises(UserError, match=f"runs report fid, not {FID_NAMES[1]}; name fid, or set other fid_weights"):
        check_fid(FID_NAMES[1], inception_weights)


def test_without_fid_weights_only_fid_is_reported(empty_hub):
    """Nothing is downloaded by the check."""
    assert check_fid("fid") is None and not empty_hub.exists()
    with pytest.raises(UserError, match=f"as no fid_weights are set, runs report fid, not {FID_NAMES[1]}; name fid"):
        check_fid(FID_NAMES[1])
    assert not empty_hub.exists()


def test_the_weights_in_the_cache_are_those_of_the_trials(hub):
    with pytest.raises(UserError, match=f"with the weights {hub}.* runs report {FID_NAMES[1]}, not fid"):
        check_fid("fid")


@pytest.mark.parametrize("metric", FID_NAMES)
def test_weights_that_no_trial_can_use(metric, tmp_path):
    with pytest.raises(UserError, match=r"--fid_weights .*gone\.pth: no such file; give a copy of "):
        check_fid(metric, tmp_path / "gone.pth")
    (tmp_path / "junk.pth").write_bytes(b"junk")
    with pytest.raises(UserError, match=r"junk\.pth does not hold pytorch-fid's Inception weights .*; replace it"):
        check_fid(metric, tmp_path / "junk.pth")
    fixed_settings(sweep("accuracy", {}), ["--fid_weights", str(tmp_path / "gone.pth")])  # FID is then not needed
    fixed_settings(sweep(metric, {"fid_weights": {"values": ["gone.pth", "junk.pth"]}}))


def swept(searched, fixed):
    given = {name: options if isinstance(options, dict) else {"values": options} for name, options in searched.items()}
    given |= {name: {"value": value} for name, value in fixed.items()}
    metric = {"name": "accuracy", "goal": "maximize"}
    return fixed_settings(parse_sweep({"method": "random", "metric": metric, "parameters": given}, "s"))


@pytest.mark.parametrize(
    ("searched", "fixed", "words"),
    [
        ({}, {"fusion": "none", "discriminative_weight": 0.1}, "^all trials would fail: --discriminative_weight: with"),
        (
            {"cutmix_prob": [0.3, 0.5]},
            {"discriminative_weight": 1},
            r"^all trials would fail: cutmix_prob 0.3: --cutmix_",
        ),
        ({}, {"teacher": "gone.pt", "discriminative_weight": 0.1}, "^teacher: gone.pt: no such file"),
        ({}, {"load_params": "gone.pt"}, "^load_params: gone.pt: no such file"),
    ],
)
def test_settings_that_every_trial_would_refuse(searched, fixed, words):
    with pytest.raises(UserError, match=words):
        swept({"lr": [0.1, 0.2]} | searched, fixed)


def test_settings_that_some_trials_would_refuse_are_told(capsys):
    swept({"fusion": ["early", "none"], "discriminative_weight": [0, 1]}, {})
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("trials may fail: fusion none, discriminative_weight 1: --discriminative_weight: with --fus")


@pytest.mark.parametrize(
    ("searched", "fixed"),
    [
        ({"cutmix_prob": [0, 0.5], "fusion": ["early", "film"]}, {"discriminative_share": 0.5}),
        ({"discriminative_share": {"min": 0.0, "max": 0.5}}, {"discriminative_weight": 1.0, "cutmix_prob": 0.5}),
        ({"lr": [0.1, 0.2]}, {"teacher": "gone.pt"}),  # of no effect
    ],
)
def test_settings_that_go_together_pass(searched, fixed, capsys):
    assert swept(searched, fixed).items() >= fixed.items() and capsys.readouterr().err == ""
