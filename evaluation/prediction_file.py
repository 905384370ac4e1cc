"""predictions.csv: written row by row, resumable, and safe to open in a spreadsheet."""

import csv
import io
import json
import math
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, TextIO

from evaluation.images import Images
from evaluation.predictions import Prediction
from utils.errors import UserError
from utils.outputs import destination, open_stream, output_name, write_errors
from utils.text import escaped, printable

FORMULA = "=+-@\t\r"  # a spreadsheet runs a text that begins so (OWASP, "CSV Injection")
AMBIGUOUS = re.compile(rf"\\(?=[xu])|;(?=[{re.escape(FORMULA)}])")  # an escape in the name; a cell, split at semicolons
BOM = "\ufeff"  # without it Excel takes UTF-8 for the system's own encoding
ESCAPE = re.compile(r"\\x([0-9a-f]{2})|\\u([0-9a-f]{4})")


def safe(text: str) -> str:
    r"""A text as a cell of one line that no spreadsheet runs; `plain` is the inverse.

    As `printable`, a backslash before x or u becoming \x5c; with ' before it where it begins like a formula or with '.
    """
    text = printable(AMBIGUOUS.sub(lambda match: escaped(match[0]), text))
    return f"'{text}" if text.startswith((*FORMULA, "'")) else text


def plain(cell: str) -> str:
    """The text of a cell; a path is again one that `open` takes."""

    def character(match: re.Match[str]) -> str:
        code = int(match[1] or match[2], 16)
        return chr(0xDC00 + code if match[1] and code >= 0x80 else code)  # a byte that is no UTF-8

    return ESCAPE.sub(character, cell.removeprefix("'"))


def read_csv(path: str | Path) -> list[dict[str, str]]:
    """The rows of a file that classify.py wrote, cells of text as they were before they were made safe."""
    with open(path, newline="", encoding="utf-8-sig") as file:
        header, *rows = csv.reader(file, strict=True)
    return [dict(zip(header, map(plain, row), strict=True)) for row in rows]  # a number never begins with '


class PredictionFile:
    """The CSV file of a classification, as a context manager: PATH.partial until it is complete, then PATH.

    What is no regular file, as standard output (-) or a pipe, is written row by row, and has no PATH.partial.

    Args:
        path: of the file; where it is a link, its target is written.
        class_names: of the network.
        identity: what must be equal for a classification to be resumed, plain values, kept in PATH.partial.json; the
            weights of the classes are in "prior", if any, "csv_bom" is whether the file begins with a byte-order mark,
            and "reject" the typicality below which images are rejected, if any are.
        images: what is classified, in order.
        resume: keep the rows of an interrupted classification.

    ``predictions`` are those so far, without their log-likelihoods. Raises UserError where the file cannot be written,
    or the rows to resume are of another classification.
    """

    def __init__(
        self,
        path: str | Path,
        class_names: Sequence[str],
        identity: dict[str, Any],
        images: Images,
        resume: bool = False,
    ):
        self.path = path
        target = destination(path)
        self.stream = target is None
        if self.stream and resume:
            raise UserError(
                f"--resume: {output_name(path)} keeps no rows to resume; leave --resume out, or name a file"
            )
        self.target = target or Path(path)
        self.partial = self.target.with_name(self.target.name + ".partial")
        self.about = self.target.with_name(self.partial.name + ".json")
        self.class_names = list(class_names)
        self.identity = json.loads(json.dumps(identity))  # as it is read back
        self.prior = identity.get("prior") or [1.0] * len(self.class_names)
        self.images = images
        self.resume = resume
        self.predictions: list[Prediction] = []

    def __enter__(self) -> "PredictionFile":
        if self.stream:
            with write_errors(self.path):
                self.start(open_stream(self.path))
            return self
        if self.partial.exists() and not self.resume:
            raise UserError(
                f"{printable(self.partial)} holds the rows of an interrupted classification; "
                "resume it with --resume, or remove it to start over"
            )
        with write_errors(self.partial):
            end = self.read_rows() if self.resume and self.partial.exists() else 0
            if end:
                self.take(open(self.partial, "ab")).truncate(end)  # drops a row that was written in part
                return self
            try:
                self.about.write_text(json.dumps(self.identity) + "\n")
                self.start(open(self.partial, "wb"))
            except OSError:
                for file in (self.partial, self.about):  # without a row, they would only be in the way
                    file.unlink(missing_ok=True)
                raise
        return self

    def take(self, file: BinaryIO) -> TextIO:
        """Write to an open file from now on."""
        self.file = io.TextIOWrapper(file, encoding="utf-8", newline="")
        self.writer = csv.writer(self.file, lineterminator="\n")
        return self.file

    def start(self, opened: BinaryIO) -> None:
        """Write the header. Raises OSError."""
        file = self.take(opened)
        try:
            file.write(BOM if self.identity.get("csv_bom") else "")
            self.writer.writerow(map(safe, self.header))
            file.flush()
        except OSError:
            self.close_after_error()
            raise

    def close_after_error(self) -> None:
        with suppress(OSError):  # closing writes what is left: a full disk again
            self.file.close()

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.close_after_error()
            return
        with self.row_errors():
            self.file.close()
            if not self.stream:
                os.replace(self.partial, self.target)
                self.about.unlink(missing_ok=True)

    def row_errors(self) -> AbstractContextManager[None]:
        """As `write_errors`, with advice."""
        if self.stream:
            return write_errors(self.path)
        return write_errors(self.partial, "; free space, then repeat the command with --resume")

    @property
    def header(self) -> list[str]:
        scores = [f"logp_{name}" for name in self.class_names]
        return ["path", "label", "class_name", "confidence", "bpd", "typicality", *scores, "error"]

    def write(self, prediction: Prediction) -> None:
        """Append a row, numbers with 9 significant digits (a float32 exactly). Raises UserError on a full disk."""
        p = prediction
        if p.error:
            cells = [""] * (len(self.header) - 2)
        else:
            typicality = "" if math.isnan(p.typicality) else f"{p.typicality:.9g}"
            confidence, bpd, *scores = [f"{number:.9g}" for number in (p.confidence, p.bpd, *p.log_likelihoods)]
            label = ["-1", ""] if p.rejected else [str(p.label), safe(self.class_names[p.label])]
            cells = [*label, confidence, bpd, typicality, *scores]
        with self.row_errors():
            self.writer.writerow([safe(p.name), *cells, safe(p.error)])
            self.file.flush()  # the row survives whatever ends this process
        self.remember(p)

    def remember(self, p: Prediction) -> None:
        self.predictions.append(replace(p, log_likelihoods=()))

    def read_rows(self) -> int:
        """Read the rows of an earlier process; returns where the last complete one ends, in bytes. Raises UserError."""
        try:
            identity = json.loads(self.about.read_text())
        except (OSError, ValueError):
            identity = None
        if identity != self.identity:
            raise self.mismatch("checkpoint, prior or setting")
        end = 0
        for row, position in whole_rows(self.partial):
            if end == 0:
                if row != [safe(name) for name in self.header]:
                    raise self.mismatch("list of classes")
            else:
                self.remember(self.prediction(row))
            end = position
        return end

    def prediction(self, row: list[str]) -> Prediction:
        """The prediction in a row of the file. Raises UserError if it is the row of another image."""
        number = len(self.predictions)
        names = self.images.names
        if len(row) != len(self.header) or number >= len(names) or row[0] != safe(names[number]):
            raise self.mismatch("list of images")
        known: dict[str, Any] = {"name": names[number], "truth": self.images.truth[number]}
        if row[-1]:
            return Prediction(**known, error=plain(row[-1]))
        edited = f"program, or was edited (row {number + 1}),"
        try:
            label, confidence, bpd, typicality = int(row[1]), float(row[3]), float(row[4]), float(row[5] or "nan")
            scores = [float(cell) for cell in row[6:-1]]
        except ValueError:
            raise self.mismatch(edited) from None
        evidence = [score + math.log(weight) for score, weight in zip(scores, self.prior, strict=True)]
        rejected = label == -1 and self.identity.get("reject") is not None
        if rejected and row[2] == "":
            label = max(range(len(scores)), key=evidence.__getitem__)
        elif not 0 <= label < len(self.class_names) or row[2] != safe(self.class_names[label]):
            raise self.mismatch(edited)
        second = max((i for i in range(len(scores)) if i != label), key=evidence.__getitem__, default=-1)
        known |= {"confidence": confidence, "bpd": bpd, "typicality": typicality, "rejected": rejected}
        return Prediction(**known, label=label, second=second)

    def mismatch(self, what: str) -> UserError:
        return UserError(
            f"{printable(self.partial)} is of another {what} and cannot be resumed; "
            "remove it to start over, or give another --out"
        )


def whole_rows(path: Path) -> Iterator[tuple[list[str], int]]:
    """The complete rows of a CSV file, each with the byte where it ends."""
    position = 0

    def lines() -> Iterator[str]:
        nonlocal position
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n"):
                    return  # incomplete
                position += len(line)
                encoding = "utf-8" if position > len(line) else "utf-8-sig"  # the first one may begin with a mark
                yield line.decode(encoding, "replace")

    reader = csv.reader(lines(), strict=True)  # strict: a quote that never ends is an error, not a cell
    try:
        for row in reader:
            yield row, position
    except csv.Error:
        return
