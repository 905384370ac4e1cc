"""Typed settings from command lines and YAML files."""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_type_hints

import docstring_parser
import yaml

from utils.errors import UserError, reason
from utils.text import printable
from utils.values import holds, plain_list, suggestion, validated, value_text

BOOLEANS = ("true", "false", "yes", "no", "on", "off")

Settings = TypeVar("Settings")


def parse_settings(
    settings: type[Settings], description: str, argv: Sequence[str] | None = None, positional: Sequence[str] = ()
) -> Settings:
    """An instance of the dataclass ``settings`` from the command line; flags override ``--config FILE.yaml``.

    A setting that may be None is None where its value is None, null or, in YAML, empty. A boolean flag without a value
    is true. A list is several values, a flag given several times, or ``[a, b]``.

    Args:
        settings: a dataclass. Its docstring has the help text of each field.
        description: of the program.
        argv: the arguments; by default those of the process.
        positional: the fields that are given without a flag, in order. Where there are any, each flag takes one value.

    Raises UserError that names an unknown or invalid flag or key of the YAML file.
    """
    kinds = get_type_hints(settings, include_extras=True)
    parser = make_parser(settings, kinds, description, positional)
    argv = complete_booleans(sys.argv[1:] if argv is None else argv, kinds, positional)
    given = vars(parser.parse_intermixed_args(argv))
    values: dict[str, Any] = {}
    for file in given.pop("config"):
        values |= read_config(os.path.expanduser(file), kinds)
    printing = given.pop("print_config")
    values |= {name: validated(kinds[name], plain_list(value), f"--{name}") for name, value in given.items()}
    for field in dataclasses.fields(settings):  # type: ignore[arg-type]
        if field.name not in values and field.default is field.default_factory is dataclasses.MISSING:
            flag = field.name.upper() if field.name in positional else f"--{field.name}"
            raise UserError(f"{flag} is missing (--help lists all flags)")
    result = settings(**values)
    if printing:
        print(yaml.safe_dump(dataclasses.asdict(result), sort_keys=False), end="")  # type: ignore[call-overload]
        sys.exit(0)
    return result


class Parser(argparse.ArgumentParser):
    """Raises UserError where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ")
        if message.startswith("unrecognized arguments: --"):
            flag = message.split()[2].partition("=")[0]
            message += suggestion(flag, self._option_string_actions)
        raise UserError(f"{message} (--help lists all flags)")

    def _get_values(self, action: argparse.Action, arg_strings: list[str]) -> Any:
        if action.option_strings and action.nargs is None and arg_strings == ["--"]:
            return "--"  # of --flag=--, which argparse drops before Python 3.13
        return super()._get_values(action, arg_strings)


def make_parser(
    settings: type, kinds: Mapping[str, Any], description: str, positional: Sequence[str] = ()
) -> argparse.ArgumentParser:
    """A parser of texts; what is not given is not in its namespace."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=description, formatter_class=raw, allow_abbrev=False)
    parser.add_argument(
        "--config", action="append", default=[], metavar="FILE", help="YAML file of settings; flags override it"
    )
    parser.add_argument("--print_config", action="store_true", help="print the settings as a YAML file and exit")
    texts = {entry.arg_name: entry.description or "" for entry in docstring_parser.parse(settings.__doc__ or "").params}
    for field in dataclasses.fields(settings):
        text = " ".join(texts[field.name].split()).replace("%", "%%")
        several = holds(kinds[field.name], list)
        if field.name in positional:
            count = "*" if several else "?"
            parser.add_argument(
                field.name, nargs=count, default=argparse.SUPPRESS, metavar=field.name.upper(), help=text
            )
            continue
        if field.default is not dataclasses.MISSING and field.default is not None:
            text += f" (default: {field.default})".replace("%", "%%")
        options: dict[str, Any] = {"help": text, "default": argparse.SUPPRESS, "metavar": field.name.upper()}
        if several:
            options |= {"action": "append"} if positional else {"action": "extend", "nargs": "*"}
        parser.add_argument(f"--{field.name}", **options)
    return parser


def complete_booleans(argv: Sequence[str], kinds: Mapping[str, Any], positional: Sequence[str]) -> list[str]:
    """Rewrite each boolean flag without a value to flag=true; argparse would take the next argument for its value."""
    flags = {f"--{name}" for name, kind in kinds.items() if holds(kind, bool)}

    def is_value(text: str) -> bool:
        return text.lower() in BOOLEANS if positional else not text.startswith("-")

    follows = [*argv[1:], "-"]
    return [
        f"{argument}=true" if argument in flags and not is_value(following) else argument
        for argument, following in zip(argv, follows, strict=False)
    ]


def repeat_flag(argv: Sequence[str], flag: str, belongs: Callable[[str], bool]) -> list[str]:
    """Rewrite ``flag a b`` to ``flag=a flag=b`` while values belong, for programs with positional arguments."""
    rewritten: list[str] = []
    follows = False
    for argument in argv:
        if argument == flag or argument.startswith(f"{flag}="):
            follows = True
        elif follows and belongs(argument):
            if rewritten[-1] == flag:
                rewritten.pop()
            argument = f"{flag}={argument}"
        else:
            follows = False
        rewritten.append(argument)
    return rewritten


class UniqueKeyLoader(yaml.SafeLoader):
    """Refuses a key that is given twice, of which PyYAML would take the last."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode | None:
        node = super().compose_mapping_node(anchor)
        names: set[str] = set()
        for key, _ in node.value if node else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":  # which merges mappings, as often as it stands
                if key.value in names:
                    raise yaml.composer.ComposerError(None, None, f"{key.value} is given twice", key.start_mark)
                names.add(key.value)
        return node


def read_yaml(file: str | Path) -> Any:
    """The content of a YAML file. Raises UserError."""
    try:
        with open(file, encoding="utf-8-sig") as opened:
            return yaml.load(opened, UniqueKeyLoader)
    except OSError as error:
        raise UserError(f"{printable(file)} cannot be read ({error.strerror or error}); give a YAML file") from None
    except UnicodeError:
        raise UserError(f"{printable(file)} is not UTF-8 text; give a YAML file") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: of a date that does not exist
        raise UserError(f"{printable(file)} is not valid YAML: {reason(error)}") from None


def read_config(file: str, kinds: Mapping[str, Any]) -> dict[str, Any]:
    """The settings in a YAML file. Raises UserError."""
    content = read_yaml(file)
    if content is None:  # an empty file
        return {}
    if not isinstance(content, dict):
        raise UserError(f"{printable(file)} holds no settings; give one in each line, as in lr: 0.001")
    for key in content:
        if key not in kinds:
            raise UserError(f"{printable(file)}: unknown setting {value_text(key)}{suggestion(str(key), kinds)}")
    return {key: validated(kinds[key], value, f"{printable(file)}: {key}") for key, value in content.items()}
