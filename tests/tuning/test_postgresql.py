"""A study on a real PostgreSQL, where one is installed: killed processes, restarted servers, cut connections."""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import pytest
import sqlalchemy
import yaml

import tuning.database
import tuning.runner
from tuning.database import DatabaseLost, open_storage
from tuning.runner import run_sweep
from tuning.study import load_study
from tuning.sweep_file import Sweep, fixed_settings, parse_sweep

ROOT = Path(__file__).resolve().parents[2]
PASSWORD = "s3cret{word"
ESCAPED = "s3cret%7Bword"


def programs() -> Path | None:
    """The folder of initdb and pg_ctl, which Debian keeps off the PATH."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    found = shutil.which("pg_ctl")
    return folders[-1] if folders else Path(found).resolve().parent if found else None


class Server:
    """A PostgreSQL server on the loopback interface in a folder of its own; it does not run as root."""

    def __init__(self, folder: Path):
        self.programs, self.folder = programs(), folder
        self.user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
        if self.user:
            shutil.chown(folder, "postgres", "postgres")
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            self.port = listener.getsockname()[1]
        (folder / "password").write_text(PASSWORD)
        (folder / "password").chmod(0o644)
        self.call("initdb", "-U", "tester", "-A", "scram-sha-256", f"--pwfile={folder}/password", "--no-sync")
        self.url = f"postgresql+psycopg://tester:{ESCAPED}@127.0.0.1:{self.port}/postgres"

    def call(self, name: str, *arguments: str) -> None:
        command = [str(self.programs / name), "-D", str(self.folder / "data"), *arguments]
        log = self.folder / "calls.log"
        with open(log, "a") as file:  # no pipe, which the server would inherit and keep open
            result = subprocess.run(command, stdout=file, stderr=file, cwd=self.folder, timeout=120, **self.user)
        assert result.returncode == 0, log.read_text()

    def start(self) -> None:
        options = f"-h 127.0.0.1 -p {self.port} -k {self.folder} -c fsync=off"
        self.call("pg_ctl", "-w", "-o", options, "-l", str(self.folder / "server.log"), "start")

    def stop(self) -> None:
        self.call("pg_ctl", "-w", "-m", "fast", "stop")

    def execute(self, statement: str) -> None:
        engine = sqlalchemy.create_engine(self.url)
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement))
        engine.dispose()


@pytest.fixture(scope="module")
def server():
    pytest.importorskip("psycopg")
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    if os.geteuid() == 0 and "postgres" not in {user.pw_name for user in pwd.getpwall()}:
        pytest.skip("PostgreSQL does not run as root, and there is no user postgres")
    folder = Path(tempfile.mkdtemp(prefix="pg-"))  # pytest's own folders are closed to other users
    started = Server(folder)
    started.start()
    yield started
    with contextlib.suppress(AssertionError):
        started.call("pg_ctl", "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture
def search(tmp_path, monkeypatch):
    """A search whose trials train nothing, and call ``events[number]`` instead."""
    events = {}

    def train_nothing(sweep, trial):
        trial.set_user_attr("settings", {"dropout": trial.suggest_float("dropout", 0, 0.3)})
        events.get(trial.number, lambda: None)()
        trial.set_user_attr("seconds", 0)
        return 0.5

    monkeypatch.setattr(tuning.runner, "run_trial", train_nothing)
    metric, parameters = {"name": "accuracy", "goal": "maximize"}, {"dropout": {"min": 0.0, "max": 0.3}}
    file = parse_sweep({"method": "random", "metric": metric, "parameters": parameters}, "x")
    return Sweep(file, fixed_settings(file), tmp_path / "sweeps"), events


def states(study):
    return [trial.state.name for trial in study.get_trials()]


def test_a_restarted_server_costs_no_trial(server, search, capsys):
    """It goes away in a trial and is back two seconds later."""
    sweep, events = search

    def restart():
        server.stop()
        thread = threading.Timer(2, server.start)
        thread.start()
        events["thread"] = thread

    events[1] = restart
    study = run_sweep(sweep, "restarted", open_storage(server.url), 3)
    events["thread"].join()
    assert states(study) == ["COMPLETE"] * 3
    out, errors = capsys.readouterr()
    assert [line.split()[0] for line in out.splitlines()] == ["[1/3]", "[2/3]", "[3/3]"]
    lines = errors.splitlines()
    assert lines[0].startswith("the database cannot be reached (") and lines[0].endswith("; trying again")
    assert lines[1:] == ["the database answers again"] and "word" not in errors


def test_cut_connections_are_not_even_noticed(server, search, capsys):
    sweep, events = search
    cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'tester'"
    events |= dict.fromkeys((0, 1), lambda: server.execute(cut))
    assert states(run_sweep(sweep, "cut", open_storage(server.url), 3)) == ["COMPLETE"] * 3
    assert capsys.readouterr().err == ""


def test_a_server_that_stays_away_is_one_line_and_the_trial_is_run_again(server, search, capsys, monkeypatch):
    sweep, events = search
    monkeypatch.setattr(tuning.database, "PATIENCE", 1)
    monkeypatch.setattr(tuning.database, "GRACE_PERIOD", 2)
    events[1] = server.stop
    with pytest.raises(DatabaseLost, match=r"tester:\*\*\*@.* could not be reached for 1 s .*repeat the comm") as error:
        run_sweep(sweep, "away", open_storage(server.url), 2)
    assert "\n" not in str(error.value) and "word" not in str(error.value)
    server.start()
    events.clear()
    study = run_sweep(sweep, "away", open_storage(server.url), 2)
    assert states(study) == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.trials[2].params == study.trials[1].params
    assert "trial 1 was interrupted and is run again" in capsys.readouterr().out


# a heartbeat may be late on a busy machine, but not by these 15 seconds
QUICK = """
import tuning.database
tuning.database.HEARTBEAT, tuning.database.GRACE_PERIOD = 1, 15
import sweep
from utils.script import run_script
run_script(sweep.main)
"""


@pytest.mark.integration
def test_two_processes_one_of_them_killed_and_the_server_restarted(server, tmp_path):
    tiny = {"dataset": "digits", "max_epochs": 1, "nr_resnet": 1, "nr_logistic_mix": 1, "batch_size": 256}
    tiny |= {"sampling_interval": 0, "lr": 0.003, "nr_filters": 2}
    content = {"method": "random", "parameters": {"dropout": {"min": 0.0, "max": 0.3}}}
    content["parameters"] |= {name: {"value": value} for name, value in tiny.items()}
    (tmp_path / "shared.yaml").write_text(yaml.safe_dump(content))

    def start(name):
        flags = ["--storage", server.url, "--trials", "2", "--save_dir", str(tmp_path / name)]
        command = [sys.executable, "-c", QUICK, str(tmp_path / "shared.yaml"), *flags]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}  # two processes share the cores
        return subprocess.Popen(command, **pipes, env=environment, cwd=ROOT, text=True, start_new_session=True)

    processes = {name: start(name) for name in ("killed", "other")}
    try:
        deadline, running = time.monotonic() + 200, {}
        while set(running) != set(processes):
            assert time.monotonic() < deadline and all(process.poll() is None for process in processes.values())
            time.sleep(0.2)
            with contextlib.suppress(tuning.database.UserError):  # before the study is there
                trials = load_study("shared", tmp_path, server.url).get_trials()
                attributes = [trial.user_attrs.get("run_folder") for trial in trials if trial.state.name == "RUNNING"]
                running = {name for name in processes if any(name in folder for folder in attributes if folder)}
        os.killpg(processes["killed"].pid, signal.SIGKILL)
        server.stop()
        server.start()
        output, _ = processes["other"].communicate(timeout=400)
    finally:
        for process in processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert processes["other"].returncode == 0, output
    assert "was interrupted and is run again" in output and "[2/2]" in output and "Traceback" not in output
    trials = load_study("shared", tmp_path, server.url).get_trials()
    assert sorted(trial.state.name for trial in trials) == ["COMPLETE"] * 2 + ["FAIL"]
    assert "tester:***@" in output and "word" not in output + processes["killed"].communicate()[0]
