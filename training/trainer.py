"""The training loop: maximum likelihood of p(image | class)."""

import dataclasses
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from tqdm import tqdm

from data import DATASETS, ImageSet, load_split
from model import PixelCNN, data_dependent_init, image_generators, load_any_checkpoint, log_likelihood, sample
from model import save_checkpoint as write_checkpoint
from training.cli import UserError, pick_device
from training.evaluation import Evaluation, bits_per_dim, evaluate
from training.fid import FID_NAMES
from training.fid_reference import TrainingFID
from training.optimization import make_optimizer, moving_average
from training.pictures import confusion_picture, labelled_grid
from training.precision import autocast, pick_precision
from training.run_folder import RunFolder
from training.settings import TrainSettings
from training.tracking import Tracker

__all__ = ["Trainer", "build_network"]


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
        loaded = load_any_checkpoint(settings.load_params, num_classes, settings.fusion)
        for name, value in net.settings.items():
            if name != "dropout" and loaded.settings[name] != value:
                raise UserError(
                    f"--load_params {settings.load_params} has {name} {loaded.settings[name]}, this run has {value}; "
                    "give the checkpoint's settings, or another checkpoint"
                )
        net.load_state_dict(loaded.state_dict())
    return net


class Trainer:
    """Everything a run holds; `run` trains to the end and returns the run's folder."""

    def __init__(self, settings: TrainSettings):
        self.settings = settings
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        torch.manual_seed(settings.seed)
        self.order = torch.Generator().manual_seed(settings.seed)  # of the images and their flips
        self.train_split = self._load("train")
        self.validation = self._load("validation")
        for split, name in ((self.train_split, "training"), (self.validation, "validation")):
            if (split.labels < 0).any():
                raise UserError(f"{settings.dataset}: some {name} images have no class (label -1); remove them")
        channels = DATASETS[settings.dataset].channels
        self.image_size = tuple(self.train_split.images.shape[2:])
        self.net = build_network(settings, channels, self.train_split.num_classes).to(self.device)
        self.images = self.train_split.images.to(self.device)  # uint8: a whole set is small
        self.labels = self.train_split.labels.to(self.device)
        self.batch_size = min(settings.batch_size, len(self.labels))
        if settings.init == "data":
            first = torch.randperm(len(self.labels), generator=self.order)[: max(64, self.batch_size)].to(self.device)
            data_dependent_init(self.net, self.images[first], self.labels[first])
        self.ema = moving_average(self.net, settings.ema) if settings.ema else None
        self.steps_per_epoch = len(self.labels) // self.batch_size
        total_steps = self.steps_per_epoch * settings.max_epochs
        self.optimizer, self.scheduler = make_optimizer(self.net, settings, total_steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.precision == "fp16")
        self.log_likelihood = partial(log_likelihood, self.net)
        if self.device.type == "cuda":
            torch.backends.cudnn.benchmark = True  # all batches have one shape
        if settings.compile or (settings.compile is None and self.device.type == "cuda"):
            torch._dynamo.config.suppress_errors = True  # what cannot be compiled here runs as it is
            self.log_likelihood = torch.compile(self.log_likelihood)
        self.step = 0
        self.best: tuple[float, float] | None = None  # (accuracy, -bpd)
        self.folder = RunFolder(settings)
        self.tracker = Tracker()  # pcnn_train.py puts a W&B one here

    def _load(self, split: str) -> ImageSet:
        return load_split(self.settings.dataset, split, self.settings.image_size, self.settings.data_dir)

    @property
    def averaged(self) -> PixelCNN:
        """The network that is evaluated, sampled from and shipped."""
        return self.net if self.ema is None else self.ema.module

    def run(self) -> Path:
        """Train all epochs; returns the run's folder."""
        settings = self.settings
        fid = TrainingFID(settings, self.validation, self.device)
        for epoch in range(1, settings.max_epochs + 1):
            start = time.perf_counter()
            train_bpd = self.train_epoch(epoch)
            seconds = time.perf_counter() - start
            report = {
                "epoch": epoch,
                "step": self.step,
                "train_bpd": train_bpd,
                "lr": self.scheduler.get_last_lr()[0],
                "seconds": round(seconds, 3),
                "images_per_second": round(self.steps_per_epoch * self.batch_size / seconds, 1),
            }
            last = epoch == settings.max_epochs
            if last or epoch % settings.eval_interval == 0:
                evaluation = evaluate(self.averaged, self.validation, self.precision)
                report |= {"val_bpd": evaluation.bpd, "accuracy": evaluation.accuracy}
                self.keep_best(evaluation, epoch)
            if last or epoch % settings.save_interval == 0:
                self.save(
                    "last.pt", epoch, optimizer=self.optimizer.state_dict(), scheduler=self.scheduler.state_dict()
                )
            if settings.sampling_interval and (last or epoch % settings.sampling_interval == 0):
                self.draw(epoch)
                report |= fid.measure(self.averaged)  # last: it may take minutes
            self.folder.report(**report)
            self.tracker.report(report)
            tqdm.write(summary(report, settings.max_epochs))
        return self.folder.path

    def batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The training images once, in a new order, in whole batches (the few left over change every epoch)."""
        order = torch.randperm(len(self.labels), generator=self.order)
        mirrored = torch.rand(len(self.labels), generator=self.order) < 0.5
        order, mirrored = order.to(self.device), mirrored.to(self.device)
        for index in order.split(self.batch_size)[: self.steps_per_epoch]:
            images = self.images[index]
            if self.settings.augment == "flip":
                images = torch.where(mirrored[index][:, None, None, None], images.flip(3), images)
            yield images, self.labels[index]

    def train_epoch(self, epoch: int) -> float:
        """One pass over the training images; returns the mean bits/dim over its steps. UserError if it is no number."""
        self.net.train()
        total = torch.zeros((), device=self.device)
        running = Readout(self.device)
        title = f"epoch {epoch}/{self.settings.max_epochs}"
        with tqdm(total=self.steps_per_epoch, desc=title, unit="step", leave=False, disable=None) as bar:
            for count, (images, labels) in enumerate(self.batches(), 1):
                total += self.train_step(images, labels)
                bar.update()
                if (mean := running.read(total, count)) is not None:
                    bar.set_postfix(bpd=f"{mean:.3f}", refresh=False)
        mean = total.item() / self.steps_per_epoch
        if not math.isfinite(mean):
            raise UserError(f"epoch {epoch}: the training loss is {mean}; lower --lr, or give it more --warmup")
        return mean

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step of Adam on the mean bits/dim of a batch, which is returned."""
        with autocast(self.precision, self.device):
            log_p = self.log_likelihood(images, labels)
        loss = bits_per_dim(-log_p.mean(), tuple(images.shape[1:]))
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.net)
        self.step += 1
        return loss.detach()

    def keep_best(self, evaluation: Evaluation, epoch: int) -> None:
        """Write best.pt and confusion.png if this is the best validation accuracy so far (bits/dim decides a tie)."""
        score = (evaluation.accuracy, -evaluation.bpd)
        if self.best is None or score > self.best:
            self.best = score
            self.save("best.pt", epoch, validation={"accuracy": evaluation.accuracy, "bpd": evaluation.bpd})
            path = self.folder.path / "confusion.png"
            names = self.train_split.class_names
            confusion_picture(self.validation.labels, evaluation.predictions, names, path)
            self.tracker.image("confusion", path, epoch)

    def save(self, name: str, epoch: int, **more) -> None:
        write_checkpoint(
            self.folder.path / name,
            self.net,
            ema=None if self.ema is None else self.averaged,
            image_size=self.image_size,
            class_names=self.train_split.class_names,
            dataset=self.settings.dataset,
            settings=dataclasses.asdict(self.settings),
            epoch=epoch,
            step=self.step,
            **more,
        )

    def draw(self, epoch: int) -> None:
        """Draw a grid of samples, one row a class; the same randomness at every epoch, so that grids compare."""
        classes = self.train_split.num_classes
        per_class = max(1, self.settings.sample_batch_size // classes)
        labels = torch.arange(classes).repeat_interleave(per_class)
        net = self.averaged.eval()
        with autocast(self.precision, self.device):
            generators = image_generators(self.settings.seed, 0, len(labels))
            images = sample(net, labels, self.image_size, generators, progress=True)
        path = self.folder.samples / f"epoch_{epoch:04d}.png"
        labelled_grid(images.cpu(), labels, self.train_split.class_names, path)
        self.tracker.image("samples", path, epoch)


class Readout:
    """The mean of a sum that grows on the device, read now and then without waiting for the device."""

    EVERY = 20  # steps

    def __init__(self, device: torch.device):
        cuda = device.type == "cuda"
        self.copy = torch.empty((), pin_memory=cuda)
        self.copied = torch.cuda.Event() if cuda else None
        self.count = 0  # steps in the copy, 0 when none is on its way

    def read(self, total: Tensor, count: int) -> float | None:
        """The mean of some steps ago, once, when it has arrived."""
        if not self.count and count % self.EVERY == 0:
            self.copy.copy_(total, non_blocking=True)
            self.count = count
            if self.copied:
                self.copied.record()
        if not self.count or (self.copied and not self.copied.query()):
            return None
        mean, self.count = self.copy.item() / self.count, 0
        return mean


def summary(report: dict, max_epochs: int) -> str:
    """A report as one line for the terminal."""
    line = f"epoch {report['epoch']}/{max_epochs}  train {report['train_bpd']:.3f}"
    if "val_bpd" in report:
        line += f"  validation {report['val_bpd']:.3f} bits/dim, accuracy {report['accuracy']:.4f}"
    for name in FID_NAMES:
        if name in report:
            line += f", {name} {report[name]:.2f}"
    return f"{line}  lr {report['lr']:.2e}  {report['seconds']:.1f} s"
