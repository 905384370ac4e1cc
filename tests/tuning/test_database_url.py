"""Database URLs: what to write instead, and passwords, which are printed nowhere."""

import shlex

import pytest

import sweep as script_module
from tuning.database_url import hide_password, parse_url
from utils.errors import UserError


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("study.db", "--storage study.db is no URL; write sqlite:///study.db for this file"),
        ("/data/study.db", "write sqlite:////data/study.db for this file"),
        ("sqlite:study.db", "write sqlite:///study.db for this file"),
        ("sqlite://study.db", "--storage sqlite://study.db: write sqlite:///study.db, with three slashes"),
        (
            "postgres://me:hidden@host/db",
            "--storage postgres://me:***@host/db: write postgresql+psycopg://me:***@host/db",
        ),
        (
            "postgresql://me:hid@den@host/db",
            "postgresql://me:***@host/db is no database URL; write postgresql+psycopg://",
        ),
        ("postgresql://me:hid@d/en@host/db", "in the password write %40 for @, %3A for : and %2F for /"),
        ("postgresql://me:hidden@host:port/db", "me:***@host:port/db is no database URL"),
        ("postgressql://me:hidden@host/db", "write postgresql+psycopg://me:***@host/db"),
        ("influx://me:hidden@host/db", "there is no database influx; write postgresql+psycopg://user:password@host"),
        ("://", "is no database URL"),
    ],
)
def test_what_to_write_instead(url, words):
    with pytest.raises(UserError) as error:
        parse_url(url)
    assert words in str(error.value)
    assert not any(part in str(error.value) for part in ("hid", "den")) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "url", ["sqlite:///x.db", "sqlite:////a@b/x.db", "postgresql+psycopg://me:a%40b@host:1/db", "postgresql://host/db"]
)
def test_urls_that_are_right(url):
    parse_url(url)


def test_passwords_are_hidden():
    for url, shown in (
        ("postgresql://me:a:b/c@d@host/db", "postgresql://me:***@host/db"),
        ("--storage=postgresql://me:secret word@host/db", "--storage=postgresql://me:***@host/db"),
        ("postgresql://host/db?user=me&password=secret&x=1", "postgresql://host/db?user=me&password=***&x=1"),
        ("mysql://host/db?passwd=secret", "mysql://host/db?passwd=***"),
        ("postgresql://me@host:5432/db", "postgresql://me@host:5432/db"),
        ("sqlite:////a:b/x@y.db", "sqlite:////a:b/x@y.db"),
    ):
        assert hide_password(url) == shown
        assert script_module.command_to_copy(["x.yaml", url]) == shlex.join(["x.yaml", shown])


@pytest.mark.parametrize(
    "flags", [["--storag", "URL"], ["--storage=URL", "--trial", "3"], ["--storage", "URL"], ["--set", "URL"]]
)
def test_no_mistake_prints_a_password(flags, capsys, tmp_path):
    url = "postgresql+psycopg://me:secret@127.0.0.1:1/db"  # where no server is
    pytest.importorskip("psycopg")
    flags = [flag.replace("URL", url) for flag in flags]
    with pytest.raises(UserError) as error:
        script_module.main(["configs/sweep_digits.yaml", "--save_dir", str(tmp_path), *flags])
    assert "secret" not in str(error.value) + "".join(capsys.readouterr())
