"""Several processes of torchrun (Gloo, on the CPU) against one."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from data import load_split
from evaluation.evaluate import evaluate
from evaluation.scoring import Scorer
from evaluation.typicality import typicality_reference
from model import PixelCNN, load_checkpoint, save_checkpoint
from tests.runs import reports

ROOT = Path(__file__).resolve().parents[1]
RUN = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --dropout 0 --precision fp32 --lr 0.003 "
    "--sampling_interval 0 --fid_samples 0 --max_epochs 2 --device cpu"
).split()
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
GRADIENT = """
import sys, torch
from utils.distributed import process_group, rank
from training.settings import TrainSettings
from training.trainer import Trainer
size, out, weight = int(sys.argv[1]), sys.argv[2], float(sys.argv[3])
with process_group():
    trainer = Trainer(TrainSettings(dataset="digits", nr_resnet=1, nr_filters=8, nr_logistic_mix=2, dropout=0.0,
        batch_size=size, precision="fp32", device="cpu", run_dir=out, discriminative_weight=weight))
    trainer.net.train()
    trainer.step.loss(*next(trainer.batches.epoch(1)))[0].backward()
    if rank() == 0:
        torch.save([p.grad for p in trainer.net.parameters()], out + ".pt")
"""

MUON = """
import sys, torch
from utils.distributed import gather, process_group, rank
from training.settings import TrainSettings
from training.trainer import Trainer
with process_group():
    trainer = Trainer(TrainSettings(dataset="digits", nr_resnet=1, nr_filters=8, nr_logistic_mix=2, batch_size=8,
        precision="fp32", device="cpu", run_dir=sys.argv[1], optimizer="muon", lr=0.01))
    trainer.net.train()
    start = [p.detach().clone() for p in trainer.net.parameters()]
    for seed, (images, labels) in zip(range(3), trainer.batches.epoch(1)):
        trainer.step(images, labels, seed + 10 * rank())
    after = gather([p.detach() for p in trainer.net.parameters()])
    if rank() == 0:
        assert len(after) == 2 and all(map(torch.equal, *after))
        print("changed", sum(not torch.equal(*pair) for pair in zip(start, after[0])), "of", len(start))
"""


@pytest.fixture
def environment(tmp_path) -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


def run(command, environment, status=0):
    done = subprocess.run([*map(str, command)], env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == status, done.stdout + done.stderr
    return done


@pytest.mark.parametrize("weight", [0.0, 0.5])
def test_gradients_are_those_of_the_joint_batch(weight, environment, tmp_path):
    script = tmp_path / "gradient.py"
    script.write_text(GRADIENT)
    run([*TORCHRUN, script, 8, tmp_path / "two", weight], environment)
    run([sys.executable, script, 16, tmp_path / "one", weight], environment)
    two, one = (torch.load(tmp_path / f"{name}.pt") for name in ("two", "one"))
    assert max(gradient.abs().max() for gradient in one) > 0.01
    for ours, theirs in zip(two, one, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def test_weights_that_muon_updates_stay_equal(environment, tmp_path):
    script = tmp_path / "muon.py"
    script.write_text(MUON)
    done = run([*TORCHRUN, script, tmp_path / "run"], environment)
    changed, count = map(int, done.stdout.removeprefix("changed ").split(" of "))
    assert changed > 0.9 * count


def test_two_processes_train_and_any_number_goes_on(environment, tmp_path):
    """2 processes, then 1, then 2: each image is evaluated once, one process writes, and the epochs follow."""
    folder = tmp_path / "run"
    two = run([*TORCHRUN, ROOT / "pcnn_train.py", *RUN, "--batch_size", 64, "--run_dir", folder], environment)
    assert two.stdout.count("run folder:") == 1
    first = reports(folder)
    assert [report["epoch"] for report in first] == [1, 2] and [r["step"] for r in first] == [11, 22]
    evaluation = evaluate(load_checkpoint(folder / "last.pt"), load_split("digits", "validation"))
    assert first[-1]["accuracy"] == evaluation.accuracy
    assert first[-1]["val_bpd"] == pytest.approx(evaluation.bpd, abs=1e-5)

    one = tmp_path / "one"
    run([sys.executable, ROOT / "pcnn_train.py", *RUN, "--batch_size", 128, "--run_dir", one], environment)
    for ours, theirs in zip(first, reports(one), strict=True):  # the same batches, summed in another order
        assert ours["train_bpd"] == pytest.approx(theirs["train_bpd"], abs=2e-3)

    run([sys.executable, ROOT / "pcnn_train.py", "--resume", folder, "--max_epochs", 3], environment)
    run([*TORCHRUN, ROOT / "pcnn_train.py", "--resume", folder, "--max_epochs", 4], environment)
    last = reports(folder)
    assert [report["epoch"] for report in last] == [1, 2, 3, 4]
    assert [report["step"] for report in last] == [11, 22, 22 + 22, 22 + 22 + 11]
    for ours, theirs in zip(last, first, strict=False):  # an epoch that is reported again says the same
        assert ours["train_bpd"] == theirs["train_bpd"]
    assert [report["train_bpd"] for report in last] == sorted((report["train_bpd"] for report in last), reverse=True)
    assert last[-1]["val_bpd"] < first[-1]["val_bpd"]


def test_two_processes_evaluate_the_validation_images_at_the_end(environment, tmp_path):
    """The main process reads best.pt, and each has its weights."""
    folder = tmp_path / "run"
    flags = [*RUN, "--batch_size", 64, "--select_on", "holdout", "--run_dir", folder]
    two = run([*TORCHRUN, ROOT / "pcnn_train.py", *flags], environment)
    *_, final = reports(folder)
    best, validation = load_checkpoint(folder / "best.pt"), load_split("digits", "validation")
    evaluation = evaluate(best, validation)
    assert (final["validation_accuracy"], final["validation_images"]) == (evaluation.accuracy, 360)
    assert final["validation_bpd"] == pytest.approx(evaluation.bpd, abs=1e-5)
    assert two.stdout.count("best.pt on the validation images: ") == 1
    (folder / "best.pt").unlink()
    again = run([*TORCHRUN, ROOT / "pcnn_train.py", "--resume", folder], environment)
    assert again.stderr.count("the validation images are not evaluated") == 1


def start(command, environment, until) -> subprocess.Popen:
    """Start a command, and wait until ``until()`` is true."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    process = subprocess.Popen([*map(str, command)], env=environment, cwd=ROOT, **options)
    end = time.monotonic() + 120
    while not until():
        assert process.poll() is None and time.monotonic() < end
        time.sleep(0.05)
    return process


def worker(torchrun: subprocess.Popen, number: int) -> int:
    """The process id of one of torchrun's processes."""
    for child in Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split():
        if f"\0RANK={number}\0" in Path(f"/proc/{child}/environ").read_text():
            return int(child)
    raise AssertionError("torchrun has no such process")


def test_what_ends_a_run_early_saves_and_it_ends_as_if_it_had_not_come(environment, tmp_path):
    """SIGTERM to torchrun, then SIGKILL to the process that does not save."""
    whole, folder = tmp_path / "whole", tmp_path / "run"
    flags = [*RUN, "--batch_size", "16", "--dropout", "0.2", "--max_epochs", "4"]
    run([*TORCHRUN, ROOT / "pcnn_train.py", *flags, "--run_dir", whole], environment)

    command = [*TORCHRUN, ROOT / "pcnn_train.py", *flags, "--run_dir", folder]
    process = start(command, environment, (folder / "last.pt").exists)
    time.sleep(1)
    process.send_signal(signal.SIGTERM)
    told = process.communicate(timeout=400)[0]
    assert process.returncode != 0 and f"--resume {folder}" in told

    def epochs() -> int:
        return len(reports(folder)) if (folder / "metrics.jsonl").exists() else 0

    command, reached = [*TORCHRUN, ROOT / "pcnn_train.py", "--resume", folder], epochs()
    process = start(command, environment, lambda: epochs() > reached)
    os.kill(worker(process, 1), signal.SIGKILL)
    told = process.communicate(timeout=400)[0]
    assert process.returncode == 1 and "[rank0]: Traceback" not in told
    (line,) = (line for line in told.splitlines() if f"; to resume: python pcnn_train.py --resume {folder}" in line)
    saved = torch.load(folder / "last.pt", weights_only=True)["step"]
    assert f"after step {saved};" in line and saved >= reports(folder)[-1]["step"]

    run(command, environment)
    ours, theirs = (torch.load(path / "last.pt", weights_only=True)["weights"] for path in (folder, whole))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    for key in ("epoch", "step", "train_bpd", "val_bpd", "accuracy"):
        assert [report[key] for report in reports(folder)] == [report[key] for report in reports(whole)]


@pytest.fixture
def checkpoint(tmp_path) -> Path:
    torch.manual_seed(0)
    net, images = PixelCNN(1, 4, 1, 1, 10), load_split("digits", "validation").images
    about = {"image_size": (8, 8), "class_names": tuple("0123456789"), "dataset": "digits"}
    about["typicality"] = typicality_reference(images, Scorer(net, "fp32")(images))
    save_checkpoint(tmp_path / "net.pt", net, **about)
    return tmp_path / "net.pt"


def test_labels_are_those_of_one_process_in_order(checkpoint, environment, tmp_path):
    flags = ["--checkpoint", checkpoint, "--dataset", "digits", "--precision", "fp32", "--reject", 0.25, "--batch_size"]
    script = ROOT / "classify.py"
    run([sys.executable, script, *flags, 50, "--out", tmp_path / "one.csv"], environment)
    two = run([*TORCHRUN, script, *flags, 50, "--out", tmp_path / "two.csv"], environment)
    assert (tmp_path / "two.csv").read_bytes() == (tmp_path / "one.csv").read_bytes()
    with open(tmp_path / "two.csv") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 360  # the last batch is no whole one
    assert 80 < [row["label"] for row in table].count("-1") <= 90 and "rejected (typicality below 0.25)" in two.stdout
    assert two.stdout.count("images classified") == two.stdout.count("macro F1") == 1


def test_draws_are_those_of_one_process(checkpoint, environment, tmp_path):
    flags = ["--checkpoint", checkpoint, "--per_class", 3, "--classes", 4, 7, 2, "--out"]
    run([sys.executable, ROOT / "generate.py", *flags, tmp_path / "one"], environment)
    two = run([*TORCHRUN, ROOT / "generate.py", *flags, tmp_path / "two"], environment)
    files = sorted(file.name for file in (tmp_path / "one").iterdir())
    assert len(files) == 9 and sorted(file.name for file in (tmp_path / "two").iterdir()) == files
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert (tmp_path / "one_grid.png").read_bytes() == (tmp_path / "two_grid.png").read_bytes()
    assert two.stdout.count("images of each of 3 classes") == 1


def test_a_mistake_under_torchrun_is_told(environment, tmp_path):
    done = run([*TORCHRUN, ROOT / "pcnn_train.py", "--dataset", "digits", "--fusion", "later"], environment, status=1)
    assert "error: " in done.stderr and "fusion" in done.stderr
