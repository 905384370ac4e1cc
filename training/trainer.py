"""The training loop: maximum likelihood of p(image | class)."""

import dataclasses
import os
import shlex
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data import DATASETS, ImageSet, load_split
from evaluation.evaluate import Evaluation, evaluate
from model import (
    PixelCNN,
    data_dependent_init,
    image_generators,
    load_any_checkpoint,
    read_checkpoint,
    sample,
)
from model import save_checkpoint as write_checkpoint
from plots.classification import plot_confusion_matrix
from plots.images import labelled_grid
from training.augmentation import augment, draw_shifts
from training.progress import Progress, Readout, means, mixed_seed, summary
from training.run_folder import RunFolder, refuse_place, reported
from training.samples import TrainingFID
from training.settings import TrainSettings
from training.step import TrainingStep
from training.tracking import Tracker
from utils.device import cudnn_benchmark, pick_device
from utils.distributed import all_max, main_first, rank, world_size
from utils.errors import UserError, reason
from utils.precision import pick_precision
from utils.signals import Interrupted, Interruption
from utils.text import printable

__all__ = ["Trainer", "build_network"]

MAX_SKIPPED = {"fp32": 5, "bf16": 5, "fp16": 30}  # steps in a row; loss scaling begins with some that overflow
STEPS_BETWEEN_TALKS = 10  # of several processes, about signals and the clock
STOP = 2  # their message is STOP x signal, or 1 for "save"


def build_network(settings: TrainSettings, image_channels: int, num_classes: int) -> PixelCNN:
    """A new network, or one with the weights of --load_params. Raises UserError, CheckpointError."""
    net = PixelCNN(
        settings.nr_resnet,
        settings.nr_filters,
        settings.nr_logistic_mix,
        image_channels,
        num_classes,
        settings.fusion,
        settings.dropout,
    )
    if settings.load_params:
        net.load_state_dict(load_start(settings, image_channels, num_classes).state_dict())
    return net


def load_start(settings: TrainSettings, image_channels: int, num_classes: int | None = None) -> PixelCNN:
    """The network of --load_params, whose settings are the run's; None where the number of classes is not known yet.

    Raises UserError, CheckpointError.
    """
    loaded = load_any_checkpoint(settings.load_params, num_classes or 1, settings.fusion)
    wanted = {name: getattr(settings, name) for name in ("nr_resnet", "nr_filters", "nr_logistic_mix", "fusion")}
    wanted |= {"image_channels": image_channels} | ({"num_classes": num_classes} if num_classes else {})
    for name, value in wanted.items():
        if loaded.settings[name] != value:
            raise UserError(
                f"--load_params {settings.load_params} has {name} {loaded.settings[name]}, this run has {value}; "
                "give the checkpoint's settings, or another checkpoint"
            )
    return loaded


class Trainer:
    """Everything a run holds; `run` trains to the end and returns the run's folder.

    The randomness of an epoch's order and of a step's dropout depends on the seed, the epoch or step, and the process
    alone, so that a run that was cut goes on as if it had not been.

    Args:
        settings: of the run.
        resumed: the folder of the run to go on with, as `training.resume` finds it.
    """

    def __init__(self, settings: TrainSettings, resumed: Path | None = None):
        self.settings = settings
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        if settings.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums in one order only so
        torch.use_deterministic_algorithms(settings.deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = False  # all of it is written before it is read
        if settings.cuda_graph and (self.device.type != "cuda" or world_size() > 1):
            raise UserError("--cuda_graph true needs a CUDA GPU and a single process; leave it out")
        started = resumed is not None and (resumed / "last.pt").exists()
        fresh = dataclasses.replace(settings, load_params=None) if started else settings
        channels = DATASETS[settings.dataset].channels
        if fresh.load_params:  # what can be found wrong before the images are read
            load_start(fresh, channels)
        if resumed is None and rank() == 0:
            refuse_place(settings)
        self.train_split = self._load("train")
        wrong = self.train_split.num_classes - 1
        if (settings.negatives or 0) > wrong:
            raise UserError(f"--negatives {settings.negatives}: an image has only {wrong} wrong classes here")
        self.validation = self._load("validation")
        for split, name in ((self.train_split, "training"), (self.validation, "validation")):
            if (split.labels < 0).any():
                raise UserError(f"{settings.dataset}: some {name} images have no class (label -1); remove them")
        self.image_size = tuple(self.train_split.images.shape[2:])
        torch.manual_seed(settings.seed)
        self.net = build_network(fresh, channels, self.train_split.num_classes).to(self.device)
        self.images = self.train_split.images.to(self.device)  # uint8: a whole set is small
        self.labels = self.train_split.labels.to(self.device)
        self.batch_size = min(settings.batch_size, len(self.labels) // world_size())  # of each process
        self.joint_batch = self.batch_size * world_size()
        self.steps_per_epoch = len(self.labels) // self.joint_batch
        if settings.init == "data" and not started:
            order, *_ = self.epoch_order(0)
            first = order[: max(64, self.batch_size)]
            data_dependent_init(self.net, self.images[first], self.labels[first])
        self.step = TrainingStep(self.net, settings, self.precision, self.steps_per_epoch * settings.max_epochs)
        self.progress = Progress(self.step.sums)
        self.best: tuple[float, float] | None = None  # (accuracy, -bpd)
        metrics = self.restore(resumed / "last.pt") if started else []
        self.folder = RunFolder(settings, resumed, metrics)
        self.tracker = Tracker()  # pcnn_train.py puts a W&B one here
        self.interruption = Interruption()
        self.saved = time.monotonic()

    def _load(self, split: str) -> ImageSet:
        settings = self.settings
        return main_first(lambda: load_split(settings.dataset, split, settings.image_size, settings.data_dir))

    @property
    def averaged(self) -> PixelCNN:
        """The network that is evaluated, sampled from and shipped."""
        return self.step.averaged

    def run(self) -> Path:
        """Train all epochs; returns the run's folder.

        Raises Interrupted after SIGTERM or Ctrl-C, when last.pt is written; UserError where training cannot go on.
        """
        with self.interruption:
            fid = TrainingFID(self.settings, self.validation, self.device) if rank() == 0 else None
            try:
                if self.progress.step == 0:
                    self.save_last()  # from now on the folder holds a checkpoint, whatever happens
                while self.progress.epoch <= self.settings.max_epochs:
                    self.run_epoch(fid)
            except Interrupted as stop:
                done = self.save_last()
                where = f"stopped in epoch {self.progress.epoch} after step {self.progress.step}"
                how = "" if done else " from the last checkpoint that could be written"
                how += f": python pcnn_train.py --resume {shlex.quote(printable(self.folder.path))}"
                raise Interrupted(stop.signum, f"{where}; to go on{how}") from None
        if rank() == 0 and not (self.folder.path / "best.pt").exists():
            raise UserError(f"no checkpoint could be written to {printable(self.folder.path)}; free some space")
        return self.folder.path

    def run_epoch(self, fid: TrainingFID | None) -> None:
        """The steps that are left of an epoch, then evaluation, checkpoints, samples and the report."""
        settings, epoch = self.settings, self.progress.epoch
        report = self.train_epoch()
        last = epoch == settings.max_epochs
        with self.interruption.promptly():  # all of it is done again on resume
            if last or epoch % settings.eval_interval == 0:
                evaluation = evaluate(self.averaged, self.validation, settings.precision)
                report |= {"val_bpd": evaluation.bpd, "accuracy": evaluation.accuracy}
                self.keep_best(evaluation, epoch)
            if last or epoch % settings.save_interval == 0:
                self.save_last()
            if fid and settings.sampling_interval and (last or epoch % settings.sampling_interval == 0):
                self.draw(epoch)
                report |= fid.measure(self.averaged)  # last: it may take minutes
        self.folder.report(**report)
        self.tracker.report(report)
        if rank() == 0:
            tqdm.write(summary(report, settings.max_epochs))
        self.progress = self.progress.next_epoch()

    def epoch_order(self, epoch: int) -> tuple[Tensor, Tensor, Tensor]:
        """An epoch's draws, the same in all processes: the order of its images, int64 [N], and by image number which
        are mirrored, bool [N], and how far each is moved, int64 [N, 2]."""
        generator = torch.Generator().manual_seed(mixed_seed(self.settings.seed, epoch))
        order = torch.randperm(len(self.labels), generator=generator)
        mirrored = torch.rand(len(self.labels), generator=generator) < 0.5
        shifts = draw_shifts(len(self.labels), self.image_size, generator)
        if self.settings.augment != "flip+shift":
            shifts.zero_()
        return order.to(self.device), mirrored.to(self.device), shifts.to(self.device)

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """This process's share of the images left in the epoch, in whole batches; the few left over change."""
        order, mirrored, shifts = self.epoch_order(self.progress.epoch)
        for start in range(self.progress.images, len(order) - self.joint_batch + 1, self.joint_batch):
            index = order[start:][rank() * self.batch_size :][: self.batch_size]
            images = self.images[index]
            if self.settings.augment != "none":
                images = augment(images, mirrored[index], shifts[index])
            yield images, self.labels[index]

    def train_epoch(self) -> dict[str, Any]:
        """The steps that are left of the epoch; returns what its report says of them.

        Raises Interrupted after the step in which a signal came; UserError when the numbers or the memory give out.
        """
        progress, settings = self.progress, self.settings
        self.net.train()
        readout = Readout(self.device)
        start = time.perf_counter() - progress.seconds
        bar = tqdm(
            total=self.steps_per_epoch,
            initial=progress.images // self.joint_batch,
            desc=f"epoch {progress.epoch}/{settings.max_epochs}",
            unit="step",
            leave=False,
            disable=None if rank() == 0 else True,
        )
        fixed_shapes = self.device.type == "cuda" and not settings.deterministic
        with bar, cudnn_benchmark(fixed_shapes):
            for images, labels in self.batches():
                self.stop_or_save()
                self.train_step(images, labels)
                progress.images += self.joint_batch
                progress.steps += 1
                progress.seconds = time.perf_counter() - start
                bar.update()
                if (sums := readout.read(progress.sums, progress.steps)) is not None:
                    self.check_numbers(sums)
                    bar.set_postfix(bpd=f"{means(sums, readout.steps)[0]:.3f}", refresh=False)
        self.stop_or_save()
        sums = progress.sums.tolist()
        self.check_numbers(sums)
        progress.seconds = time.perf_counter() - start  # the device has finished by now
        bpd, cross_entropy = means(sums, progress.steps)
        report = {
            "epoch": progress.epoch,
            "step": progress.step,
            "train_bpd": bpd,
            "lr": self.step.scheduler.get_last_lr()[0],
            "seconds": round(progress.seconds, 3),
            "images_per_second": round(progress.images / progress.seconds, 1),
        }
        if settings.discriminative_weight:
            report["train_cross_entropy"] = cross_entropy
        if sums[0]:
            report["skipped_steps"] = int(sums[0])
        return report

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step on a batch; returns its mean bits/dim."""
        bpd, _ = self.step(images, labels, mixed_seed(self.settings.seed, self.progress.step, 1 + rank()))
        self.progress.step += 1
        return bpd

    def check_numbers(self, sums: Sequence[float]) -> None:
        """Raise UserError if too many steps in a row were no numbers."""
        longest = int(sums[2])
        if longest >= MAX_SKIPPED[self.precision]:
            advice = "lower --lr, give it more --warmup, or --grad_clip 1"
            if self.precision != "fp32":
                advice += ", or take --precision fp32"
            raise UserError(
                f"epoch {self.progress.epoch}: the loss or its gradient was no finite number in {longest} steps in a "
                f"row; {advice}. The run is in {printable(self.folder.path)}"
            )

    def stop_or_save(self) -> None:
        """Between two steps: raise Interrupted if a signal came, to this process or another; save by the clock."""
        if self.progress.step % STEPS_BETWEEN_TALKS and world_size() > 1:
            return  # asking the other processes takes time
        due = time.monotonic() - self.saved > self.settings.save_minutes * 60 > 0
        if world_size() > 1:
            wish = all_max(max(int(due), STOP * (self.interruption.signum or 0)))
            due = wish % STOP
            self.interruption.signum = self.interruption.signum or wish // STOP or None
        self.interruption.check()
        if due:
            self.save_last()

    def keep_best(self, evaluation: Evaluation, epoch: int) -> None:
        """Write best.pt and confusion.png if this is the best validation accuracy so far (bits/dim decides a tie)."""
        score = (evaluation.accuracy, -evaluation.bpd)
        if self.best is None or score > self.best:
            saved = self.save("best.pt", epoch, validation={"accuracy": evaluation.accuracy, "bpd": evaluation.bpd})
            if not saved:
                return
            if rank() == 0:
                path = self.folder.path / "confusion.png"
                names = self.train_split.class_names
                with reported("confusion.png"):
                    plot_confusion_matrix(self.validation.labels, evaluation.predictions, names, path)
                    self.tracker.image("confusion", path, epoch)
            self.best = score  # last: what a signal cuts short is done again

    def save(self, name: str, epoch: int, **more: Any) -> bool:
        """Write a checkpoint; where that fails it is said, an earlier one stays, and the answer is False."""
        if rank() > 0:
            return True
        with reported(name):
            write_checkpoint(  # raises CheckpointError
                self.folder.path / name,
                self.net,
                ema=None if self.step.ema is None else self.averaged,
                image_size=self.image_size,
                class_names=self.train_split.class_names,
                dataset=self.settings.dataset,
                settings=dataclasses.asdict(self.settings),
                epoch=epoch,
                step=self.progress.step,
                **more,
            )
            return True
        return False

    def save_last(self) -> bool:
        """Write last.pt, with all that a run needs to go on from here; False where it could not be written."""
        self.saved = time.monotonic()
        return self.save(
            "last.pt",
            self.progress.epoch,
            **self.step.state(),
            progress=dataclasses.asdict(self.progress),
            best=None if self.best is None else list(self.best),
            metrics=self.folder.metrics,
        )

    def restore(self, path: Path) -> list[dict[str, Any]]:
        """Go back to the state in a last.pt; returns the reports up to there. Raises CheckpointError, UserError."""
        checkpoint = read_checkpoint(path)
        try:
            self.step.restore(checkpoint)
            progress = dict(checkpoint["progress"])
            self.step.sums.copy_(progress.pop("sums"))
            self.progress = Progress(self.step.sums, **progress)
            self.best = None if checkpoint["best"] is None else tuple(checkpoint["best"])
            return checkpoint["metrics"]
        except (KeyError, RuntimeError, TypeError, ValueError, AttributeError) as error:
            raise UserError(f"{printable(path)} does not hold a run to go on with: {reason(error)}") from None

    def draw(self, epoch: int) -> None:
        """Draw a grid of samples, one row a class; the same randomness at every epoch, so that grids compare."""
        classes = self.train_split.num_classes
        per_class = max(1, self.settings.sample_batch_size // classes)
        labels = torch.arange(classes).repeat_interleave(per_class)
        generators = image_generators(self.settings.seed, 0, len(labels))
        images = sample(self.averaged.eval(), labels, self.image_size, generators, progress=True)
        path = self.folder.samples / f"epoch_{epoch:04d}.png"
        labelled_grid(images.cpu(), labels, self.train_split.class_names, path)
        self.tracker.image("samples", path, epoch)
