"""The files of the application: uploads and results in one temporary folder of bounded size."""

import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from PIL import Image

MAX_BYTES = 500_000_000  # of all files together
UPLOAD_SECONDS = 60  # that an upload stays after it was read, while the page may still fetch its picture
RESULT_SECONDS = 3600
CHECK_SECONDS = 10  # between two checks of the size


@contextmanager
def temporary_files() -> Iterator[Path]:
    """A folder for all files of Gradio in this process, which is kept small, and removed at the end.

    Enter it before Gradio is imported, which reads the place of its files then.
    """
    with tempfile.TemporaryDirectory(prefix="pixelcnn_app_", ignore_cleanup_errors=True) as name:
        folder, ended = Path(name).resolve(), threading.Event()
        before = {key: os.environ.get(key) for key in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE")}
        os.environ.update(GRADIO_TEMP_DIR=str(folder), GRADIO_EXAMPLES_CACHE=str(folder / "examples"))

        def watch() -> None:
            while not ended.wait(CHECK_SECONDS):
                keep_small(folder, MAX_BYTES, RESULT_SECONDS)

        threading.Thread(target=watch, name="files", daemon=True).start()
        try:
            yield folder
        finally:
            ended.set()
            for key, value in before.items():
                os.environ.pop(key) if value is None else os.environ.__setitem__(key, value)


def keep_small(folder: Path, max_bytes: int, max_seconds: float) -> None:
    """Remove the files below ``folder`` that are older than ``max_seconds``, and then the oldest ones until the others
    take at most ``max_bytes``."""
    files = []
    for file in folder.rglob("*"):
        with suppress(OSError):  # removed meanwhile
            if file.is_file():
                files.append((file.stat().st_mtime, file.stat().st_size, file))
    total = sum(size for _, size, _ in files)
    for changed, size, file in sorted(files):
        if total <= max_bytes and changed >= time.time() - max_seconds:
            return
        with suppress(OSError):
            file.unlink()
        total -= size


def is_upload(file: str | Path) -> bool:
    """Whether a path is that of a regular file in the folder of `temporary_files`, through no link."""
    folder = os.environ.get("GRADIO_TEMP_DIR")
    path = os.path.abspath(file)
    return bool(folder) and os.path.realpath(path) == path and os.path.isfile(path) and path.startswith(f"{folder}/")


def forget(uploads: Iterable[str | Path]) -> None:
    """Remove files that were uploaded, soon, unless they are uploaded again: equal files share a name."""

    def remove() -> None:
        for file in files:
            with suppress(OSError):
                if time.time() - file.stat().st_ctime >= UPLOAD_SECONDS:
                    file.unlink()

    files = [Path(file) for file in uploads]
    timer = threading.Timer(UPLOAD_SECONDS, remove)
    timer.daemon = True
    timer.start()


@contextmanager
def result_folder() -> Iterator[Path]:
    """A new folder for results; it is removed unless the work inside ends without an error or a cancellation."""
    folder = Path(tempfile.mkdtemp(dir=os.environ.get("GRADIO_TEMP_DIR")))
    try:
        yield folder
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def picture_file(picture: Image.Image) -> str:
    """A new PNG file of a picture, to show. Gradio's own would be written again while it is sent to somebody else."""
    with tempfile.NamedTemporaryFile(dir=os.environ.get("GRADIO_TEMP_DIR"), suffix=".png", delete=False) as file:
        picture.save(file, format="PNG")
    return file.name
