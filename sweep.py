"""Run a W&B sweep file with no account: python sweep.py sweep.yaml --trials 20 [--set KEY=VALUE] [-- FLAGS].

Each trial is pcnn_train.py in a process and a run folder of its own, sweeps/NAME/trial_0000. Optuna picks the settings
and keeps the study in a file, sweeps/NAME.db: the same command again goes on where it was stopped. --set wins over the
sweep file; flags of pcnn_train.py after -- give the rest. python sweep.py --report NAME draws and tabulates a study.
"""

import shlex
import signal
import sys
from pathlib import Path

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from jsonargparse.typing import NonNegativeInt, PositiveInt

from tuning.report import load_study, write_report
from tuning.runner import run_sweep
from tuning.study import database, open_storage
from tuning.sweep_file import Sweep, fix, fixed_settings, read_sweep
from utils.arguments import run_script
from utils.errors import UserError, reason


def parse(argv: list[str]) -> Namespace:
    """The flags. Raises UserError."""
    parser = ArgumentParser(description=__doc__, exit_on_error=False, allow_abbrev=False)
    parser.add_argument("sweep", nargs="?", type=str, metavar="SWEEP.yaml", help="a sweep file as W&B reads it")
    parser.add_argument("--trials", type=PositiveInt | None, help="in all, earlier ones included; 20, or a whole grid")
    parser.add_argument("--set", action="append", type=str, default=[], metavar="KEY=VALUE", help="fix a setting")
    parser.add_argument("--prune", action="store_true", help="stop trials below the median of the others")
    parser.add_argument("--seed", type=NonNegativeInt, default=0, help="of the search")
    parser.add_argument("--en_wandb", type=bool, default=False, help="let the trials log to Weights & Biases")
    parser.add_argument("--report", type=str, metavar="STUDY", help="report on this study (name or .db file) instead")
    parser.add_argument("--out", type=str, help="folder of the report; by default SAVE_DIR/STUDY/report")
    parser.add_argument("--study", type=str, help="name of the study; by default that of the sweep file")
    parser.add_argument("--save_dir", type=str, default="sweeps", help="of the studies and their runs")
    parser.add_argument("--storage", type=str, metavar="URL", help="database that machines share, postgresql://...")
    try:
        arguments = parser.parse_args(argv)
    except ArgumentError as error:
        raise UserError(f"{reason(error)} (--help lists what there is)") from None
    if (arguments.sweep is None) == (arguments.report is None):
        raise UserError("give either a SWEEP.yaml or --report STUDY (--help lists what there is)")
    return arguments


def main(argv: list[str] | None = None) -> int:
    argv = sys.argv[1:] if argv is None else argv
    stop = argv.index("--") if "--" in argv else len(argv)
    arguments, flags = parse(argv[:stop]), argv[stop + 1 :]
    if arguments.report:
        study = load_study(arguments.report, Path(arguments.save_dir), arguments.storage)
        out = Path(arguments.out or Path(arguments.save_dir) / study.study_name / "report")
        for path in write_report(study, out):
            print(path)
        return 0

    file = fix(read_sweep(arguments.sweep), arguments.set)
    name = arguments.study or file.name
    folder = Path(arguments.save_dir) / name
    sweep = Sweep(file, fixed_settings(file, flags, arguments.en_wandb), folder, arguments.seed, arguments.prune)
    folder.parent.mkdir(parents=True, exist_ok=True)
    storage = arguments.storage or database(folder.with_name(f"{name}.db"))
    try:
        with sweep.interruption:
            study = run_sweep(sweep, name, open_storage(storage), arguments.trials)
    except KeyboardInterrupt:
        print(f"stopped; to go on: python sweep.py {shlex.join(argv)}", file=sys.stderr)
        return 128 + (sweep.interruption.signum or signal.SIGINT)
    done = [trial for trial in study.get_trials(deepcopy=False) if trial.state.name == "COMPLETE"]
    if not done:
        print("no trial came to its end", file=sys.stderr)
        return 1
    print(f"best {file.metric} {study.best_value:.4f}: trial {study.best_trial.number}, {folder}")
    where = f" --storage {shlex.quote(arguments.storage)}" if arguments.storage else ""
    if arguments.save_dir != "sweeps":
        where += f" --save_dir {shlex.quote(arguments.save_dir)}"
    print(f"pictures and tables: python sweep.py --report {shlex.quote(name)}{where}")
    return 0


if __name__ == "__main__":
    run_script(main)
