"""Checks of what a run reads back: a file that was edited or made by hand is an error of one line."""

import math
from typing import Any

ERRORS = ("fid_error", "sample_metrics_error")  # of a report: why a measurement failed


def whole_number(value: Any, name: str, least: int = 0) -> int:
    """``value`` if it is a whole number from ``least`` on, else TypeError."""
    if type(value) is not int or value < least:
        raise TypeError(f"{name} is {value!r}, not a whole number from {least} on")
    return value


def number(value: Any, name: str, least: float = -math.inf) -> float:
    """``value`` if it is a number from ``least`` on, else TypeError."""
    if type(value) not in (int, float) or not value >= least:
        raise TypeError(f"{name} is {value!r}, not a number from {least} on")
    return value


def epoch_report(value: Any) -> dict[str, Any]:
    """``value`` if it is the report of an epoch, as in a line of metrics.jsonl, else ValueError."""
    if not isinstance(value, dict) or type(value.get("epoch")) is not int:
        raise ValueError(f"{value!r} is not the report of an epoch")
    for name, entry in value.items():
        if name not in ERRORS and entry is not None and type(entry) not in (int, float):
            raise ValueError(f"{name} of epoch {value['epoch']} is {entry!r}, not a number")
    return value
