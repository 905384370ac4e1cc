"""Where output goes: behind links, through what is no regular file, to standard output, never over an input."""

import os
import socket
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from utils.errors import UserError
from utils.files import atomic_write, check_folder, check_writable
from utils.outputs import check_inputs, destination, is_standard_output

ROOT = Path(__file__).resolve().parents[2]
WRITE = "import sys; from utils.files import atomic_write\nwith atomic_write(sys.argv[1]) as p: p.write_bytes(b'new')"


def write(path, text="new"):
    check_writable(path)
    with atomic_write(path) as partial:
        partial.write_text(text)


def test_a_link_stays_and_its_target_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "disk").mkdir()
    target, link = tmp_path / "disk" / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to("again")
    (tmp_path / "again").symlink_to(Path("disk", "target"))
    before = target.stat().st_ino
    with pytest.raises(KeyboardInterrupt), atomic_write(link) as partial:
        assert partial.parent == target.parent  # of the same disk, or it could not be renamed
        partial.write_text("half")
        raise KeyboardInterrupt
    assert target.read_text() == "old"
    write(link)
    assert link.is_symlink() and target.read_text() == "new" and target.stat().st_ino != before
    assert sorted(os.listdir(tmp_path)) == ["again", "disk", "link"] and os.listdir(target.parent) == ["target"]


def test_a_link_to_no_file_makes_it_but_no_folder(tmp_path):
    (tmp_path / "link").symlink_to("file")
    write(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and (tmp_path / "file").read_text() == "new"
    (tmp_path / "unmounted").symlink_to(tmp_path / "disk" / "file")
    (tmp_path / "loop").symlink_to("loop")
    for name in ("unmounted", "loop"):
        for attempt in (check_writable, write):
            with pytest.raises(UserError, match=rf"{name} cannot be written \("):
                attempt(tmp_path / name)
    assert not (tmp_path / "disk").exists() and (tmp_path / "loop").is_symlink()


def test_a_pipe_is_written_through(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    got = []
    reader = threading.Thread(target=lambda: got.append((tmp_path / "pipe").read_text()))
    reader.start()
    write(tmp_path / "pipe", "x" * 100_000)  # more than the pipe holds
    reader.join()
    assert got == ["x" * 100_000] and stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert os.listdir(tmp_path) == ["pipe"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_device_is_written_through(tmp_path):
    (tmp_path / "null").symlink_to("/dev/null")  # a link: whatever is wrong, the device itself stays
    (tmp_path / "full").symlink_to("/dev/full")
    write(tmp_path / "null")
    with pytest.raises(UserError, match=r"full cannot be written \(No space left on device\)"):
        write(tmp_path / "full")
    for name in ("null", "full"):
        assert destination(tmp_path / name) is None and stat.S_ISCHR((tmp_path / name).stat().st_mode)


def test_what_holds_no_file_is_refused(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # paths of sockets have a short limit
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        with pytest.raises(UserError, match="socket is a socket"):
            write("socket")
    disk = os.stat_result((stat.S_IFBLK | 0o600, *range(9)))
    monkeypatch.setattr(os, "stat", lambda *_, **__: disk)
    with pytest.raises(UserError, match="sda is a disk"):
        destination("sda")


@pytest.mark.parametrize("path", ["-", "/dev/stdout"])
def test_standard_output_gets_the_bytes(path, tmp_path):
    """In a process of its own: into a pipe, into a file, and after what a file holds."""
    command = [sys.executable, "-c", WRITE, path]
    assert subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, check=True).stdout == b"new"
    file = tmp_path / "file"
    for mode, content in (("w", "new"), ("a", "newnew")):
        with open(file, mode) as stdout:
            subprocess.run(command, cwd=ROOT, stdout=stdout, check=True)
        assert file.read_text() == content
    assert os.listdir(tmp_path) == ["file"]


def test_an_open_file_keeps_what_it_holds(tmp_path):
    with open(tmp_path / "file", "w") as file:
        file.write("old ")
        file.flush()
        command = [sys.executable, "-c", WRITE, f"/dev/fd/{file.fileno()}"]
        subprocess.run(command, cwd=ROOT, pass_fds=[file.fileno()], check=True)
        assert (tmp_path / "file").read_text() == "old new"


def test_a_reader_that_leaves_standard_output_is_no_mistake():
    reading, writing = os.pipe()
    os.close(reading)
    code = "from utils.outputs import *\nwith write_errors('-'), open_stream('-') as f: f.write(b'x')"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert done.stderr.strip().splitlines()[-1].startswith("BrokenPipeError")  # run_script knows what to do


def test_standard_output_that_is_closed_is_one_line():
    code = "import sys; sys.__stdout__ = None\nfrom utils.outputs import *\ntry: open_stream('-')\n"
    code += "except UserError as error: print(error)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("standard output is closed")


def test_a_minus_is_no_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_standard_output("-") and not is_standard_output("./-")
    with pytest.raises(UserError, match="standard output, which takes one file"):
        check_folder("-")
    check_folder("./-")
    assert os.listdir(tmp_path) == ["-"]
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="file is not a folder"):
        check_folder("file")


def test_inputs_are_known_by_any_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").mkdir()
    for name in ("photos/a.png", "photos/b.png", "mine.csv"):
        Path(name).write_text(name)
    os.link("photos/a.png", "hard")
    Path("soft").symlink_to("photos/a.png")
    Path("photos2").symlink_to("photos")
    paths = ["photos/a.png", "photos2/a.png", "gone/../photos/a.png", "hard", "soft", tmp_path / "soft"]
    for path in paths:
        with pytest.raises(UserError, match=r"--out .* would overwrite (\S+/)?photos/a.png, which is an input"):
            check_inputs(["new", path], [Path("photos/b.png"), "photos/a.png"], "--out", path)
    check_inputs(["mine.csv", "photos/new.png", "-"], ["photos/a.png", "photos/b.png", "gone.png"], "--out", "x")
