"""Types of settings, and the validation of their values by pydantic."""

import os
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from difflib import get_close_matches
from functools import cache
from glob import glob
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

import yaml
from pydantic import AfterValidator, Field, TypeAdapter, ValidationError

from utils.errors import UserError
from utils.text import printable


def expand_patterns(paths: Sequence[str]) -> list[str]:
    """``paths`` with patterns such as photos/*.png replaced by the files they match, which some shells leave to us."""
    expanded: list[str] = []
    for path in paths:
        matches = [] if os.path.lexists(path) else sorted(glob(path, recursive=True))
        expanded += matches or [path]
    return expanded


# values that a setting can have
PositiveInt = Annotated[int, Field(gt=0)]
NonNegativeInt = Annotated[int, Field(ge=0)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NonNegativeFloat = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Temperature = Annotated[float, Field(ge=1e-6, allow_inf_nan=False)]  # dividing by less overflows
PathName = Annotated[str, AfterValidator(os.path.expanduser)]  # the shell expands no ~ after a =
PathNames = Annotated[list[PathName], AfterValidator(expand_patterns)]


NONE = ("None", "null")  # as Python and YAML write it
WORDS = {  # for pydantic's messages
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "too_short": "a longer list",
    "too_long": "a shorter list",
}
MAX_CHARACTERS = 300  # of a value in a message


def validated(kind: Any, value: Any, name: str) -> Any:
    """``value``, a text of the command line or a value of a YAML file, as the type ``kind``.

    Raises UserError that begins with ``name``.
    """
    if isinstance(value, str) and value in NONE:
        value = None
    if value is None:
        if type(None) in alternatives(kind):
            return None
        raise UserError(f"{name} has no value; give one, or leave it out (--help lists all flags)")
    if any("\0" in text for text in (value if isinstance(value, list) else [value]) if isinstance(text, str)):
        raise UserError(f"{name} {value_text(value)} has a null character, which no text here may have")
    if value == "":  # of a shell variable that is not set
        raise UserError(f"{name} is empty; give a value, or leave it out")
    if holds(kind, list) and not isinstance(value, list):
        raise UserError(f"{name} {value_text(value)}: give a list, as in [a, b]")
    if isinstance(value, bool) and not holds(kind, bool):
        raise UserError(f"{name} {value_text(value)}: true, false, yes and no are booleans; put quotes around a text")
    if isinstance(value, str) and not holds(kind, str):
        with suppress(ValueError):
            value = int(value)  # pydantic compares texts with choices as they are
    try:
        return adapter(kind).validate_python(value)
    except ValidationError as error:
        details = error.errors(include_url=False)
        place = details[0]["loc"][0] if details[0]["loc"] else None  # a number in a list, a type of a union
        wrong = value[place] if isinstance(value, list) and isinstance(place, int) else value
        if any(item["type"] == "string_type" for item in details) and not isinstance(wrong, list | dict):
            raise UserError(f"{name} {value_text(wrong)}: put quotes around the value, as it is a text") from None
        wanted = dict.fromkeys(
            WORDS.get(item["type"], item["msg"].removeprefix("Input should be ").partition(", unable")[0])
            for item in details
        )
        expected = f"should be {' or '.join(wanted)} (--help lists all flags)"
        raise UserError(f"{name} {value_text(wrong)}: {expected}") from None


def plain_list(value: str | list[str]) -> Any:
    """What a flag was given; a list that is one text, ``[a, b]`` or None, is what agents of Weights & Biases write."""
    if isinstance(value, str) or len(value) != 1:
        return value
    with suppress(yaml.YAMLError, ValueError, RecursionError):
        content = yaml.safe_load(value[0]) if value[0].startswith("[") else value
        if isinstance(content, list):
            return None if content in ([word] for word in NONE) else content
    return value


@cache
def adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind)


def alternatives(kind: Any) -> set[Any]:
    """The types that ``kind`` is or unites, without their parameters and restrictions."""
    if get_origin(kind) is Annotated:
        return alternatives(get_args(kind)[0])
    if get_origin(kind) in (Union, UnionType):
        return set().union(*map(alternatives, get_args(kind)))
    return {get_origin(kind) or kind}


def holds(kind: Any, part: type) -> bool:
    """Whether ``part`` is one of the types that ``kind`` unites."""
    return part in alternatives(kind)


def value_text(value: Any) -> str:
    """A value in a message."""
    text = printable(value if isinstance(value, str) else reprlib.repr(value))  # which bounds nested lists
    return text if len(text) <= MAX_CHARACTERS else text[:MAX_CHARACTERS] + "..."


def suggestion(name: str, known: Mapping[str, Any]) -> str:
    """The known name that may have been meant."""
    close = get_close_matches(name, known, 1)
    return f"; did you mean {close[0]}?" if close else ""
