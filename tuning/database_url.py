"""Database URLs of studies: what to write instead of one that is wrong, and hiding their passwords."""

import re
from pathlib import Path

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, NoSuchModuleError

from utils.errors import UserError
from utils.text import printable

EXAMPLE = "postgresql+psycopg://user:password@host/database"


def sqlite_url(path: Path) -> str:
    """The database URL of a local SQLite file."""
    return URL.create("sqlite", database=str(path)).render_as_string()


def hide_password(text: str) -> str:
    """``text``, a URL or an argument with one, with *** for its password."""
    text = re.sub(r"(://[^:/@]*:).*@", r"\1***@", text, flags=re.DOTALL)
    return re.sub(r"([?&]\w*(?:pass|pwd)\w*=)[^&\s]+", r"\1***", text, flags=re.IGNORECASE)


def parse_url(text: str) -> URL:
    """A database URL. Raises UserError that says what to write instead."""
    shown = printable(hide_password(text))
    scheme, _, rest = text.partition("://")
    if re.fullmatch(r"(sqlite:)?[^:]+", text) and "://" not in text:
        raise UserError(f"--storage {shown} is no URL; write sqlite:///{shown.removeprefix('sqlite:')} for this file")
    if scheme.startswith("postgres") and not scheme.startswith("postgresql"):
        raise UserError(f"--storage {shown}: write {printable(hide_password(f'postgresql+psycopg://{rest}'))}")
    try:
        url = make_url(text)
        url.get_dialect()
    except NoSuchModuleError:
        raise UserError(f"--storage {shown}: there is no database {printable(scheme)}; write {EXAMPLE}") from None
    except (ArgumentError, ValueError):
        url = None
    except ImportError:  # of the driver, which is reported when the database is opened
        pass
    if url is None or (url.host and "@" in f"{url.host}{url.database}"):
        advice = "in the password write %40 for @, %3A for : and %2F for /"
        raise UserError(f"--storage {shown} is no database URL; write {EXAMPLE} ({advice})")
    if url.get_backend_name() == "sqlite" and url.host:
        raise UserError(f"--storage {shown}: write sqlite:///{printable(rest)}, with three slashes")
    return url
