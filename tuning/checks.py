"""What a sweep asks of pcnn_train.py, checked before the first trial: its metric and the values that it may sample."""

import dataclasses
import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from data import DATASETS
from evaluation.inception import InceptionFeatures, cached_weights
from evaluation.metrics import FID_NAMES, METRICS, SAMPLE_METRICS
from evaluation.protocol import VALIDATION
from training.settings import RELATED, TrainSettings, check_settings
from tuning.flags import SETTINGS, to_flags
from tuning.search_space import MARGIN, Parameter, Value, quantise
from utils.arguments import parse_settings
from utils.console import notify
from utils.errors import UserError
from utils.text import printable
from utils.values import holds

# of the report of an epoch; the others count or name it
MEASURED = tuple(
    dict.fromkeys((*METRICS, *FID_NAMES, "train_bpd", "train_cross_entropy", "seconds", "images_per_second"))
)
NEEDS: dict[str, tuple[str, ...]] = {  # settings that are above 0 where a metric is measured
    **dict.fromkeys(FID_NAMES, ("sampling_interval", "fid_samples")),
    **dict.fromkeys(SAMPLE_METRICS, ("sampling_interval", "metric_samples")),
    "train_cross_entropy": ("discriminative_weight",),
}


def check_metric_name(name: str) -> str:
    """The key in the reports of a metric, whose best value W&B has as best_NAME. Raises UserError."""
    name = name.removeprefix("best_") if name.removeprefix("best_") in METRICS else name
    if name.startswith(VALIDATION):
        raise UserError(
            f"metric: {name} is measured once all is chosen; name accuracy or another of the images of --select_on"
        )
    if name not in MEASURED:
        raise UserError(f"metric: no run reports {name}; name one of {', '.join(MEASURED)}")
    return name


def check_measured(metric: str, settings: TrainSettings, searched: Iterable[str]) -> None:
    """Raise UserError where the trials, with ``settings`` for all that is not searched, do not measure ``metric``."""
    for name in NEEDS.get(metric, ()):
        if name not in searched and not getattr(settings, name):
            raise UserError(f"metric: {metric} is measured only with {name} above 0; set it, or take another metric")
    unknown = "dataset" not in searched and DATASETS[settings.dataset].imagenet_classes is None
    if metric == "class_agreement" and unknown:
        raise UserError(f"metric: {metric} is not measured on {settings.dataset}; take another metric")
    if metric in FID_NAMES and "fid_weights" not in searched:
        check_fid_weights(metric, settings)


def check_fid_weights(metric: str, settings: TrainSettings) -> None:
    """Raise UserError where the trials cannot use their Inception weights, or report FID under another name.

    Without fid_weights and without a file in torch's cache they download the official one.
    """
    try:
        file = settings.fid_weights or cached_weights()
    except ImportError as error:
        raise UserError(f"metric: {metric} needs pytorch-fid: {error}") from None
    name = FID_NAMES[0] if file is None or InceptionFeatures(weights=file).official else FID_NAMES[1]
    if metric != name:
        used = f"the weights {printable(file)}" if file else "the official weights, as no fid_weights are set,"
        raise UserError(f"metric: with {used} runs report {name}, not {metric}; name {name}, or set other fid_weights")


def check_candidates(parameters: Sequence[Parameter], raw: Mapping[str, Any]) -> None:
    """Raise UserError where pcnn_train.py refuses a value that a trial may get.

    Notices say where it refuses the tails of a distribution, and where a decimal setting only gets whole numbers
    because its options in the file, ``raw``, are whole numbers.
    """
    for parameter in parameters:
        name = parameter.name
        values, tails = candidates(parameter)
        assumed = is_decimal(name) and assumes_whole_numbers(parameter, raw[name])
        hint = "; a decimal point in min, max or q, as in 0.0, gives decimals" if assumed else ""
        for value in values:
            if problem := refusal(name, value):
                raise UserError(f"{name}: a trial could get {value}, which pcnn_train.py refuses: {problem}{hint}")
        for value in tails:
            if problem := refusal(name, value):
                notify(f"{name}: a few trials may get values like {value} and fail: {problem}")
        if assumed:
            notify(f"{name} gets whole numbers only, as W&B reads these options{hint}")


def check_together(parameters: Sequence[Parameter], settings: TrainSettings) -> None:
    """Raise UserError where the settings of all trials contradict each other, or a file that all need is missing.

    A notice says where those of some do. ``settings`` has the values of all that is not searched.
    """
    names = {parameter.name for parameter in parameters}
    searched = {
        parameter.name: parameter.choices() or candidates(parameter)[0][-1:]  # of a range a value within
        for parameter in parameters
        if parameter.name in RELATED
    }
    problems, passed = [], 0
    for values in itertools.product(*searched.values()):
        chosen = dict(zip(searched, values, strict=True))
        given = parse_settings(TrainSettings, "", to_flags(chosen))
        try:
            check_settings(dataclasses.replace(settings, **{name: getattr(given, name) for name in chosen}))
            passed += 1
        except UserError as error:
            where = ", ".join(f"{name} {printable(str(value))}" for name, value in chosen.items())
            problems.append(f"{where}: {error}" if where else str(error))
    if problems and not passed:
        raise UserError(f"all trials would fail: {problems[0]}")
    if problems:
        notify(f"trials may fail: {problems[0]}")
    for name, needed in (("load_params", True), ("teacher", bool(settings.discriminative_weight))):
        path = getattr(settings, name)
        if path and needed and name not in names and not os.path.exists(path):
            raise UserError(f"{name}: {printable(path)}: no such file")


def candidates(parameter: Parameter) -> tuple[list[Value], list[Value]]:
    """Values that a trial may get: all of a list, else the ends of the range and one between; and rare ones."""
    options = parameter.options
    if "values" in options:
        return options["values"], []
    values: list[Any]
    tails: list[Any] = []
    if "min" in options:
        low, high, _ = parameter.bounds()
        values = [low, high] if parameter.distribution == "int_uniform" else [low, high, low + 0.618 * (high - low)]
    else:
        values = [parameter.quantile(level) for level in (0.05, 0.95, 0.5)]
        tails = [parameter.quantile(level) for level in (MARGIN, 1 - MARGIN)]
    if "q" in options:
        q = options["q"]
        return [quantise(value, q) for value in values], [quantise(value, q) for value in tails]
    return values, tails


def refusal(name: str, value: Value) -> str:
    """Why pcnn_train.py refuses a value of a setting; empty where it takes it."""
    try:
        parse_settings(TrainSettings, "", to_flags({name: value}))
    except UserError as error:
        return str(error)
    return ""


def is_decimal(name: str) -> bool:
    """Whether a setting takes decimals."""
    return holds(SETTINGS[name], float)


def assumes_whole_numbers(parameter: Parameter, raw: Mapping[str, Any]) -> bool:
    """Whether a distribution of whole numbers follows from options without a decimal point, or without q."""
    if parameter.distribution == "int_uniform":
        return "distribution" not in raw
    return parameter.distribution.startswith("q_") and "q" not in raw
