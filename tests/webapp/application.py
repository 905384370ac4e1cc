"""Folders of runs, and app.py as a process of its own."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import torch
import yaml

from plots.classification import plot_confusion_matrix
from plots.images import labelled_grid

ROOT = Path(__file__).resolve().parents[2]


def write_run(folder: Path, epochs: int, lr: float) -> Path:
    """A folder as training leaves it."""
    (folder / "samples").mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({"dataset": "digits", "lr": lr, "select_on": "validation"}))
    reports = [{"epoch": e, "train_bpd": 4 - e / 9, "val_bpd": 4 - e / 8, "accuracy": e / 10, "lr": lr}
               for e in range(1, epochs + 1)]  # fmt: skip
    (folder / "metrics.jsonl").write_text("".join(json.dumps(report) + "\n" for report in reports))
    for epoch in range(1, epochs + 1):
        images = torch.full((4, 1, 8, 8), 10 * epoch, dtype=torch.uint8)
        labelled_grid(images, torch.tensor([0, 0, 1, 1]), ["a", "b"], folder / "samples" / f"epoch_{epoch:04d}.png")
    plot_confusion_matrix([0, 1], [0, 0], ["a", "b"], folder / "confusion.png")
    return folder


def write_runs(folder: Path) -> Path:
    """Two runs below ``folder``: of 3 epochs, and of 5."""
    write_run(folder / "first", 3, 0.1)
    write_run(folder / "sweep" / "trial_0001", 5, 0.2)
    return folder


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start_app(temporary: Path, *arguments: object) -> tuple[subprocess.Popen, str]:
    """app.py as a user starts it, with its files below ``temporary``: the process and its address."""
    command = [sys.executable, str(ROOT / "app.py"), "--port", str(free_port()), *map(str, arguments)]
    environment = os.environ | {"TMPDIR": str(temporary)}
    environment.pop("GRADIO_TEMP_DIR", None)
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
    line = process.stdout.readline()
    address = re.search(r"http://[^ ]+", line)
    assert address, line
    return process, address[0]
