"""One training step, without I/O: images and labels in, bits/dim out."""

import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from model import PixelCNN, bits_per_dim, check_weights, log_likelihood
from training.cutmix import cutmix
from training.objective import candidate_classes, hybrid_loss, likelihood_images, mixed_labels
from training.optimization import MovingAverage, make_optimizer, restore_optimizer
from training.saved_values import number, whole_number
from training.settings import TrainSettings
from training.teacher import Teacher
from utils.console import notify
from utils.cuda_graph import GraphedFunction
from utils.distributed import all_mean, is_loss, rank, world_size
from utils.errors import UserError, summary
from utils.memory import out_of_memory
from utils.precision import autocast

COMPILED_FROM = 5000  # steps of a run, from which its one to several minutes of compiling are expected to pay


class StepSums(NamedTuple):
    """What `TrainingStep` adds up over steps, as numbers.

    ``skipped`` steps had a non-finite gradient, ``streak`` of them were the last ones in a row, ``longest_streak``
    was the longest such streak; ``bpd`` and ``cross_entropy`` (nats) are sums over the other steps.
    """

    skipped: float
    streak: float
    longest_streak: float
    bpd: float
    cross_entropy: float

    def means(self, steps: int) -> tuple[float, float]:
        """Mean bits/dim and cross-entropy (nats) of the steps that were not skipped, of ``steps`` in all."""
        good = max(1, steps - self.skipped)
        return self.bpd / good, self.cross_entropy / good


class TrainingStep:
    """A network with all that a step changes: optimiser, learning rate, loss scale, moving average, sums.

    Args:
        net: on its device, in train mode when it is stepped. Under torchrun each process has the same.
        settings: of the run.
        precision: fp32, bf16 or fp16, of the network.
        total_steps: of the run, which its schedule needs.
        teacher: whose posterior the cross-entropy is against, if any.

    Attributes:
        sums: `StepSums` of the steps since it was last zeroed, as float [5] on the device. Changed in place.
    """

    def __init__(
        self,
        net: PixelCNN,
        settings: TrainSettings,
        precision: str,
        total_steps: int,
        teacher: Teacher | None = None,
    ):
        self.net, self.settings, self.precision, self.total_steps = net, settings, precision, total_steps
        self.teacher = teacher
        self.device = next(net.parameters()).device
        self.negatives = settings.negatives or net.num_classes - 1
        self.parameters = list(net.parameters())
        self.optimizer, self.scheduler = make_optimizer(net, settings, total_steps)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=precision == "fp16")
        self.ema = MovingAverage(net, settings.ema) if settings.ema else None
        self.sums = torch.zeros(len(StepSums._fields), device=self.device)
        self.seed = 0
        parallel: PixelCNN | DistributedDataParallel = net
        if world_size() > 1:
            warnings.filterwarnings("ignore", "Grad strides do not match")  # of 1x1 kernels; the memory is the same
            parallel = DistributedDataParallel(net, [self.device.index] if self.device.type == "cuda" else None)
        self.log_likelihood = partial(log_likelihood, parallel)
        on_cuda = self.device.type == "cuda"
        self.uncompiled = None
        if chosen(settings.compile, on_cuda and total_steps >= COMPILED_FROM):
            self.uncompiled, self.log_likelihood = self.log_likelihood, compiled(self.log_likelihood, self.device)
        graphed = chosen(settings.cuda_graph, on_cuda and world_size() == 1)
        self.update = GraphedFunction(self._update) if graphed else self._update
        self.lr = torch.full((), settings.lr, device=self.device) if graphed else None

    @property
    def averaged(self) -> PixelCNN:
        """The network that is evaluated, sampled from and saved as the best."""
        return self.net if self.ema is None else self.ema.net

    def __call__(self, images: Tensor, labels: Tensor, seed: int) -> Tensor:
        """Step on uint8 [B, C, H, W] and int64 [B]; returns mean bits/dim and cross-entropy (nats), [2], which the
        next call may overwrite.

        A step with a non-finite gradient changes no weight and no moment of the optimiser; it is counted in ``sums``.
        ``seed`` is that of dropout, of the wrong classes and of CutMix. Raises UserError where the batch does not fit
        in memory.
        """
        self.seed = seed
        self._set_seed()
        if self.lr is not None:
            self.lr.fill_(self.optimizer.param_groups[0]["lr"])  # a graph reads it from there
        parts = self.update(images, labels)
        self.scheduler.step()
        if self.ema is not None:
            self.ema.update()
        return parts

    def _update(self, images: Tensor, labels: Tensor) -> Tensor:
        """The part of a step that a CUDA graph can hold: no number is read back by the host."""
        parts = self._gradients(images, labels)
        self.scaler.unscale_(self.optimizer)
        norm = get_total_norm([p.grad for p in self.parameters if p.grad is not None])
        if self.settings.grad_clip:
            clip_grads_with_norm_(self.parameters, self.settings.grad_clip, norm)
        parts = all_mean(parts)
        bad = ~torch.isfinite(norm)
        # fused Adam leaves weights and moments alone where it is 1
        self.optimizer.found_inf = bad.float()  # type: ignore[attr-defined]
        with self._lr_on_device():
            self.scaler.step(self.optimizer)
        self.scaler.update()
        skipped, streak, longest = self.sums[:3]
        streak = (streak + 1) * bad
        counts = torch.stack((skipped + bad, streak, torch.maximum(longest, streak)))
        self.sums.copy_(torch.cat((counts, self.sums[3:] + parts.masked_fill(bad, 0))))
        return parts

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Forward and backward; returns the parts of the loss. Falls back to eager code where compiling fails."""
        try:
            return self._backward(images, labels)
        except Exception as error:
            if out_of_memory(error):
                raise UserError(
                    f"a batch of {len(images)} does not fit in the memory of {self.device}: "
                    "lower --batch_size (or --nr_filters, --nr_resnet, --negatives)"
                ) from None
            if self.uncompiled is None or self._capturing or is_loss(error):  # compiled before the capture
                raise
            reason = summary(error)
            if world_size() > 1:  # gradients may be on their way already
                raise UserError(f"torch.compile failed ({reason}); use --compile false") from None
            notify(f"warning: torch.compile failed ({reason}); training continues uncompiled")
            self.log_likelihood, self.uncompiled = self.uncompiled, None
        self._set_seed()  # the same dropout as without the failed attempt
        return self._backward(images, labels)

    def _set_seed(self) -> None:
        """As torch.manual_seed does, which takes 0.1 ms for devices that are not here."""
        torch.default_generator.manual_seed(self.seed)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(self.seed)

    def _backward(self, images: Tensor, labels: Tensor) -> Tensor:
        loss, parts = self.loss(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()
        return parts

    def loss(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """What is minimised, and its parts, [2]: bits/dim and the cross-entropy of the posterior (nats)."""
        settings, shape = self.settings, tuple(images.shape[1:])
        with autocast(self.precision, self.device):
            if not settings.discriminative_weight:
                bpd = bits_per_dim(-self.log_likelihood(images, labels).mean(), shape)
                return bpd, torch.stack((bpd.detach(), torch.zeros_like(bpd)))
            likely = likelihood_images(settings, len(images))
            others = known = None
            if settings.cutmix_prob:
                images, others, kept = cutmix(images, labels, likely, settings.cutmix_prob)
            classes = candidate_classes(labels, self.net.num_classes, self.negatives, others)
            if others is not None:
                known = mixed_labels(classes, others, kept)
            log_p = self.log_likelihood(images.repeat_interleave(classes.shape[1], dim=0), classes.flatten())
            target = None if self.teacher is None else self.teacher(images, classes)
        loss, *parts = hybrid_loss(
            log_p.view_as(classes),
            shape,
            settings.discriminative_weight,
            settings.posterior_temperature,
            settings.label_smoothing,
            likely,
            known,
            target,
        )
        return loss, torch.stack(parts).detach()

    @property
    def _capturing(self) -> bool:
        return self.lr is not None and torch.cuda.is_current_stream_capturing()

    @contextmanager
    def _lr_on_device(self) -> Iterator[None]:
        """The learning rate of a graph is a tensor; elsewhere, in checkpoints too, it is a number."""
        (group,) = self.optimizer.param_groups
        before = {"lr": group["lr"], "capturable": group["capturable"]}
        if self.lr is not None:
            group |= {"lr": self.lr, "capturable": self._capturing}
        try:
            yield
        finally:
            group |= before

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds beside the weights and their moving average."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "ema_updates": 0 if self.ema is None else self.ema.updates,
        }

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Restore the state in a checkpoint, weights included; a line says where the learning rate is another now.

        Raises LookupError, TypeError, ValueError, AttributeError, RuntimeError or OverflowError for other contents.
        """
        nr_resnet = self.net.settings["nr_resnet"]
        check_weights(checkpoint["weights"], nr_resnet)
        self.net.load_state_dict(checkpoint["weights"])
        if self.ema is not None:
            check_weights(checkpoint["ema"], nr_resnet)
            self.ema.net.load_state_dict(checkpoint["ema"])
            self.ema.updates = whole_number(checkpoint["ema_updates"], "ema_updates")
        steps = whole_number(checkpoint["scheduler"]["last_epoch"], "last_epoch")
        before = number(checkpoint["optimizer"]["param_groups"][0]["lr"], "lr", 0)
        restore_optimizer(self.optimizer, self.scheduler, checkpoint["optimizer"], steps)
        now = self.optimizer.param_groups[0]["lr"]
        if not math.isclose(before, now, rel_tol=1e-6) and rank() == 0:
            notify(
                f"--lr_schedule {self.settings.lr_schedule} now ends after {self.total_steps} steps, "
                f"{self.settings.max_epochs} epochs: here the learning rate changes from {before:.2e} to {now:.2e}"
            )
        if self.scaler.is_enabled() and checkpoint["scaler"]:  # empty where the run was not in fp16 before
            kinds = {name: type(value) for name, value in self.scaler.state_dict().items()}
            if {name: type(value) for name, value in checkpoint["scaler"].items()} != kinds:
                raise TypeError("scaler is not the state of a loss scale")
            self.scaler.load_state_dict(checkpoint["scaler"])


def chosen(setting: bool | None, default: bool) -> bool:
    """A setting whose None means the default."""
    return default if setting is None else setting


def compiled(function: Any, device: torch.device) -> Any:
    """``function`` through torch.compile, on a GPU with convolutions in channels last."""
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores")  # fp32 is meant
    warnings.filterwarnings("ignore", "\\s*Online softmax is disabled")  # a note to the developers of the compiler
    return torch.compile(function, options={"force_layout_optimization": True} if device.type == "cuda" else None)
