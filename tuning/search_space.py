"""The distributions of W&B sweep files, sampled with Optuna."""

import dataclasses
import math
import re
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from evaluation.metrics import is_finite
from training.settings import TrainSettings, tagged
from utils.errors import UserError

if TYPE_CHECKING:
    from optuna import Trial

Value = bool | int | float | str | None
REQUIRED = object()
RANGE = {"min": REQUIRED, "max": REQUIRED}
NORMAL = {"mu": 0.0, "sigma": 1.0}
BETA = {"a": 1.0, "b": 1.0}
QUANTISED = {"q": 1}
DISTRIBUTIONS: dict[str, dict[str, Any]] = {  # name in W&B -> its keys and their defaults
    "constant": {"value": REQUIRED},
    "categorical": {"values": REQUIRED},
    "categorical_w_probabilities": {"values": REQUIRED, "probabilities": REQUIRED},
    "int_uniform": RANGE,
    "uniform": RANGE,
    "q_uniform": RANGE | QUANTISED,
    "log_uniform": RANGE,  # min and max are natural logarithms
    "log_uniform_values": RANGE,
    "q_log_uniform": RANGE | QUANTISED,
    "q_log_uniform_values": RANGE | QUANTISED,
    "inv_log_uniform": RANGE,  # of 1/X, so X lies between exp(-max) and exp(-min)
    "inv_log_uniform_values": RANGE,
    "normal": NORMAL,
    "q_normal": NORMAL | QUANTISED,
    "log_normal": NORMAL,
    "q_log_normal": NORMAL | QUANTISED,
    "beta": BETA,
    "q_beta": BETA | QUANTISED,
}
MANY = 10_000  # values that are not listed
MARGIN = 1e-6  # quantile levels are sampled from [MARGIN, 1 - MARGIN]: a normal quantile is infinite at 0 and 1


@dataclass(frozen=True)
class Parameter:
    """A setting and its distribution.

    Args:
        name: of the setting, as in TrainSettings.
        distribution: name in W&B, a key of DISTRIBUTIONS.
        options: the distribution's keys, defaults filled in.
    """

    name: str
    distribution: str
    options: dict[str, Any]

    @property
    def base(self) -> str:
        """The distribution before quantisation to multiples of q."""
        return self.distribution.removeprefix("q_")

    def suggest(self, trial: "Trial") -> Value:
        """Sample a value for ``trial``.

        Optuna has no normal, beta or weighted categorical distribution and quantises differently from W&B. For these,
        Optuna's parameter is "NAME quantile" or "NAME unrounded", and the value is a function of it.
        """
        options = self.options
        if self.base == "categorical":
            return trial.suggest_categorical(self.name, options["values"])
        if self.base == "int_uniform":
            return trial.suggest_int(self.name, options["min"], options["max"])
        if "min" in options:
            low, high, log = self.bounds()
            name = f"{self.name} unrounded" if "q" in options else self.name
            value: Any = trial.suggest_float(name, low, high, log=log)
        else:
            value = self.quantile(trial.suggest_float(f"{self.name} quantile", MARGIN, 1 - MARGIN))
        return quantise(value, options["q"]) if "q" in options else value

    def choices(self) -> Sequence[Value] | None:
        """All values, where these are few enough to be listed and Optuna's own; else None."""
        if self.distribution == "categorical":
            return self.options["values"]
        low, high = self.options.get("min", 0), self.options.get("max", 0)
        if self.distribution == "int_uniform" and high - low < MANY:
            return range(low, high + 1)
        return None

    def bounds(self) -> tuple[float, float, bool]:
        """Lowest and highest value, and whether the distribution is uniform in the logarithm."""
        low, high = self.options["min"], self.options["max"]
        match self.base:
            case "log_uniform":
                return math.exp(low), math.exp(high), True
            case "inv_log_uniform":
                return math.exp(-high), math.exp(-low), True
            case "log_uniform_values" | "inv_log_uniform_values":
                return low, high, True
        return low, high, False

    def quantile(self, u: float) -> Value:
        """The value at quantile level ``u``, in (0, 1), of the distribution."""
        from scipy import stats

        options = self.options
        match self.base:
            case "normal":
                return float(stats.norm.ppf(u, options["mu"], options["sigma"]))
            case "log_normal":
                return math.exp(stats.norm.ppf(u, options["mu"], options["sigma"]))
            case "beta":
                return float(stats.beta.ppf(u, options["a"], options["b"]))
        cumulative = list(accumulate(options["probabilities"]))
        return options["values"][bisect_left(cumulative, u * cumulative[-1])]

    def grid(self) -> list[Value]:
        """All values. Raises UserError for a distribution that is not finite."""
        options = self.options
        if "values" in options:
            return options["values"]
        if self.distribution == "int_uniform":
            return list(range(options["min"], options["max"] + 1))
        if self.distribution == "q_uniform":
            q = options["q"]
            return [quantise(k * q, q) for k in range(round(options["min"] / q), round(options["max"] / q) + 1)]
        raise UserError(f"{self.name}: a grid cannot hold {self.distribution}; give values")


def quantise(value: float, q: float) -> float:
    """The nearest multiple of ``q``, an int if ``q`` is one."""
    steps = round(value / q)
    return steps * q if isinstance(q, int) else float(f"{steps * q:.12g}")  # 0.3, not 0.30000000000000004


def parse_parameter(name: str, options: Any) -> Parameter:
    """Parse one entry of ``parameters`` of a sweep file. Raises UserError that names the entry."""
    if isinstance(options, dict) and "parameters" in options:
        raise UserError(f"parameters: {name} is nested; nested settings are not supported, name each under parameters")
    if name not in {field.name for field in dataclasses.fields(TrainSettings)}:
        raise UserError(f"parameters: pcnn_train.py has no setting {name} (see its --help)")
    if name in tagged("folder"):
        raise UserError(f"parameters: {name} cannot be swept; sweep.py makes a folder for every trial")
    if not isinstance(options, dict):
        raise UserError(f"{name}: give a mapping, as in {name}: {{values: [1, 2]}}")
    options = {key: parse_scientific(value) for key, value in options.items()}
    distribution = options.pop("distribution", None) or infer_distribution(name, options)
    if not isinstance(distribution, str) or distribution not in DISTRIBUTIONS:
        raise UserError(f"{name}: the distribution {distribution} is not supported ({', '.join(DISTRIBUTIONS)})")
    if distribution == "categorical" and "probabilities" in options:
        distribution = "categorical_w_probabilities"
    known = DISTRIBUTIONS[distribution]
    for key in options:
        if key not in known:
            raise UserError(f"{name}: {distribution} has no key {key} (it has {', '.join(known)})")
    for key, default in known.items():
        if key not in options and default is REQUIRED:
            raise UserError(f"{name}: {distribution} needs {key}")
    parameter = Parameter(name, distribution, {key: options.get(key, default) for key, default in known.items()})
    validate(parameter)
    return parameter


def infer_distribution(name: str, options: dict[str, Any]) -> str:
    """The distribution that W&B assumes when the file names none."""
    if "value" in options:
        return "constant"
    if "values" in options:
        return "categorical"
    if "min" in options and "max" in options:
        return "int_uniform" if is_int(options["min"]) and is_int(options["max"]) else "uniform"
    raise UserError(f"{name}: give value, values, min and max, or a distribution")


def validate(parameter: Parameter) -> None:
    """Raise UserError unless the options are valid for the distribution."""
    validate_values(parameter.name, parameter.options)
    validate_numbers(parameter.name, parameter.options)
    validate_range(parameter)


def validate_values(name: str, options: dict[str, Any]) -> None:
    if "values" in options:
        values = options["values"]
        if not isinstance(values, list) or not values or any(a == b for i, a in enumerate(values) for b in values[:i]):
            raise UserError(f"{name}: values must be a list of one or more values without duplicates")
    for value in options.get("values", [options.get("value")]):
        if not isinstance(value, bool | int | float | str | None):
            raise UserError(f"{name}: {value!r} is not supported as a value; give numbers, strings or booleans")
    if "probabilities" in options:
        weights = options["probabilities"]
        if not isinstance(weights, list) or len(weights) != len(options["values"]):
            raise UserError(f"{name}: probabilities must be a list with one number for each of values")
        if not all(is_number(weight) and weight >= 0 for weight in weights) or sum(weights) <= 0:
            raise UserError(f"{name}: probabilities must be numbers of 0 or more, not all of them 0")


def validate_numbers(name: str, options: dict[str, Any]) -> None:
    for key in ("min", "max", "q", "mu", "sigma", "a", "b"):
        if key in options and not is_number(options[key]):
            raise UserError(f"{name}: {key} is {options[key]!r}, not a number")
    for key in ("q", "sigma", "a", "b"):
        if key in options and options[key] <= 0:
            raise UserError(f"{name}: {key} is {options[key]}; it must be above 0")


def validate_range(parameter: Parameter) -> None:
    name, base, options = parameter.name, parameter.base, parameter.options
    exponents = []
    if "min" in options:
        low, high = options["min"], options["max"]
        if low > high:
            raise UserError(f"{name}: min {low} is above max {high}")
        if base == "int_uniform" and not (is_int(low) and is_int(high)):
            raise UserError(f"{name}: min and max of int_uniform must be whole numbers")
        if base.endswith("_values") and low <= 0:
            raise UserError(f"{name}: min {low} has no logarithm; it must be above 0")
        if base in ("log_uniform", "inv_log_uniform"):
            exponents = [low, high]
    if base == "log_normal":
        exponents = [options["mu"] - 5 * options["sigma"], options["mu"] + 5 * options["sigma"]]
    if any(abs(exponent) > 700 for exponent in exponents):
        raise UserError(f"{name}: {parameter.distribution} takes natural logarithms; exp of these overflows")


def parse_scientific(value: Any) -> Any:
    """Convert strings like "1e-4" to floats: YAML 1.1 reads a number without a decimal point as a string."""
    if isinstance(value, list):
        return [parse_scientific(item) for item in value]
    if isinstance(value, str) and re.fullmatch(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+", value):
        return float(value)
    return value


def is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return is_finite(value) and not isinstance(value, bool)
