"""The database of a study: Optuna's storage, which waits for a server that does not answer."""

import functools
import inspect
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna import Study
from optuna.trial import FrozenTrial
from sqlalchemy.engine import URL
from sqlalchemy.exc import DatabaseError, InterfaceError, OperationalError, SQLAlchemyError

from tuning.database_url import hide_password, parse_url
from utils.console import notify
from utils.errors import UserError
from utils.signals import Interruption
from utils.text import printable

HEARTBEAT = 10  # seconds between the heartbeats of a running trial
GRACE_PERIOD = 30  # seconds without a heartbeat after which a running trial counts as interrupted
PATIENCE = 300  # seconds that a call waits for a database that does not answer
PACKAGES = {"psycopg": "'psycopg[binary]'", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}  # of drivers
TIMEOUTS = {"connect_timeout": 10, "tcp_user_timeout": 30_000}  # of libpq, s and ms: a cut cable is noticed


class DatabaseLost(UserError):
    """A database that has not answered for PATIENCE seconds."""


def open_storage(text: str, interruption: Interruption | None = None, create: bool = True) -> "PatientStorage":
    """Open the Optuna storage at a database URL.

    Args:
        text: the URL.
        interruption: records the signals that end the wait for a database that does not answer.
        create: whether to create a missing SQLite file and missing tables.

    Raises UserError where it cannot be opened; its message holds no password.
    """
    optuna.logging.set_verbosity(optuna.logging.ERROR)  # sweep.py prints its own line per trial
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="Heartbeat of storage")  # tuning/runner.py has its own
    url = parse_url(text)
    for retries in (3, 2, 1, 0):
        try:
            if not create:
                require_study_tables(url)
            return PatientStorage(url, interruption or Interruption())
        except UserError:
            raise
        except ImportError as error:
            driver = getattr(error.__cause__, "name", None) or getattr(error, "name", None)
            package = PACKAGES.get(driver or "", driver)
            raise UserError(f"the driver {driver} of this database is missing: pip install {package}") from None
        except Exception as error:  # from SQLAlchemy or a driver: all concern the URL
            if retries and isinstance(error, DatabaseError):
                time.sleep(1)  # another machine may be creating the same tables
                continue
            shown = printable(hide_password(text))
            raise UserError(f"the database {shown} cannot be opened ({first_line(error)})") from None
    raise AssertionError("the last attempt returns or raises")


def require_study_tables(url: URL) -> None:
    """Raise UserError unless the database holds studies; unlike Optuna, create nothing."""
    file = url.database or ""
    missing = url.get_backend_name() == "sqlite" and not file.startswith("file:") and not Path(file).is_file()
    if missing or not sqlalchemy.inspect(sqlalchemy.create_engine(url)).has_table("studies"):
        shown = printable(hide_password(url.render_as_string()))
        raise UserError(f"there is no study in the database {shown}" + (", which does not exist" if missing else ""))


def first_line(error: BaseException) -> str:
    """What a driver says, without the SQL statement and the link that follow."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def may_pass(error: BaseException) -> bool:
    """Whether the same call may succeed later: the connection was lost, the server is starting, the file is locked."""
    lost = isinstance(error, OperationalError | InterfaceError) or getattr(error, "connection_invalidated", False)
    return lost and "readonly" not in str(error)  # SQLite's word


class PatientStorage(optuna.storages.RDBStorage):
    """An Optuna storage whose calls wait while the database does not answer, as when its server is restarted.

    A call raises DatabaseLost after PATIENCE seconds of waiting, UserError where the database refuses it, as a
    read-only one, and KeyboardInterrupt on a signal while it waits.

    Args:
        url: of the database.
        interruption: records the signals.
    """

    def __init__(self, url: URL, interruption: Interruption):
        self.interruption = interruption
        self.shown = printable(hide_password(url.render_as_string()))
        self.lock = threading.Lock()
        self.local = threading.local()
        self.grace = GRACE_PERIOD
        self.away = False
        self.back = -float("inf")  # when it last answered again
        libpq = url.get_backend_name() == "postgresql" and "psycopg" in url.get_driver_name()
        timeouts = {key: value for key, value in TIMEOUTS.items() if libpq and key not in url.query}
        super().__init__(
            url.render_as_string(hide_password=False).replace("{", "{{").replace("}", "}}"),  # Optuna formats it
            engine_kwargs={"pool_pre_ping": True, "connect_args": timeouts},
            heartbeat_interval=HEARTBEAT,
            grace_period=self.grace,
            heartbeat_stale_trial_callback=retry_stale_trial,
        )

    def record_heartbeat(self, trial_id: int) -> None:
        """Try once; the next heartbeat is due soon."""
        with suppress(UserError):
            self.patiently(lambda: optuna.storages.RDBStorage.record_heartbeat(self, trial_id), patience=0)

    def _get_stale_trial_ids(self, study_id: int) -> list[int]:
        """None soon after the database was away: no trial could record its heartbeats."""
        if time.monotonic() - self.back < self.grace:
            return []
        return self.patiently(lambda: optuna.storages.RDBStorage._get_stale_trial_ids(self, study_id))

    def patiently(self, call: Callable[[], Any], patience: float | None = None) -> Any:
        """Repeat ``call`` until the database answers, for ``patience`` seconds (None: PATIENCE)."""
        if getattr(self.local, "calling", False):  # a call of a call, in a transaction that is repeated as a whole
            return call()
        end = time.monotonic() + (PATIENCE if patience is None else patience)
        self.local.calling = True
        try:
            while True:
                try:
                    result = call()
                except (optuna.exceptions.StorageInternalError, SQLAlchemyError) as error:
                    self.wait(error.__cause__ or error, end)
                else:
                    self.note_answer()
                    return result
        finally:
            self.local.calling = False

    def wait(self, error: BaseException, end: float) -> None:
        """Wait for the next attempt after an error; raise where there is none."""
        if not may_pass(error):
            raise UserError(f"the database {self.shown} cannot be used ({first_line(error)})") from None
        with self.lock:
            if not self.away:
                notify(f"the database cannot be reached ({first_line(error)}); trying again")
            self.away = True
        if time.monotonic() >= end:
            raise DatabaseLost(
                f"the database {self.shown} could not be reached for {PATIENCE} s ({first_line(error)}); when it can, "
                "repeat the command, which runs an interrupted trial again"
            ) from None
        time.sleep(1)
        if self.interruption.signum is not None:
            raise KeyboardInterrupt

    def note_answer(self) -> None:
        with self.lock:
            if self.away:
                notify("the database answers again")
                self.away, self.back = False, time.monotonic()


def patient(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return call


for _name, _method in vars(optuna.storages.RDBStorage).items():
    if inspect.isfunction(_method) and not _name.startswith("__") and _name not in vars(PatientStorage):
        setattr(PatientStorage, _name, patient(_method))


def retry_stale_trial(study: Study, trial: FrozenTrial) -> None:
    """Optuna's callback for a trial without heartbeats."""
    print(f"trial {trial.number} was interrupted and is run again", flush=True)
    queue_again(study, trial)


def queue_again(study: Study, trial: FrozenTrial) -> None:
    """Queue a new trial with the settings of ``trial``."""
    trial.system_attrs = {
        key: value for key, value in trial.system_attrs.items() if not key.startswith("completed_rung")
    }
    optuna.storages.RetryHeartbeatStaleTrialCallback()(study, trial)
