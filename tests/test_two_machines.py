"""torchrun on two machines, as in docs/clusters.md: containers (Linux namespaces) joined by a veth pair."""

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
    """A container with a network, host name and processes of its own, and the files of the host.

    ``started`` gets all processes that it starts.
    """

    def __init__(self, name: str, folder: Path, started: list[subprocess.Popen]):
        self.folder, self.started = folder, started
        folder.mkdir()
        hosts = folder / "hosts"
        hosts.write_text("127.0.0.1 localhost\n10.77.0.1 node-a\n10.77.0.2 node-b\n")
        # the network has a process of its own, and so outlives the machine's processes, as a network card does
        self.card = self.container(["unshare", "--net"], "ip link set lo up && echo up")
        isolated = "unshare --uts --mount --mount-proc --pid --fork --kill-child".split()
        self.power = self.container(
            [*self.inside(), *isolated], f"mount --bind {hosts} /etc/hosts && hostname {name} && echo up"
        )
        (self.init,) = Path(f"/proc/{self.power.pid}/task/{self.power.pid}/children").read_text().split()

    def container(self, prefix: list[str], command: str) -> subprocess.Popen:
        pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        process = subprocess.Popen([*prefix, "sh", "-c", f"{command} && exec sleep {LIFETIME}"], **pipes)
        self.started.append(process)
        if process.stdout.readline() != "up\n":
            pytest.skip(f"no containers here: {process.communicate(timeout=10)[1].strip()}")
        return process

    def inside(self) -> list[str]:
        """What enters its network."""
        return ["nsenter", "--target", str(self.card.pid), "--net"]

    def network(self, command: str) -> None:
        subprocess.run([*self.inside(), "sh", "-c", command], check=True, stdin=subprocess.DEVNULL, timeout=30)

    def start(self, *command: object) -> subprocess.Popen:
        """Start a command in the repository; `told` has what it prints."""
        enter = ["nsenter", "--target", self.init, *f"--net --uts --mount --pid --wd={ROOT}".split()]
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}
        with open(self.folder / "told.txt", "w") as out:
            options = {"stdin": subprocess.DEVNULL, "stdout": out, "stderr": subprocess.STDOUT, "env": environment}
            self.started.append(subprocess.Popen([*enter, *map(str, command)], **options))
        return self.started[-1]

    def told(self) -> str:
        """What the last command printed so far."""
        return (self.folder / "told.txt").read_text()

    def kill(self) -> None:
        """SIGKILL its processes."""
        self.power.kill()  # and with it, by the kernel, all that runs inside
        self.power.communicate(timeout=30)


@pytest.fixture
def machines(tmp_path) -> Iterator[list[Machine]]:
    """Two of them, joined by a cable."""
    if os.geteuid() != 0 or not all(map(shutil.which, ("ip", "tc", "unshare", "nsenter"))):
        pytest.skip("needs root, ip and tc (iproute2), unshare and nsenter (util-linux)")
    started: list[subprocess.Popen] = []
    try:
        machines = [Machine(name, tmp_path / name, started) for name in ("node-a", "node-b")]
        try:
            machines[0].network(f"ip link add cable type veth peer name cable netns {machines[1].card.pid}")
            for number, machine in enumerate(machines, start=1):
                machine.network(f"ip addr add 10.77.0.{number}/24 dev cable && ip link set cable up")
            cut(machines)
            mend(machines)
        except subprocess.CalledProcessError as error:
            pytest.skip(f"no networks of containers here: {error}")
        yield machines
    finally:
        for process in reversed(started):
            process.kill()
            process.wait(timeout=30)


def cut(machines: list[Machine]) -> None:
    """From now on, what either side sends is lost."""
    for machine in machines:
        machine.network("tc qdisc add dev cable root blackhole")


def mend(machines: list[Machine]) -> None:
    for machine in machines:
        machine.network("tc qdisc del dev cable root")


def both(machines: list[Machine], *command: object) -> list[subprocess.Popen]:
    """The same command on both: a script with its flags, and before it more flags of torchrun."""
    torchrun = "torch.distributed.run --nnodes 2 --nproc_per_node 1 --rdzv_backend c10d --rdzv_endpoint node-a:29500"
    return [machine.start(sys.executable, "-m", *torchrun.split(), *command) for machine in machines]


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
    recovers = "--max_restarts 3 --rdzv_conf read_timeout=900".split()  # as docs/clusters.md has it
    flags = [*TRAIN, "--max_epochs", 3, "--run_dir", folder, "--resume", "auto"]
    jobs = both(machines, *recovers, ROOT / "pcnn_train.py", *flags)
    wait(lambda: epochs(folder), machines)
    cut(machines)
    time.sleep(1)
    reached = epochs(folder)
    time.sleep(4)
    assert epochs(folder) == reached < [1, 2, 3]
    mend(machines)
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
    wait(lambda: epochs(folder), machines)
    cut(machines)
    wait(lambda: all(job.poll() is not None for job in jobs), machines)
    assert [job.returncode for job in jobs] == [1, 1]
    steps = [stopped(machine.told(), folder) for machine in machines]
    assert abs(steps[0] - steps[1]) <= 1 and last_step(folder) == steps[0] >= 44

    mend(machines)
    jobs = both(machines, script, "--resume", folder)
    reached = epochs(folder)
    wait(lambda: epochs(folder) > reached, machines)
    machines[1].kill()
    wait(lambda: jobs[0].poll() is not None, machines)
    assert jobs[0].returncode == 1 and stopped(machines[0].told(), folder) == last_step(folder) > steps[0]
    assert f", after step {steps[0]}\n" in machines[0].told()

    reached = epochs(folder)
    alone = machines[0].start(sys.executable, "pcnn_train.py", "--resume", folder, "--max_epochs", len(reached) + 1)
    wait(lambda: alone.poll() is not None, machines)
    assert alone.returncode == 0 and epochs(folder) == list(range(1, len(reached) + 2))
