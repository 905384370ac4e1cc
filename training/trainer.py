"""The training loop."""

import dataclasses
import os
import shlex
import time
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from data import DATASETS
from evaluation.evaluate import Evaluation, evaluate
from evaluation.metrics import best_key, ranking
from evaluation.predictions import warn_unconditional
from evaluation.protocol import IMAGES
from evaluation.typicality import Files, lossless_files, typicality_reference
from model import data_dependent_init, save_checkpoint
from plots.classification import plot_confusion_matrix
from plots.images import labelled_grid
from training.batches import Batches, load_splits, mixed_seed
from training.final_evaluation import evaluate_best
from training.network import build_network, load_initial_weights
from training.progress import Readout, epoch_line
from training.resumed_images import image_list
from training.run_folder import RunFolder, tolerate_write_errors
from training.samples import TrainingSamples
from training.settings import TrainSettings, check_settings, without_effect
from training.state import TrainingState
from training.step import StepSums, TrainingStep
from training.teacher import Teacher
from training.tracking import Tracker
from utils.console import notify
from utils.device import cudnn_benchmark, pick_device
from utils.distributed import all_max, is_loss, loss_message, rank, world_size
from utils.errors import UserError
from utils.precision import pick_precision
from utils.signals import Interrupted, Interruption
from utils.text import printable

MAX_SKIPPED = {"fp32": 5, "bf16": 5, "fp16": 30}  # steps in a row; loss scaling begins with some that overflow
STEPS_BETWEEN_AGREEMENTS = 10  # of several processes, about signals and the clock


class Trainer:
    """A network, its data and its state; nothing is written before `run`, which trains to the end.

    The randomness of an epoch's order and of a step's dropout depends on the seed, the epoch or step, and the process
    alone, so that a resumed run continues as if it had not been interrupted.

    Args:
        settings: of the run.
        resumed: the folder of the run to resume, as `training.resume.find_run` finds it.

    Raises UserError, DataError, CheckpointError.
    """

    def __init__(self, settings: TrainSettings, resumed: Path | None = None):
        self.settings = settings
        self.device = pick_device(settings.device)
        self.precision = pick_precision(settings.precision, self.device)
        configure_torch(settings.deterministic)
        if settings.cuda_graph and (self.device.type != "cuda" or world_size() > 1):
            raise UserError("--cuda_graph true needs a CUDA GPU and a single process; leave it out")
        check_settings(settings)
        # lexists: a link to a disk that is not mounted is no new run
        last = resumed / "last.pt" if resumed is not None and os.path.lexists(resumed / "last.pt") else None
        load_params = settings.load_params if last is None else None
        channels = DATASETS[settings.dataset].channels
        if load_params:
            load_initial_weights(load_params, settings, channels)  # a mistake is reported before the images are read
        teacher = None
        if settings.teacher and settings.discriminative_weight:
            teacher = Teacher(settings.teacher, self.device)
        self.train_split, self.selection, self.validation = splits = load_splits(settings)
        if teacher:
            teacher.match(self.train_split, settings)
        self.image_list = image_list(*dict.fromkeys(splits))  # one of them may be there twice
        self.batches = Batches(self.train_split, settings, self.device)
        torch.manual_seed(settings.seed)
        self.net = build_network(settings, channels, self.train_split.class_names, load_params).to(self.device)
        if teacher:
            self.net.metadata |= teacher.metadata()
        if settings.init == "data" and last is None and not load_params:
            data_dependent_init(self.net, *self.batches.first(max(64, self.batches.batch_size)))
        if rank() == 0 and (ignored := without_effect(settings)):
            notify(f"no effect without --discriminative_weight: {', '.join(ignored)}")
        first = printable(self.train_split.class_names[0])
        warn_unconditional(self.net, f"labels mean nothing, accuracy is the share of the first class, {first}")
        total_steps = self.batches.per_epoch * settings.max_epochs
        self.step = TrainingStep(self.net, settings, self.precision, total_steps, teacher)
        if self.step.uncompiled is not None and rank() == 0:
            notify("the first step compiles the network, which takes one to several minutes (--compile false: none)")
        self.state = TrainingState(self.step)
        if last is not None:
            self.state.restore(last, self.train_split.class_names, self.image_list)
            if self.state.best is None and self.state.epoch > settings.max_epochs:
                raise UserError(
                    f"--max_epochs {settings.max_epochs}: the run in {printable(last.parent)} is in epoch "
                    f"{self.state.epoch} and has no best.pt yet; give at least {self.state.epoch}"
                )
        self.interruption = Interruption()

    def run(self, folder: RunFolder, tracker: Tracker | None = None) -> None:
        """Train all epochs that are left.

        Raises Interrupted after SIGTERM, SIGHUP or Ctrl-C, and UserError where another process is lost, when last.pt is
        written; UserError where training cannot continue.
        """
        self.folder, self.tracker = folder, tracker or Tracker()
        self.last_save = time.monotonic()
        state = self.state
        with self.interruption:
            samples = TrainingSamples(self.settings, self.selection, self.device) if rank() == 0 else None
            try:
                if state.total_steps == 0:
                    self.save_last()  # from now on the folder holds a checkpoint, whatever happens
                if state.epoch > self.settings.max_epochs:  # resumed, with fewer of them
                    self.finish()
                while state.epoch <= self.settings.max_epochs:
                    self.run_epoch(samples)
            except Interrupted as stop:
                raise Interrupted(stop.signum, self.save_and_stop()) from None
            except RuntimeError as error:
                if not is_loss(error):
                    raise
                # no weight has changed in a step that waits for other processes
                raise UserError(f"{loss_message(error)}; {self.save_and_stop()}") from None
        if rank() == 0 and state.best is None:
            raise UserError(f"no checkpoint could be written to {printable(folder.path)}; free some space")

    def save_and_stop(self) -> str:
        """Write last.pt; returns where training stopped and how to resume it."""
        state, folder = self.state, printable(self.folder.path)
        saved = "" if self.save_last() else " from the last checkpoint that could be written"
        command = f"python pcnn_train.py --resume {shlex.quote(folder)}"
        return f"stopped at epoch {state.epoch} after step {state.total_steps}; to resume{saved}: {command}"

    def run_epoch(self, samples: TrainingSamples | None) -> None:
        """The steps that are left of an epoch, then evaluation, checkpoints, samples and the report."""
        settings, epoch = self.settings, self.state.epoch
        last = epoch == settings.max_epochs
        report = self.train_epoch()
        with self.interruption.promptly():  # all of it is repeated on resume
            if last or epoch % settings.eval_interval == 0:
                report |= self.evaluate(epoch)
            if last or epoch % settings.save_interval == 0:
                self.save_last()
            if last:
                report |= self.validate()
            if samples and settings.sampling_interval and (last or epoch % settings.sampling_interval == 0):
                report |= self.draw_samples(samples, epoch)  # last: FID may take minutes
        self.state.next_epoch(report)
        self.folder.write_reports(self.state.reports)
        self.tracker.report(report)
        if rank() == 0:
            tqdm.write(epoch_line(report, settings.max_epochs, IMAGES[settings.select_on]))

    def finish(self) -> None:
        """What is left of a run where no epoch is: the evaluation of the validation images."""
        with self.interruption.promptly():
            measured = self.validate()
        for report in self.state.reports[-1:] if measured else ():
            report |= measured
            self.folder.write_reports(self.state.reports)
            self.tracker.report(report)

    def train_epoch(self) -> dict[str, Any]:
        """The steps that are left of the epoch; returns its report.

        Raises Interrupted after the step in which a signal came; UserError where training diverges or memory runs out.
        """
        state, batches = self.state, self.batches
        self.net.train()
        readout = Readout(self.device)
        bar = tqdm(
            total=batches.per_epoch,
            initial=state.epoch_images // batches.joint_batch,
            desc=f"epoch {state.epoch}/{self.settings.max_epochs}",
            unit="step",
            leave=False,
            disable=None if rank() == 0 else True,
        )
        state.start_clock()
        with bar, cudnn_benchmark(self.device.type == "cuda" and not self.settings.deterministic):
            for images, labels in batches.epoch(state.epoch, state.epoch_images):
                self.stop_or_save()
                self.train_step(images, labels)
                bar.update()
                if (sums := readout.read(self.step.sums, state.epoch_steps)) is not None:
                    self.check_finite(sums)
                    bar.set_postfix(bpd=f"{sums.means(readout.steps)[0]:.3f}", refresh=False)
        self.stop_or_save()
        return self.epoch_report()

    def train_step(self, images: Tensor, labels: Tensor) -> Tensor:
        """One step on a batch of this process; returns its mean bits/dim.

        A step with a non-finite gradient leaves weights and optimiser moments as they are. It counts as a step all the
        same: learning rate, moving average and position in the epoch advance.
        """
        bpd, _ = self.step(images, labels, mixed_seed(self.settings.seed, self.state.total_steps, 1 + rank()))
        self.state.advance(self.batches.joint_batch)
        return bpd

    def epoch_report(self) -> dict[str, Any]:
        """What is known of an epoch after its last step. Raises UserError where training diverged."""
        state = self.state
        sums = StepSums(*self.step.sums.tolist())
        self.check_finite(sums)
        state.stop_clock()  # the device has finished by now
        bpd, cross_entropy = sums.means(state.epoch_steps)
        report = {
            "epoch": state.epoch,
            "step": state.total_steps,
            "train_bpd": bpd,
            "lr": self.step.scheduler.get_last_lr()[0],
            "seconds": round(state.epoch_seconds, 3),
            "images_per_second": round(state.epoch_images / state.epoch_seconds, 1),
        }
        if self.settings.discriminative_weight:
            report["train_cross_entropy"] = cross_entropy
        if sums.skipped:
            report["skipped_steps"] = int(sums.skipped)
        return report

    def check_finite(self, sums: StepSums) -> None:
        """Raise UserError if too many steps in a row were skipped."""
        longest = int(sums.longest_streak)
        if longest >= MAX_SKIPPED[self.precision]:
            advice = "lower --lr, increase --warmup, or use --grad_clip 1"
            if self.precision != "fp32":
                advice += ", or use --precision fp32"
            raise UserError(
                f"epoch {self.state.epoch}: the loss or its gradient was non-finite in {longest} steps in a row; "
                f"{advice}. The run is in {printable(self.folder.path)}"
            )

    def stop_or_save(self) -> None:
        """Between two steps: raise Interrupted if a signal came, to this process or another; save by the clock."""
        if self.state.total_steps % STEPS_BETWEEN_AGREEMENTS and world_size() > 1:
            return  # asking the other processes takes time
        late = time.monotonic() - self.last_save > self.settings.save_minutes * 60 > 0
        signum, due = all_max(self.interruption.signum or 0, int(late))
        self.interruption.signum = signum or None
        self.interruption.check()
        if due:
            self.save_last()

    def evaluate(self, epoch: int) -> dict[str, float]:
        """Metrics of all images of --select_on; the best network so far is written to best.pt."""
        evaluation = evaluate(self.step.averaged, self.selection, self.settings.precision)
        scores = {name: getattr(evaluation, name) for name in ("accuracy", "balanced_accuracy", "f1")}
        report = {"val_bpd": evaluation.bpd, **scores}
        rank_of_this = ranking({"epoch": epoch} | report, *best_key(self.settings.best_metric))
        images = {"split": self.settings.select_on, "images": len(self.selection)}
        validation = {"bpd": evaluation.bpd, **scores, **images}
        better = self.state.best is None or rank_of_this > self.state.best
        if better and self.save_best(evaluation, validation, epoch):
            self.state.best = rank_of_this  # last: what a signal interrupts is repeated
        return report

    def validate(self) -> dict[str, float]:
        """With --select_on holdout, what the last report says of the validation images."""
        if self.settings.select_on == "validation":
            return {}
        return evaluate_best(self.folder.path / "best.pt", self.net, self.validation, self.settings.precision)

    @cached_property
    def selection_files(self) -> Files:
        """The images of --select_on as lossless files, which each best.pt needs."""
        return lossless_files(self.selection.images)

    def save_best(self, evaluation: Evaluation, validation: dict[str, Any], epoch: int) -> bool:
        """Write best.pt and confusion.png; False where best.pt could not be written."""
        images, nats = self.selection.images, evaluation.log_likelihoods
        typicality = typicality_reference(images, nats, self.selection_files) if rank() == 0 else None
        if not self.save("best.pt", epoch, validation=validation, typicality=typicality):
            return False
        if rank() == 0:
            path, names = self.folder.path / "confusion.png", self.train_split.class_names
            with tolerate_write_errors("confusion.png"):
                truth, predicted = self.selection.labels.tolist(), evaluation.predictions.tolist()
                plot_confusion_matrix(truth, predicted, names, path)
                self.tracker.image("confusion", path, epoch)
        return True

    def save_last(self) -> bool:
        """Write last.pt, with all that resuming needs; False where it could not be written."""
        self.last_save = time.monotonic()
        return self.save("last.pt", self.state.epoch, images=self.image_list, **self.state.state_dict())

    def save(self, name: str, epoch: int, **more: Any) -> bool:
        """Write a checkpoint; a failure is a warning, an earlier one stays, and the answer is False."""
        if rank() > 0:
            return True
        more |= self.net.metadata
        with tolerate_write_errors(name):
            save_checkpoint(
                self.folder.path / name,
                self.net,
                ema=None if self.step.ema is None else self.step.averaged,
                image_size=self.train_split.image_size,
                class_names=self.train_split.class_names,
                dataset=self.settings.dataset,
                settings=dataclasses.asdict(self.settings),
                epoch=epoch,
                step=self.state.total_steps,
                **more,
            )
            return True
        return False

    def draw_samples(self, samples: TrainingSamples, epoch: int) -> dict[str, float | str]:
        """Write a grid of samples, one row per class; returns what the report says of them."""
        images = samples.draw(self.step.averaged)
        path = self.folder.samples / f"epoch_{epoch:04d}.png"
        with tolerate_write_errors(path.name):
            labelled_grid(*samples.grid(images), self.train_split.class_names, path)
            self.tracker.image("samples", path, epoch)
        return samples.measure(images)


def configure_torch(deterministic: bool) -> None:
    if deterministic:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # the one in which cuBLAS repeats its sums
    torch.use_deterministic_algorithms(deterministic)
    # all of it is written before it is read
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
