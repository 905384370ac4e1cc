"""What a person sees whose terminal, pipe or disk goes away."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]

PROGRAM = """
import os, signal, sys
from utils.script import run_script
def main():
    for i in range(3):
        print("line", i, "\\u65e5\\udc80", flush=True)
    print("on stderr \\u65e5", file=sys.stderr)
    open(sys.argv[1], "w").close()  # the work goes on
    for name in sys.argv[2:]:
        os.kill(os.getpid(), getattr(signal, name))
    return 3
run_script(main)
"""


def run(command, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)} | options.pop("env", {})
    return subprocess.run(command, env=environment, capture_output=True, timeout=60, **options)


@pytest.fixture
def program(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    return [sys.executable, str(tmp_path / "program.py"), str(tmp_path / "done")]


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_any_encoding(program, encoding):
    result = run(program, env={"PYTHONIOENCODING": encoding})
    assert result.returncode == 3
    assert result.stdout.splitlines()[0] in (rb"line 0 \u65e5\udc80", "line 0 日\\udc80".encode())
    assert b"Traceback" not in result.stderr and b"on stderr" in result.stderr


def test_a_reader_that_leaves_does_not_stop_the_work(program, tmp_path):
    command = f"{' '.join(program)} | head -1; echo ${{PIPESTATUS[0]}}"
    result = run(["bash", "-c", command])
    assert result.stdout.splitlines()[-1] == b"3" and b"rror" not in result.stderr and (tmp_path / "done").exists()


def test_a_reader_of_both_that_leaves(program, tmp_path):
    result = run(["bash", "-c", f"{' '.join(program)} |& true; echo ${{PIPESTATUS[0]}}"])
    assert result.stdout == b"3\n" and (tmp_path / "done").exists()


def test_closed_output(program, tmp_path):
    result = run(["bash", "-c", f"{' '.join(program)} >&- 2>&-; echo $?"])
    assert result.stdout == b"3\n" and (tmp_path / "done").exists()


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_one_line_at_the_end(program, tmp_path):
    result = run(["bash", "-c", f"{' '.join(program)} > /dev/full"])
    lines = result.stderr.decode().splitlines()
    assert result.returncode == 2 and (tmp_path / "done").exists()
    assert lines[-1] == "error: standard output cannot be written (No space left on device)" and len(lines) == 2


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP", "SIGINT"])
def test_a_signal_is_one_line(program, name):
    """Also where the tests were started with nohup or in the background of a script, where signals are ignored."""
    result = run([*program, name], preexec_fn=lambda: signal.signal(getattr(signal, name), signal.SIG_DFL))
    assert result.returncode == 128 + getattr(signal, name)
    assert result.stderr.decode().splitlines()[-1] == "interrupted"


def test_nohup(program):
    assert run(["nohup", *program, "SIGHUP"]).returncode == 3


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_settings_that_cannot_be_printed():
    result = run(["bash", "-c", f"{sys.executable} {ROOT}/pcnn_train.py --print_config > /dev/full"])
    assert result.returncode == 2 and b"standard output cannot be written" in result.stderr


def test_help_to_a_reader_that_leaves():
    result = run(["bash", "-c", f"{sys.executable} {ROOT}/pcnn_train.py --help | head -1; echo ${{PIPESTATUS[0]}}"])
    assert result.stdout.splitlines()[-1] == b"0" and result.stderr == b""
