"""W&B sweep files, and the settings that the command line fixes."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from evaluation.metrics import METRICS, Goal
from training.settings import TrainSettings, tagged
from tuning.checks import check_candidates, check_measured, check_metric_name, check_together
from tuning.flags import command_flags, to_flags
from tuning.search_space import Parameter, Value, is_int, is_number, parse_parameter
from tuning.stopping import Hyperband, parse_early_terminate
from utils.arguments import parse_settings, read_yaml
from utils.console import notify
from utils.errors import UserError
from utils.signals import Interruption

KEYS = {"program", "method", "metric", "parameters", "command", "early_terminate", "run_cap"}
IGNORED = {"name", "description", "project", "entity", "apiVersion", "kind", "controller"}  # of W&B's own


@dataclass(frozen=True)
class SweepFile:
    """The content of a sweep file.

    Args:
        name: of the file, without its extension.
        method: bayes, random or grid.
        metric: the key of metrics.jsonl to optimise.
        goal: maximize or minimize.
        constants: settings with a single value.
        parameters: settings to search over, at least one.
        raw: ``parameters`` as they stand in the file.
        run_cap: maximum number of trials; None for no limit.
        target: no trial is started once one has reached this value of the metric; None for no such end.
        flags: of pcnn_train.py, from ``command``.
        hyperband: the rule of ``early_terminate``, None without it.
    """

    name: str
    method: str
    metric: str
    goal: Goal
    constants: dict[str, Value]
    parameters: list[Parameter]
    raw: dict[str, Any]
    run_cap: int | None = None
    target: float | None = None
    flags: tuple[str, ...] = ()
    hyperband: Hyperband | None = None


@dataclass(frozen=True)
class Sweep:
    """A sweep file together with the settings of the command line.

    Args:
        file: the search, without the settings that the command line fixes.
        fixed: settings shared by all trials.
        folder: parent of trial_0000/, trial_0000.log, ...
        seed: of the search.
        prune: stop unpromising trials early.
        interruption: records the signals that stop the running trial.
    """

    file: SweepFile
    fixed: dict[str, Value]
    folder: Path
    seed: int = 0
    prune: bool = False
    interruption: Interruption = field(default_factory=Interruption)


def read_sweep(path: str | Path) -> SweepFile:
    """Read a W&B sweep file. Raises UserError that names an invalid or unsupported key."""
    content = read_yaml(path)
    try:
        return parse_sweep(content, Path(path).stem)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None


def parse_sweep(content: Any, name: str) -> SweepFile:
    """The sweep described by the parsed YAML ``content``. Raises UserError."""
    if not isinstance(content, dict):
        raise UserError("a sweep file is a mapping with method, metric and parameters")
    for key in content:
        if key not in KEYS | IGNORED:
            raise UserError(f"the key {key} is not supported (supported: {', '.join(sorted(KEYS | IGNORED))})")
    method = content.get("method")
    if method not in ("bayes", "random", "grid"):
        raise UserError(f"method is {method!r}; give bayes, random or grid")
    if Path(str(content.get("program", "pcnn_train.py"))).name != "pcnn_train.py":
        raise UserError(f"program is {content['program']!r}; sweep.py runs pcnn_train.py")
    run_cap = content.get("run_cap")
    if run_cap is not None and not (is_int(run_cap) and run_cap > 0):
        raise UserError(f"run_cap is {run_cap!r}; give a number of trials of 1 or more")

    metric, goal, target = parse_metric(content.get("metric"), method)
    flags = tuple(command_flags(content["command"])) if content.get("command") is not None else ()
    stopping = content.get("early_terminate")
    hyperband = None if stopping is None else parse_early_terminate(stopping)

    raw = content.get("parameters")
    if not isinstance(raw, dict):
        raise UserError("parameters must be a mapping from settings to values")
    parameters = [parse_parameter(name, options) for name, options in raw.items()]
    constants = {p.name: p.options["value"] for p in parameters if p.distribution == "constant"}
    parameters = [p for p in parameters if p.distribution != "constant"]
    if method == "grid":
        parameters = [Parameter(p.name, "categorical", {"values": p.grid()}) for p in parameters]
    if not parameters:
        raise UserError("parameters has no setting to search over; give at least one values, or min and max")
    raw = {p.name: raw[p.name] for p in parameters}
    return SweepFile(name, method, metric, goal, constants, parameters, raw, run_cap, target, flags, hyperband)


def parse_metric(metric: Any, method: str) -> tuple[str, Goal, float | None]:
    """Name, goal and target of the metric of a sweep file. Raises UserError."""
    if metric is None and method != "bayes":
        return "accuracy", "maximize", None  # W&B needs none here; the report ranks trials by it
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise UserError("metric must have a name, as in metric: {name: accuracy, goal: maximize}")
    for key in metric:
        if key not in ("name", "goal", "target", "impute", "impute_while_running"):  # the last two are W&B's own
            raise UserError(f"metric: the key {key} is not supported (supported: name, goal, target)")
    name, goal, target = check_metric_name(metric["name"]), metric.get("goal"), metric.get("target")
    if goal not in (None, "minimize", "maximize"):
        raise UserError(f"metric: goal is {goal!r}; give maximize or minimize")
    if target is not None and not is_number(target):
        raise UserError(f"metric: target is {target!r}, not a number")
    if goal is None and name in METRICS and METRICS[name].goal == "maximize":
        notify(f"metric: {name} is minimized, which is W&B's default; add goal: maximize for the opposite")
    return name, goal or "minimize", target


def fix_settings(sweep: SweepFile, assignments: Sequence[str]) -> SweepFile:
    """Fix settings by ``assignments``, each "key=value", instead of searching over them. Raises UserError."""
    constants = dict(sweep.constants)
    for assignment in assignments:
        key, equals, value = assignment.partition("=")
        if not equals or not key:
            raise UserError(f"--set {assignment}: give KEY=VALUE, as in --set max_epochs=2")
        constants[key] = value
    remaining = [parameter for parameter in sweep.parameters if parameter.name not in constants]
    if not remaining:
        raise UserError("--set leaves no setting to search over; fix fewer settings")
    raw = {parameter.name: sweep.raw[parameter.name] for parameter in remaining}
    return dataclasses.replace(sweep, constants=constants, parameters=remaining, raw=raw)


def fixed_settings(sweep: SweepFile, flags: Sequence[str] = (), en_wandb: bool = False) -> dict[str, Value]:
    """The settings shared by all trials: constants of the file override ``flags`` of pcnn_train.py.

    Settings at their defaults are left out unless they are constants. Raises UserError for a value that pcnn_train.py
    would reject, including those that a trial could get, for settings that contradict each other, and for a metric that
    the trials do not measure.
    """
    constants = {**sweep.constants, "en_wandb": en_wandb}
    settings = parse_settings(TrainSettings, "", [*sweep.flags, *flags, *to_flags(constants)])
    check_candidates(sweep.parameters, sweep.raw)
    defaults, searched = TrainSettings(), {parameter.name for parameter in sweep.parameters}
    check_measured(sweep.metric, settings, searched)
    check_together(sweep.parameters, settings)
    fixed = {
        name: value
        for name, value in dataclasses.asdict(settings).items()
        if name not in searched and (name in constants or value != getattr(defaults, name))
    }
    for name in tagged("folder") & fixed.keys():
        raise UserError(f"--{name} cannot be given to trials; sweep.py makes a folder for every trial (--save_dir)")
    return fixed
