"""One folder per run: config.yaml, metrics.jsonl, last.pt, best.pt, samples/, curves.png, confusion.png."""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any

import yaml
from matplotlib.figure import Figure

from training.cli import UserError
from training.fid import FID_NAMES
from training.pictures import replacing
from training.settings import TrainSettings

__all__ = ["RunFolder", "draw_curves"]


class RunFolder:
    """Makes the run's folder and writes what is known at the start. Raises UserError if it cannot."""

    def __init__(self, settings: TrainSettings):
        if settings.run_dir is not None:
            self.path = Path(settings.run_dir)
        else:
            words = [
                settings.dataset,
                f"r{settings.nr_resnet}_f{settings.nr_filters}_m{settings.nr_logistic_mix}",
                settings.tag,
                time.strftime("%Y%m%d-%H%M%S"),
            ]
            name = "_".join(word for word in words if word)
            names = (name, *(f"{name}_{count}" for count in range(2, 1000)))  # trials may start in the same second
            self.path = next(path for path in (Path(settings.save_dir, name) for name in names) if not path.exists())
        self.samples = Path(settings.sample_dir) if settings.sample_dir else self.path / "samples"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            if any(self.path.iterdir()):
                raise UserError(f"{self.path} is not empty; give a new folder, so that no earlier run is lost")
            self.samples.mkdir(parents=True, exist_ok=True)
            (self.path / "config.yaml").write_text(yaml.safe_dump(dataclasses.asdict(settings), sort_keys=False))
        except OSError as error:
            raise UserError(f"cannot write the run to {self.path}: {error.strerror or error}") from None
        self.metrics: list[dict[str, Any]] = []

    def report(self, **values: Any) -> None:
        """Append a report to metrics.jsonl and redraw curves.png."""
        self.metrics.append(values)
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps(values) + "\n")
        draw_curves(self.metrics, self.path / "curves.png")


def draw_curves(metrics: list[dict[str, Any]], path: Path) -> None:
    """curves.png: bits/dim, validation accuracy and, where it was measured, FID against epochs."""
    distances = [name for name in FID_NAMES if any(name in report for report in metrics)]
    panels = [
        ("bits per dimension", {"train_bpd": "train (with dropout)", "val_bpd": "validation"}),
        ("validation accuracy", {"accuracy": None}),
        *((name.replace("_", " "), {name: None}) for name in distances),
    ]
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    for axes, (title, lines) in zip(figure.subplots(1, len(panels)), panels, strict=True):
        for key, label in lines.items():
            points = [(report["epoch"], report[key]) for report in metrics if key in report]
            if points:
                axes.plot(*zip(*points, strict=True), marker=".", label=label)
        axes.set(xlabel="epoch", ylabel=title, ylim=(0, 1) if "accuracy" in lines else None)
        axes.grid(alpha=0.3)
        if len(lines) > 1 and axes.lines:
            axes.legend()
    with replacing(path) as partial:
        figure.savefig(partial, dpi=100, format="png")
