"""torchrun on two machines, in the form of docs/clusters.md: containers on this one, joined by a network cable."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).resolve().parents[1]
LIFETIME = 500  # seconds, after which a machine ends by itself, whatever becomes of the tests
NAMES = ("node-a", "node-b")
TRAIN = (
    "--dataset digits --nr_resnet 1 --nr_filters 4 --nr_logistic_mix 1 --dropout 0 --precision fp32 --batch_size 16 "
    "--sampling_interval 0 --fid_samples 0 --device cpu"
).split()
IMPATIENT = """
from utils import distributed
distributed.SILENCE = 8
import pcnn_train
from utils.script import run_script
run_script(pcnn_train.main)
"""

pytestmark = pytest.mark.integration


class Machine:
    """A container with a network, host name and processes of its own, and the files of the host."""

    def __init__(self, name: str, folder: Path):
        self.name, self.folder = name, folder
        self.jobs: list[subprocess.Popen] = []
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n10.77.0.1 node-a\n10.77.0.2 node-b\n")
        boot = f"mount --bind {hosts} /etc/hosts && hostname {name} && ip link set lo up && echo up && sleep {LIFETIME}"
        spaces = "--net --uts --mount --mount-proc --pid --fork --kill-child".split()
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        self.power = subprocess.Popen(["unshare", *spaces, "sh", "-c", boot], **pipes)
        if self.power.stdout.readline() != "up\n":
            pytest.skip(f"no containers here: {self.power.communicate(timeout=10)[1].strip()}")
        (self.init,) = Path(f"/proc/{self.power.pid}/task/{self.power.pid}/children").read_text().split()

    def network(self, command: str) -> None:
        """Run a command in its network alone."""
        inside = ["nsenter", "--target", self.init, "--net", "sh", "-c", command]
        subprocess.run(inside, check=True, stdin=subprocess.DEVNULL, timeout=30)

    def start(self, *command: object) -> subprocess.Popen:
        """Start a command in the repository; `told` has what it prints."""
        inside = ["nsenter", "--target", self.init, "--net", "--uts", "--mount", "--pid", *map(str, command)]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with open(self.folder / f"{len(self.jobs)}.txt", "w") as out:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT, "env": environment}
            self.jobs.append(subprocess.Popen(inside, cwd=ROOT, **options))
        return self.jobs[-1]

    def told(self) -> str:
        """What the last command printed so far."""
        return (self.folder / f"{len(self.jobs) - 1}.txt").read_text()

    def kill(self) -> None:
        """SIGKILL all its processes."""
        for process in (self.power, *self.jobs):
            process.kill()
            process.communicate(timeout=30)


@pytest.fixture
def machines(tmp_path) -> Iterator[list[Machine]]:
    """Two of them, joined by a veth pair."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "unshare", "nsenter"))):
        pytest.skip("needs root, and ip (iproute2), unshare and nsenter (util-linux)")
    machines: list[Machine] = []
    try:
        for name in NAMES:
            (tmp_path / name).mkdir()
            machines.append(Machine(name, tmp_path / name))
        machines[0].network(f"ip link add cable type veth peer name cable netns {machines[1].init}")
        for number, machine in enumerate(machines, start=1):
            machine.network(f"ip addr add 10.77.0.{number}/24 dev cable")
            machine.network("ip link set cable up")
        yield machines
    finally:
        for machine in machines:
            machine.kill()


def both(machines: list[Machine], script: Path, *flags: object) -> list[subprocess.Popen]:
    """The command of docs/clusters.md, on both."""
    torchrun = [
        sys.executable,
        "-m",
        *"torch.distributed.run --nnodes 2 --nproc_per_node 1 --rdzv_backend c10d".split(),
    ]
    return [machine.start(*torchrun, "--rdzv_endpoint", "node-a:29500", script, *flags) for machine in machines]


def wait(condition: Callable[[], object], machines: list[Machine]) -> None:
    end = time.monotonic() + 150
    while not condition():
        assert time.monotonic() < end, "\n".join(machine.told() for machine in machines)
        time.sleep(0.1)


def last_step(folder: Path) -> int:
    return torch.load(folder / "last.pt", weights_only=True)["step"]


def epochs(folder: Path) -> list[int]:
    file = folder / "metrics.jsonl"
    return [json.loads(line)["epoch"] for line in file.read_text().splitlines()] if file.exists() else []


def stopped(told: str, folder: Path) -> int:
    """The step at which a side says that it stopped, in one line."""
    (line,) = (line for line in told.splitlines() if line.startswith("error: "))
    assert line.startswith("error: another process has ended or cannot be reached (")
    assert line.endswith(f"; to resume: python pcnn_train.py --resume {folder}") and "[rank" not in told
    return int(re.search(r"stopped at epoch \d+ after step (\d+);", line)[1])


def test_a_run_waits_while_the_link_is_down(machines, tmp_path):
    folder = tmp_path / "run"
    jobs = both(machines, ROOT / "pcnn_train.py", *TRAIN, "--max_epochs", 3, "--run_dir", folder)
    wait(lambda: epochs(folder) == [1], machines)
    machines[0].network("ip link set cable down")
    time.sleep(4)
    assert epochs(folder) == [1]
    machines[0].network("ip link set cable up")
    wait(lambda: all(job.poll() is not None for job in jobs), machines)
    assert [job.returncode for job in jobs] == [0, 0] and epochs(folder) == [1, 2, 3]
    assert "best validation accuracy" in machines[0].told() and "best" not in machines[1].told()
    for word in ("error:", "Traceback", "Warning"):
        assert word not in machines[0].told() + machines[1].told()


@pytest.mark.slow
def test_a_lost_side_is_noticed_and_the_run_resumes(machines, tmp_path):
    folder, script = tmp_path / "run", tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    # without this, torchrun on node-b waits up to 16 minutes after its process has ended
    machines[1].network("echo 4 > /proc/sys/net/ipv4/tcp_retries2")
    jobs = both(machines, script, *TRAIN, "--max_epochs", 1000, "--run_dir", folder)
    wait(lambda: epochs(folder) == [1], machines)
    machines[0].network("ip link set cable down")
    wait(lambda: all(job.poll() is not None for job in jobs), machines)
    assert [job.returncode for job in jobs] == [1, 1]
    steps = [stopped(machine.told(), folder) for machine in machines]
    assert abs(steps[0] - steps[1]) <= 1 and last_step(folder) == steps[0] >= 44

    machines[0].network("ip link set cable up")
    jobs = both(machines, script, "--resume", folder)
    wait(lambda: epochs(folder) == [1, 2], machines)
    machines[1].kill()
    wait(lambda: jobs[0].poll() is not None, machines)
    assert jobs[0].returncode == 1 and stopped(machines[0].told(), folder) == last_step(folder) >= 88
    assert f"resuming at epoch 2, after step {steps[0]}" in machines[0].told()

    alone = machines[0].start(sys.executable, "pcnn_train.py", "--resume", folder, "--max_epochs", 3)
    wait(lambda: alone.poll() is not None, machines)
    assert alone.returncode == 0 and epochs(folder) == [1, 2, 3]
