"""The benchmarks run, on a CPU with tiny settings, as `make gpu` runs them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def gpu_script(folder: Path, steps: str, **more: str) -> subprocess.CompletedProcess:
    env = {**os.environ, "PYTHON": sys.executable, "DEVICE": "cpu", "STEPS": steps, **more}
    command = ["bash", str(ROOT / "benchmarks" / "gpu.sh"), str(folder)]
    return subprocess.run(command, env=env, cwd=folder.parent, capture_output=True, text=True, timeout=580)


@pytest.mark.slow
def test_every_step_but_those_that_other_tests_cover(tmp_path):
    steps = (
        "machine train_eager train_graph process_group parity speed_sampler speed_classifier speed_train_step profile"
    )
    run = gpu_script(tmp_path / "out", steps)
    logs = "\n".join(log.read_text()[-2000:] for log in sorted((tmp_path / "out").glob("*.log")))
    assert run.returncode == 0, run.stdout + run.stderr + logs
    rows = {line.split()[1]: line.split()[2] for line in run.stdout.splitlines() if line[:2].isdigit()}
    assert rows == dict.fromkeys(steps.split(), "ok") | {"train_graph": "skipped"}
    assert "steps that failed: 0" in (tmp_path / "out" / "summary.txt").read_text()
    assert "all checks passed" in logs


def test_what_fails_is_in_the_table_and_the_status(tmp_path):
    run = gpu_script(tmp_path / "out", "machine same_losses", DEVICE="cuda:77")
    assert run.returncode == 1 and "steps that failed: 2" in run.stdout
    assert "FAILED" in (tmp_path / "out" / "summary.txt").read_text()
