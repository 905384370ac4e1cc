"""Databases that are missing, locked or cannot be written; a server is in test_postgresql.py."""

import builtins
import sqlite3

import optuna
import pytest
from sqlalchemy.exc import OperationalError

import sweep as script_module
import tuning.database
from tuning.database import DatabaseLost, open_storage
from tuning.database_url import sqlite_url
from tuning.study import load_study
from utils.errors import UserError
from utils.signals import Interruption

SWEEP = ["configs/sweep_digits.yaml"]


def test_any_path_has_a_url(tmp_path):
    for name in ("100%.db", "a?b.db", "a#b.db", "{x}.db", "é.db"):
        open_storage(sqlite_url(tmp_path / name))
        assert (tmp_path / name).stat().st_size > 0


@pytest.mark.parametrize(
    ("driver", "url", "package"),
    [
        ("psycopg", "postgresql+psycopg://me:hidden@host/db", r"'psycopg\[binary\]'"),
        ("psycopg2", "postgresql+psycopg2://me:hidden@host/db", "psycopg2-binary"),
        ("MySQLdb", "mysql://me:hidden@host/db", "mysqlclient"),
        ("pymysql", "mysql+pymysql://me:hidden@host/db", "pymysql"),
    ],
)
def test_a_missing_driver_is_named_with_its_package(driver, url, package, monkeypatch):
    real = builtins.__import__

    def without(name, *arguments, **options):
        if name.partition(".")[0] == driver:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return real(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=f"the driver {driver} of this database is missing: pip install {package}"):
        open_storage(url)


@pytest.mark.parametrize("content", [None, b"", "other tables"])
def test_a_report_creates_no_database_and_no_tables(content, tmp_path):
    file = tmp_path / "x.db"
    if content == "other tables":
        with sqlite3.connect(file) as database:
            database.execute("CREATE TABLE trials (x)")
        database.close()
        content = file.read_bytes()
    elif content is not None:
        file.write_bytes(content)
    words = "no study in the database .*x.db" + (", which does not exist" if content is None else "$")
    with pytest.raises(UserError, match=words):
        script_module.main(["--report", "x", "--storage", sqlite_url(file)])
    assert (file.read_bytes() if file.exists() else None) == content
    with pytest.raises(UserError, match="no study"):
        script_module.main(["--report", "x", "--save_dir", str(tmp_path)])
    assert (file.read_bytes() if file.exists() else None) == content and len(list(tmp_path.iterdir())) <= 1


def read_only(file):
    """The URL of a file on a disk that cannot be written."""
    return f"sqlite:///file:{file}?mode=ro&uri=true"


def test_a_read_only_database_is_one_line_and_can_be_reported_on(tmp_path):
    file = tmp_path / "x.db"
    study = optuna.create_study(study_name="x", storage=open_storage(sqlite_url(file)))
    study.set_user_attr("sweep", {})
    with pytest.raises(UserError, match=r"the database .*x\.db.* cannot be used .*readonly database") as error:
        script_module.main([*SWEEP, "--save_dir", str(tmp_path / "s"), "--study", "x", "--storage", read_only(file)])
    assert "\n" not in str(error.value)
    assert load_study("x", tmp_path, read_only(file)).user_attrs == {"sweep": {}}


def test_a_locked_database_is_waited_for(tmp_path, monkeypatch, capsys):
    storage = open_storage(sqlite_url(tmp_path / "x.db"))
    study = optuna.create_study(study_name="x", storage=storage)
    calls = []

    def locked(*_):
        calls.append(1)
        if len(calls) < 3:
            raise OperationalError("UPDATE", {}, sqlite3.OperationalError("database is locked"))
        return "done"

    monkeypatch.setattr(tuning.database.time, "sleep", lambda seconds: None)
    assert storage.patiently(locked) == "done" and len(calls) == 3
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2 and "database is locked" in errors[0] and errors[1] == "the database answers again"
    assert storage._get_stale_trial_ids(study._study_id) == []


def lost(*_):
    raise OperationalError("SELECT", {}, sqlite3.OperationalError("server closed the connection"))


def test_patience_ends(tmp_path, monkeypatch, capsys):
    storage = open_storage(sqlite_url(tmp_path / "x.db"))
    with pytest.raises(DatabaseLost, match=r"could not be reached for 300 s \(.*server closed"):
        storage.patiently(lost, patience=0)
    monkeypatch.setattr(optuna.storages.RDBStorage, "record_heartbeat", lost)
    storage.record_heartbeat(0)  # once, and the trial goes on
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_signal_ends_the_wait_for_a_server(tmp_path):
    interruption = Interruption()
    storage = open_storage(sqlite_url(tmp_path / "x.db"), interruption)
    interruption.signum = 2
    with pytest.raises(KeyboardInterrupt):
        storage.patiently(lost)


def test_trials_are_not_taken_for_killed_ones_soon_after_the_server_was_away(tmp_path, monkeypatch):
    storage = open_storage(sqlite_url(tmp_path / "x.db"))
    study = optuna.create_study(study_name="x", storage=storage)
    with pytest.warns(UserWarning, match="Heartbeat"):
        trial = study.ask()
    storage.record_heartbeat(trial._trial_id)
    with sqlite3.connect(tmp_path / "x.db") as database:
        database.execute("UPDATE trial_heartbeats SET heartbeat = datetime('now', '-1 minute')")
    database.close()
    assert storage._get_stale_trial_ids(study._study_id) == [trial._trial_id]
    storage.away = True
    storage.get_all_studies()  # which answers
    assert storage._get_stale_trial_ids(study._study_id) == []


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_trial_that_is_run_again_has_passed_no_decision_of_its_pruner(tmp_path):
    study = optuna.create_study(pruner=optuna.pruners.SuccessiveHalvingPruner(1, 2), direction="maximize")
    trial = study.ask({"dropout": optuna.distributions.FloatDistribution(0, 1)})
    trial.report(0.5, 1)
    trial.should_prune()
    study.tell(trial, state=optuna.trial.TrialState.FAIL)
    assert "completed_rung_0" in study.trials[0].system_attrs
    tuning.database.queue_again(study, study.trials[0])
    assert study.trials[1].params == study.trials[0].params
    assert not any(key.startswith("completed_rung") for key in study.trials[1].system_attrs)
