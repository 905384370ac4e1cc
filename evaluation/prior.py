"""p(class), as it is given on the command line."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from utils.errors import UserError
from utils.text import composed, listed, printable

SHOWN = 20  # classes that a line names


def prior_weights(given: Sequence[float | str] | None, class_names: Sequence[str]) -> list[float] | None:
    """--prior: a positive number for each class, in order, or NAME=NUMBER for each in any order, as a list in order.

    ``class_names`` are in composed Unicode. None, without --prior, stays None. Raises UserError.
    """
    if given is None:
        return None
    values = list(given)
    order = listed(class_names, SHOWN)
    if not any(isinstance(value, str) and "=" in value for value in values):
        weights = [prior_weight(value, value) for value in values]
        if len(weights) != len(class_names):
            raise UserError(
                f"--prior has {len(weights)} numbers, the checkpoint has {len(class_names)} classes; "
                f"give one for each, in this order: {order}, or NAME=NUMBER for each"
            )
        return weights
    named: dict[str, float] = {}
    for value in values:
        name, equals, number = str(value).rpartition("=")  # a name may hold a =
        name = composed(name)
        if not equals:
            raise UserError(f"--prior {printable(str(value))}: give NAME=NUMBER for each class, or a number for each")
        if name not in class_names:
            raise UserError(
                f"--prior {printable(str(value))}: the checkpoint has no class {printable(name)}, but {order}"
            )
        if name in named:
            raise UserError(f"--prior names {printable(name)} twice; give each class once")
        named[name] = prior_weight(number, value)
    for name in class_names:
        if name not in named:
            raise UserError(f"--prior lacks {printable(name)}; give NAME=NUMBER for each class ({order})")
    return [named[name] for name in class_names]


def prior_weight(number: float | str, given: float | str) -> float:
    try:
        weight = float(number)
    except ValueError:
        weight = math.nan
    if not (weight > 0 and math.isfinite(weight)):
        raise UserError(
            f"--prior {printable(str(given))}: give positive, finite numbers, or NAME=NUMBER for each class"
        )
    return weight


def class_prior(weights: Sequence[float] | None) -> Tensor | None:
    """Positive weights, one per class, as probabilities that sum to 1: float64 [num_classes]. None stays None."""
    if weights is None:
        return None
    prior = torch.tensor(weights, dtype=torch.float64)
    prior /= prior.max()  # so that the sum is finite
    return prior / prior.sum()


def describe_prior(prior: Tensor, class_names: Sequence[str]) -> str:
    """A line that says which class has which probability, of the first 20 classes."""
    shown = [f"{printable(name)}: {p:.3g}" for name, p in zip(class_names[:SHOWN], prior.tolist(), strict=False)]
    return f"prior: {', '.join(shown)}" + (", ..." if len(class_names) > SHOWN else "")
