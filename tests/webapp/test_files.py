import os
import time

import pytest
from PIL import Image

from webapp import files


def test_the_oldest_files_go_first(tmp_path):
    now = time.time()
    for age, name in enumerate(["new", "middle", "old"]):
        path = tmp_path / name / "file"
        path.parent.mkdir()
        path.write_bytes(b"x" * 100)
        os.utime(path, (now - 10 * age, now - 10 * age))
    files.keep_small(tmp_path, 250, 1000)
    assert not (tmp_path / "old" / "file").exists() and (tmp_path / "middle" / "file").exists()
    files.keep_small(tmp_path, 250, 5)
    assert [path.parent.name for path in tmp_path.rglob("file")] == ["new"]


def test_uploads_are_removed(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UPLOAD_SECONDS", 0.05)
    upload = tmp_path / "photo.png"
    upload.write_bytes(b"x")
    files.forget([upload, tmp_path / "gone.png"])
    assert upload.exists()
    deadline = time.monotonic() + 5
    while upload.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not upload.exists()


def test_results_of_a_cancelled_work_are_removed():
    with files.result_folder() as kept:
        (kept / "file").touch()
    with pytest.raises(KeyboardInterrupt), files.result_folder() as cancelled:
        (cancelled / "file").touch()
        raise KeyboardInterrupt
    assert kept.is_dir() and not cancelled.exists()


def test_the_folder_is_gone_at_the_end(monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", "before")
    with files.temporary_files() as folder:
        assert os.environ["GRADIO_TEMP_DIR"] == str(folder)
        picture = files.picture_file(Image.new("L", (2, 2)))
        assert os.path.dirname(picture) == str(folder)
        assert files.picture_file(Image.new("L", (2, 2))) != picture
    assert not folder.exists() and os.environ["GRADIO_TEMP_DIR"] == "before"
