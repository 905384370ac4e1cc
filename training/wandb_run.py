"""How a run at Weights & Biases is started: what names it, whether it is online, where its files go."""

import os
import shlex
from pathlib import Path
from typing import Any

from utils.console import notify
from utils.errors import reason, summary
from utils.text import printable

PROJECT = "conditional-pixelcnn"

# what names a run: option of wandb.init -> environment variable, name in wandb.Settings
NAMES = {
    "project": ("WANDB_PROJECT", "project"),
    "entity": ("WANDB_ENTITY", "entity"),
    "name": ("WANDB_NAME", "run_name"),
    "group": ("WANDB_RUN_GROUP", "run_group"),
    "tags": ("WANDB_TAGS", "run_tags"),
    "id": ("WANDB_RUN_ID", "run_id"),
}
# what W&B keeps at home otherwise, where it may not persist: artifacts until they are uploaded, and its cache
FOLDERS = {"WANDB_DATA_DIR": "data", "WANDB_CACHE_DIR": "cache"}


def open_run(options: dict[str, Any]) -> Any:
    """Start a wandb run; without a key or a server it is offline, and one line says why and how to sync it later.

    Its files go below ``options["dir"]``. Never prompts. Raises what wandb raises where not even an offline run can
    start.
    """
    import wandb

    for variable, name in FOLDERS.items():
        os.environ.setdefault(variable, str(Path(options["dir"]).absolute() / "wandb" / name))
    options = without_refused(options)
    defaults = wandb.setup().settings  # of the WANDB_ variables and wandb's settings files
    options = {"project": defaults.project or PROJECT, **options}
    if os.environ.get("WANDB_SWEEP_ID"):
        options = {key: value for key, value in options.items() if key not in ("project", "entity", "id", "resume")}
    patience = float(os.environ.get("WANDB_FINISH_TIMEOUT", 600))  # seconds for the last uploads; wandb has no limit
    options["settings"] = wandb.Settings(finish_timeout=patience, finish_timeout_raises=True)
    cause = "WANDB_MODE is set"
    if defaults.mode == "online":
        try:
            if wandb.login(prompt=False, verify=True):
                return wandb.init(**options)
            cause = "there is no API key; `wandb login` sets one"
        except Exception as error:
            cause = summary(error)
        options["mode"] = "offline"
    run = wandb.init(**options)
    if run.offline:
        say(f"offline ({cause}); later: {sync_command(run_files(run).parent)}")
    return run


def without_refused(options: dict[str, Any]) -> dict[str, Any]:
    """``options`` without those names that W&B does not take, as a tag that is too long; a line says which.

    An environment variable is changed in the same way. wandb would refuse to start at all.
    """
    options = dict(options)
    for option, (variable, setting) in NAMES.items():
        value = options.get(option, os.environ.get(variable))
        if value is None:
            continue
        parts = [value] if option != "tags" else value.split(",") if isinstance(value, str) else list(value)
        problems = [refusal(setting, [part] if option == "tags" else part) for part in parts]
        kept = [part for part, problem in zip(parts, problems, strict=True) if not problem]
        for part, problem in zip(parts, problems, strict=True):
            if problem:
                say(f"{option} {printable(str(part))[:40]} is left out ({problem})")
        if len(kept) < len(parts):
            options.pop(option, None)
            os.environ.pop(variable, None)
            if kept:
                options[option] = kept
    return options


def refusal(setting: str, value: Any) -> str:
    """Why ``value`` cannot be that setting of wandb; empty where it can."""
    import wandb

    try:
        wandb.Settings(**{setting: value})
    except ValueError as error:  # of pydantic, which adds addresses of its documentation
        return error.errors()[0]["msg"] if hasattr(error, "errors") else reason(error)
    except wandb.Error as error:
        return reason(error)
    return ""


def run_files(run: Any) -> Path:
    """The folder of wandb's own files of a run, which `wandb sync` takes."""
    return Path(run.dir).parent


def sync_command(folder: Path, options: str = "") -> str:
    """Uploads what wandb keeps in ``folder``; of the pieces of a resumed run all, in their order."""
    return f"wandb sync {options}{shlex.quote(printable(folder))}"


def say(line: str) -> None:
    notify(f"W&B: {line}")
