"""Run a W&B sweep file without an account: python sweep.py sweep.yaml --trials 20 [--set KEY=VALUE] [-- FLAGS].

Each trial is a run of pcnn_train.py in its own process and run folder, sweeps/NAME/trial_0000. Optuna samples the
settings and stores the study in sweeps/NAME.db; repeat the command to resume an interrupted sweep. --set overrides the
sweep file, which overrides the flags of pcnn_train.py after --. python sweep.py --report NAME reports on a study.
"""

import shlex
import signal
import sys
from dataclasses import dataclass, field
from pathlib import Path

from tuning.database import open_storage
from tuning.database_url import hide_password, sqlite_url
from tuning.report import write_report
from tuning.runner import run_sweep
from tuning.study import load_study
from tuning.sweep_file import Sweep, fix_settings, fixed_settings, read_sweep
from utils.arguments import parse_settings, repeat_flag
from utils.errors import UserError
from utils.files import check_writable
from utils.script import run_script
from utils.text import printable
from utils.values import NonNegativeInt, PathName, PositiveInt


@dataclass
class SweepSettings:
    """Settings of sweep.py.

    Args:
        sweep: a W&B sweep file.
        trials: number of trials in total, earlier ones included; by default 20, or all of a grid.
        set: KEY=VALUE fixes a setting; may be repeated.
        prune: stop trials that are worse than the median of the others.
        seed: of the search, at least 0.
        en_wandb: log the trials to Weights & Biases; overrides en_wandb of the sweep file and of --set.
        report: report on this study (its name or its .db file) instead.
        out: folder of the report; by default SAVE_DIR/STUDY/report.
        study: name of the study; by default the name of the sweep file.
        save_dir: folder of the studies and their runs.
        storage: database shared by several machines, as postgresql+psycopg://user:password@host/database
    """

    sweep: PathName | None = None
    trials: PositiveInt | None = None
    set: list[str] = field(default_factory=list)
    prune: bool = False
    seed: NonNegativeInt = 0
    en_wandb: bool = False
    report: PathName | None = None
    out: PathName | None = None
    study: str | None = None
    save_dir: PathName = "sweeps"
    storage: str | None = None


def parse(argv: list[str]) -> SweepSettings:
    """Parse the flags before --. Raises UserError."""
    argv = repeat_flag(argv, "--set", lambda word: "=" in word and not word.startswith("-"))
    settings = parse_settings(SweepSettings, __doc__, argv, positional=["sweep"])
    if (settings.sweep is None) == (settings.report is None):
        raise UserError("give either a SWEEP.yaml or --report STUDY (see --help)")
    return settings


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    try:
        return run(argv)
    except UserError as error:
        message = str(error)
        for argument in argv:
            message = message.replace(argument, hide_password(argument))
        raise UserError(message) from None


def run(argv: list[str]) -> int:
    end = argv.index("--") if "--" in argv else len(argv)
    arguments, flags = parse(argv[:end]), argv[end + 1 :]
    if arguments.report:
        study = load_study(arguments.report, Path(arguments.save_dir), arguments.storage)
        out = arguments.out or Path(arguments.save_dir) / study.study_name / "report"
        for path in write_report(study, out):
            print(path)
        return 0

    assert arguments.sweep is not None  # as parse checks
    file = fix_settings(read_sweep(arguments.sweep), arguments.set)
    name = arguments.study or file.name
    folder = Path(arguments.save_dir) / name
    sweep = Sweep(file, fixed_settings(file, flags, arguments.en_wandb), folder, arguments.seed, arguments.prune)
    if Path(name).name != name or name == ".." or set(name) & set("?#%"):  # part of a path and of a database URL
        raise UserError(f"--study {printable(name)} cannot be a file's name; give one without / ? # %")
    database = folder.with_name(f"{name}.db")
    check_writable(database)
    url = arguments.storage or sqlite_url(database)
    try:
        with sweep.interruption:
            study = run_sweep(sweep, name, open_storage(url, sweep.interruption), arguments.trials)
    except KeyboardInterrupt:
        print(f"stopped; to resume: python sweep.py {command_to_copy(argv)}", file=sys.stderr)
        return 128 + (sweep.interruption.signum or signal.SIGINT)
    if all(trial.state.name != "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        print("no trial completed", file=sys.stderr)
        return 1
    print(f"best {file.metric} {study.best_value:.4f}: trial {study.best_trial.number}, {folder}")
    where = ["--storage", arguments.storage] if arguments.storage else []
    if arguments.save_dir != "sweeps":
        where += ["--save_dir", arguments.save_dir]
    print(f"to report: python sweep.py {command_to_copy(['--report', name, *where])}")
    return 0


def command_to_copy(argv: list[str]) -> str:
    """A command line to copy; a password has to be filled in again."""
    return shlex.join(hide_password(argument) for argument in argv)


if __name__ == "__main__":
    run_script(main)
