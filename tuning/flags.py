"""Flags of pcnn_train.py: of settings, and of the key ``command`` of W&B sweep files."""

import json
import os
import re
from pathlib import Path
from typing import Any, get_type_hints

from training.settings import TrainSettings
from utils.console import notify
from utils.errors import UserError
from utils.values import validated

SETTINGS = get_type_hints(TrainSettings, include_extras=True)  # their types


def to_flags(settings: dict[str, Any]) -> list[str]:
    """Settings as command-line flags of pcnn_train.py.

    Raises UserError for a boolean where the setting is a text: YAML reads on and off so, and the flag would be "true".
    """
    for key, value in settings.items():
        if isinstance(value, bool):
            validated(SETTINGS[key], value, f"--{key}")
    return [f"--{key}={value if isinstance(value, str) else json.dumps(value)}" for key, value in settings.items()]


def command_flags(command: Any) -> list[str]:
    """The flags that a ``command`` adds to those of a trial; a notice names what has no effect. Raises UserError.

    The macros for the interpreter, the program and the settings need nothing: sweep.py starts the program itself.
    """
    if not isinstance(command, list):
        raise UserError('command must be a list, as in command: ["${env}", "${interpreter}", "${program}", "${args}"]')
    words = [re.sub(r"\$\{envvar:([A-Z0-9_]*)\}", lambda m: os.environ.get(m[1], m[1]), str(word)) for word in command]
    program = [i for i, word in enumerate(words) if word == "${program}" or Path(word).name == "pcnn_train.py"]
    if not program:
        notify(f"command: it does not start pcnn_train.py and has no effect: {' '.join(words)}")
        return []
    interpreter = re.compile(r"\$\{env\}|\$\{interpreter\}|(\S*/)?python[\d.]*|(\S*/)?env")
    start = [word for word in words[: program[0]] if not interpreter.fullmatch(word)]
    if start:
        notify(f"command: {' '.join(start)} has no effect; sweep.py starts pcnn_train.py with its own Python")
    flags: list[str] = []
    for word in words[program[0] + 1 :]:
        if not re.fullmatch(r"\$\{\w+\}", word):
            flags.append(word)
        elif word in ("${args_json}", "${args_json_file}") and flags and flags[-1].startswith("-"):
            flags.pop()  # the flag whose value it is
    return flags
