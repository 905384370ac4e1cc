"""Resuming an interrupted run: which one, and whether it has the same configuration."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from training.settings import TrainSettings, tagged
from utils.arguments import parse_settings
from utils.console import notify
from utils.distributed import rank
from utils.errors import UserError
from utils.text import printable


def find_run(settings: TrainSettings, argv: Sequence[str]) -> tuple[TrainSettings, Path | None]:
    """The settings to train with, and the folder of the run to resume, None for a new one.

    ``--resume DIR`` takes the settings of that run, which the flags in ``argv`` override as far as they may change;
    ``--resume auto`` takes the newest run of this configuration below --save_dir (or the one in --run_dir).
    Raises UserError where there is no such run, or it has another configuration.
    """
    if settings.resume is None:
        return settings, None
    plain = dataclasses.replace(settings, resume=None)
    if settings.resume != "auto":
        folder = Path(settings.resume)
        saved = run_settings(folder)
        settings = parse_settings(TrainSettings, "", [f"--config={folder / 'config.yaml'}", *argv])
        moved = settings.teacher is not None and saved.teacher is not None  # its content is checked where it is read
        refuse_changes(dataclasses.replace(settings, teacher=saved.teacher) if moved else settings, saved, folder)
        return dataclasses.replace(settings, resume=None), folder
    if settings.run_dir is not None:
        folder = Path(settings.run_dir)
        if not (folder / "config.yaml").exists():
            return plain, None
        refuse_changes(settings, run_settings(folder), folder)
        return plain, folder
    configs = sorted(Path(settings.save_dir).glob("*/config.yaml"), key=lambda file: file.stat().st_mtime)
    found: Path | None = None
    unreadable: list[str] = []
    for config in reversed(configs):
        try:
            if not changes(settings, run_settings(config.parent)):
                found = config.parent
                break
        except UserError as error:  # damaged, or of another version of this program
            unreadable.append(str(error))
    if unreadable and rank() == 0:  # one of them may be the run that is meant
        more = f" (and {len(unreadable) - 1} more)" if len(unreadable) > 1 else ""
        notify(f"skipped in the search for a run to resume: {unreadable[0]}{more}")
    return plain, found


def run_settings(folder: Path) -> TrainSettings:
    """The settings of the run in ``folder``. Raises UserError."""
    config = folder / "config.yaml"
    if not config.is_file():
        raise UserError(f"{printable(folder)} is not a run (it has no config.yaml); give the folder of a run")
    try:
        return parse_settings(TrainSettings, "", [f"--config={config}"])
    except UserError as error:
        raise UserError(f"{printable(config)} does not hold the settings of a run: {error}") from None


def changes(settings: TrainSettings, saved: TrainSettings) -> list[str]:
    """The settings that differ and must be equal to resume."""
    names = [field.name for field in dataclasses.fields(TrainSettings) if field.name not in tagged("free")]
    return [name for name in names if getattr(settings, name) != getattr(saved, name)]


def refuse_changes(settings: TrainSettings, saved: TrainSettings, folder: Path) -> None:
    for name in changes(settings, saved):
        raise UserError(
            f"--{name} {getattr(settings, name)}: the run in {printable(folder)} has {getattr(saved, name)}; "
            "leave the flag out to resume it, or start a run in another folder"
        )
