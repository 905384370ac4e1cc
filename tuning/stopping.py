"""Which trials are stopped early: ``early_terminate`` of W&B sweep files, or the median rule of --prune."""

from dataclasses import dataclass
from typing import Any

import optuna

from tuning.search_space import is_int
from utils.errors import UserError

KEYS = ("type", "min_iter", "max_iter", "s", "eta", "strict")


@dataclass(frozen=True)
class Hyperband:
    """W&B's hyperband: after min_iter, min_iter eta, min_iter eta^2, ... epochs the best 1/eta of the trials go on.

    Args:
        min_iter: epochs before the first decision.
        eta: 2 or more.
        end: no decision from this epoch on; None for no such limit.
    """

    min_iter: int
    eta: int
    end: int | None = None


def parse_early_terminate(options: Any) -> Hyperband:
    """The value of ``early_terminate`` in a sweep file. Raises UserError."""
    if not isinstance(options, dict) or options.get("type") != "hyperband":
        raise UserError("early_terminate: give a type, as in early_terminate: {type: hyperband, min_iter: 3}")
    for key in options:
        if key not in KEYS:
            raise UserError(f"early_terminate: the key {key} is not supported (supported: {', '.join(KEYS)})")
    numbers = {"eta": 3} | {key: value for key, value in options.items() if key not in ("type", "strict")}
    for key, value in numbers.items():
        least = 2 if key == "eta" else 1
        if not is_int(value) or value < least:
            raise UserError(f"early_terminate: {key} is {value!r}; give a whole number of {least} or more")
    eta = numbers["eta"]
    if "max_iter" in numbers and "s" in numbers:  # first, as in W&B
        decisions = [epochs for k in range(1, numbers["s"] + 1) if (epochs := numbers["max_iter"] // eta**k) >= 1]
        if not decisions:
            raise UserError(f"early_terminate: max_iter {numbers['max_iter']} is below eta {eta}; give a larger one")
        return Hyperband(decisions[-1], eta, decisions[-1] * eta ** len(decisions))
    if "min_iter" in numbers:
        return Hyperband(numbers["min_iter"], eta)
    raise UserError("early_terminate: give min_iter, or max_iter and s")


def make_pruner(hyperband: Hyperband | None, epochs: int) -> optuna.pruners.BasePruner:
    """The pruner of a study whose trials have ``epochs`` epochs.

    Without ``hyperband`` it prunes a trial whose best value so far is worse than the median of the others, after a
    quarter of its epochs.
    """
    if hyperband is None:
        return optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=epochs // 4)
    # not HyperbandPruner: W&B decides in one bracket, that of successive halving
    return optuna.pruners.SuccessiveHalvingPruner(hyperband.min_iter, hyperband.eta)
