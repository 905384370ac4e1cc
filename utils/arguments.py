"""Typed settings from command lines and YAML files."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, get_args, get_type_hints

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import restricted_number_type

from utils.errors import UserError, reason

Fraction = restricted_number_type("Fraction", float, [(">=", 0), ("<", 1)], docstring="a number in [0, 1)")
Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)], docstring="an integer in [0, 2^32)")
Settings = TypeVar("Settings")


def parse_settings(
    settings: type[Settings], description: str, argv: list[str] | None = None, positional: str | None = None
) -> Settings:
    """An instance of the dataclass ``settings`` from the command line; flags override ``--config FILE.yaml``.

    ``positional`` names the field, a list of str, that takes the arguments without a flag. Help texts are the
    dataclass's docstring. Raises UserError that names an unknown or ill-typed flag or YAML key.
    """
    parser = ArgumentParser(description=description, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("--config", action="config", help="YAML file of settings; flags override it")
    parser.add_class_arguments(settings, skip={positional} if positional else None)
    if positional:
        parser.add_argument(positional, nargs="*", type=str, metavar="PATH", default=[])
    values = parse_flags(parser, argv)
    plain = {field.name: _plain(values[field.name]) for field in dataclasses.fields(settings)}  # type: ignore[arg-type]
    for name, kind in get_type_hints(settings).items():
        if plain[name] is None and type(None) not in get_args(kind):  # a null in a YAML file passes jsonargparse
            raise UserError(f"{name} has no value; give one, or leave it out (--help lists all flags)")
        if plain[name] == "":  # of a shell variable that is not set
            raise UserError(f"{name} is empty; give a value, or leave it out")
        if isinstance(plain[name], float) and not math.isfinite(plain[name]):
            raise UserError(f"{name} is {plain[name]}; give a finite number")
    return settings(**plain)


def parse_flags(parser: ArgumentParser, argv: list[str] | None) -> Namespace:
    """What ``parser``, made with exit_on_error=False, reads. Raises UserError."""
    try:
        return parser.parse_args(argv)
    except UnicodeDecodeError:
        raise UserError("the file of --config is not UTF-8 text; give a YAML file") from None
    except ArgumentError as error:
        raise UserError(f"{reason(error)} (--help lists all flags)") from None


def bare_flag(argv: Sequence[str], flag: str) -> list[str]:
    """Rewrite a bare boolean ``flag`` to ``flag=true``, as jsonargparse requires a value."""
    values = ("true", "false", "yes", "no")
    follows = [*argv[1:], ""]
    return [f"{a}=true" if a == flag and b.lower() not in values else a for a, b in zip(argv, follows, strict=True)]


def _plain(value: Any) -> Any:
    """jsonargparse's restricted numbers are subclasses, which YAML and checkpoints cannot hold."""
    if isinstance(value, list):
        return [_plain(item) for item in value]
    for kind in (bool, int, float):
        if isinstance(value, kind):
            return kind(value)
    return value


def join_list(argv: Sequence[str], flag: str, belongs: Callable[[str], bool]) -> list[str]:
    """Rewrite ``flag a b c`` to ``flag=["a", "b", "c"]``, as jsonargparse reads lists, while values belong."""
    argv = list(argv)
    start = argv.index(flag) + 1 if flag in argv else len(argv)
    stop = start
    while stop < len(argv) and belongs(argv[stop]):
        stop += 1
    if stop == start:
        return argv
    return [*argv[: start - 1], f"{flag}={json.dumps(argv[start:stop], ensure_ascii=False)}", *argv[stop:]]
