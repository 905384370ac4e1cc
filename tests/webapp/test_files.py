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


def test_an_upload_that_comes_again_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "UPLOAD_SECONDS", 1.0)
    upload = tmp_path / "photo.png"
    upload.write_bytes(b"x")
    files.forget([upload])
    time.sleep(0.6)
    (tmp_path / "again").write_bytes(b"x")
    os.replace(tmp_path / "again", upload)  # as Gradio writes it, under the name of its content
    time.sleep(0.7)
    assert upload.exists()


def test_only_files_of_the_application_are_uploads(tmp_path_factory):
    outside = tmp_path_factory.mktemp("other") / "outside.png"
    outside.touch()
    assert not files.is_upload(outside)
    with files.temporary_files() as folder:
        (folder / "deep").mkdir()
        upload, link = folder / "deep" / "photo.png", folder / "link.png"
        upload.touch()
        link.symlink_to(outside)
        assert files.is_upload(upload) and files.is_upload(str(upload))
        for other in (outside, link, folder, folder / "gone.png", f"{folder}/../{outside.name}", "photo.png", ""):
            assert not files.is_upload(other), other
