"""Run a W&B sweep file without an account: python sweep.py sweep.yaml --trials 20 [--set KEY=VALUE] [-- FLAGS].

Each trial is a run of pcnn_train.py in its own process and run folder, sweeps/NAME/trial_0000. Optuna samples the
settings and stores the study in sweeps/NAME.db; repeat the command to resume an interrupted sweep. --set overrides the
sweep file, which overrides the flags of pcnn_train.py after --. python sweep.py --report NAME reports on a study.
"""

import shlex
import signal
import sys
from pathlib import Path

from jsonargparse import ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from tuning.database import open_storage
from tuning.database_url import hide_password, sqlite_url
from tuning.report import write_report
from tuning.runner import run_sweep
from tuning.study import load_study
from tuning.sweep_file import Sweep, fix_settings, fixed_settings, read_sweep
from utils.arguments import parse_flags
from utils.errors import UserError
from utils.files import check_writable
from utils.script import run_script
from utils.text import printable


def parse(argv: list[str]) -> Namespace:
    """Parse the flags before --. Raises UserError."""
    parser = ArgumentParser(description=__doc__, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("sweep", nargs="?", type=str, metavar="SWEEP.yaml", help="a W&B sweep file")
    parser.add_argument(
        "--trials",
        type=PositiveInt | None,
        help="number of trials in total, earlier ones included; by default 20, or all of a grid",
    )
    parser.add_argument(
        "--set", action="append", type=str, default=[], metavar="KEY=VALUE", help="fix a setting; may be repeated"
    )
    parser.add_argument("--prune", action="store_true", help="stop trials that are worse than the median of the others")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="seed of the search")
    parser.add_argument(
        "--en_wandb",
        type=bool,
        default=False,
        help="log the trials to Weights & Biases; overrides en_wandb of the sweep file and of --set",
    )
    parser.add_argument("--report", type=str, metavar="STUDY", help="report on this study (name or .db file) instead")
    parser.add_argument("--out", type=str, help="folder of the report; by default SAVE_DIR/STUDY/report")
    parser.add_argument("--study", type=str, help="name of the study; by default the name of the sweep file")
    parser.add_argument("--save_dir", type=str, default="sweeps", help="folder of the studies and their runs")
    parser.add_argument(
        "--storage",
        type=str,
        metavar="URL",
        help="database shared by several machines, as postgresql+psycopg://user:password@host/database",
    )
    arguments = parse_flags(parser, argv)
    if (arguments.sweep is None) == (arguments.report is None):
        raise UserError("give either a SWEEP.yaml or --report STUDY (see --help)")
    return arguments


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
        out = Path(arguments.out or Path(arguments.save_dir) / study.study_name / "report")
        for path in write_report(study, out):
            print(path)
        return 0

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
        print(f"stopped; to resume: python sweep.py {shown(argv)}", file=sys.stderr)
        return 128 + (sweep.interruption.signum or signal.SIGINT)
    if all(trial.state.name != "COMPLETE" for trial in study.get_trials(deepcopy=False)):
        print("no trial completed", file=sys.stderr)
        return 1
    print(f"best {file.metric} {study.best_value:.4f}: trial {study.best_trial.number}, {folder}")
    where = ["--storage", arguments.storage] if arguments.storage else []
    if arguments.save_dir != "sweeps":
        where += ["--save_dir", arguments.save_dir]
    print(f"to report: python sweep.py {shown(['--report', name, *where])}")
    return 0


def shown(argv: list[str]) -> str:
    """A command line to copy; a password has to be filled in again."""
    return shlex.join(hide_password(argument) for argument in argv)


if __name__ == "__main__":
    run_script(main)
