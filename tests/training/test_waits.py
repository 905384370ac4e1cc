"""Training steps and sampling on a CUDA device that is not there: the host never waits for it."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import training.optimization
import training.step
from model import PixelCNN, Sampler, image_generators
from tests.training.steps import CUTMIX, HYBRID, MUON
from training.settings import TrainSettings
from training.step import TrainingStep
from utils.cuda_graph import GraphedFunction


class Waits(TorchDispatchMode):
    """Counts the operations for which the host waits: with tensors of two devices, or whose result it needs."""

    def __init__(self):
        super().__init__()
        self.operations: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **kwargs or {})
        tensors = [x for x in tree_leaves((args, kwargs, outputs)) if isinstance(x, torch.Tensor)]
        name = function.overloadpacket._qualified_op_name
        self.count += 1
        if len({x.device.type for x in tensors}) > 1 or name in ("aten::_local_scalar_dense", "aten::nonzero"):
            self.operations.append(name)
        return outputs


@contextmanager
def net_on_fake_cuda() -> Iterator[PixelCNN]:
    """A network whose tensors have no data, on a CUDA device that is not there; all but the backward pass runs."""
    with FakeTensorMode(allow_non_fake_inputs=True), ExitStack() as stack:
        with torch.device("cuda:0"):
            net, average = PixelCNN(1, 8, 2), PixelCNN(1, 8, 2)
        # a deep copy of tensors without data corrupts memory
        stack.enter_context(mock.patch.object(training.optimization, "deepcopy", lambda _: average))
        there = {
            "is_available": lambda: True,
            "is_bf16_supported": lambda *_, **__: True,
            "is_current_stream_capturing": lambda: False,
            "device": mock.MagicMock(),
        }
        for name, value in there.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, value))
        stack.enter_context(mock.patch("torch.cuda.amp.common.amp_definitely_not_available", lambda: False))
        adam = torch._fused_adamw_

        def adam_of_numbers(*arguments, lr, **options):  # there is no version without data for a tensor
            assert isinstance(lr, float) or (lr.device.type == "cuda" and lr.ndim == 0)
            return adam(*arguments, lr=1.0, **options)

        stack.enter_context(mock.patch.object(torch, "_fused_adamw_", adam_of_numbers))
        yield net


@pytest.mark.parametrize(
    "waits", [lambda x: x.cpu(), lambda x: x + torch.tensor(2.0), lambda x: x + torch.ones(3).to(x.device)]
)
def test_the_counter_finds_waits(waits):
    with FakeTensorMode(), Waits() as counter:
        waits(torch.zeros(3, device="cuda:0"))
    assert counter.operations


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("graphed", [False, True])
@pytest.mark.parametrize("more", [{}, HYBRID, CUTMIX, MUON])
def test_a_step_on_cuda_never_waits(precision, graphed, more):
    """Nor does it mix devices, nor read a number back, which fails on tensors without data."""
    settings = TrainSettings(compile=False, grad_clip=1.0, cuda_graph=graphed, warmup=2, **more)
    with net_on_fake_cuda() as net:
        step = TrainingStep(net.train(), settings, precision, 100)
        step.update = step._update
        assert step.scaler.is_enabled() == (precision == "fp16")

        def without_backward(images, labels):  # which wants a real device
            loss, parts = step.loss(images, labels)
            step.optimizer.zero_grad()
            assert step.scaler.scale(loss).device.type == "cuda"
            for parameter in step.parameters:
                parameter.grad = torch.zeros_like(parameter)
            return parts

        step._backward = without_backward
        images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8, device="cuda:0")
        labels = torch.zeros(2, dtype=torch.int64, device="cuda:0")
        step(images, labels, 0)  # makes the optimiser's state
        with Waits() as waits:
            parts = step(images, labels, 1)
        devices = {x.device.type for x in (parts, step.sums, *step.averaged.parameters())}
    assert waits.count > 1000 and waits.operations == []
    assert devices == {"cuda"}


@pytest.mark.parametrize("processes", [1, 2])
def test_on_cuda_steps_are_graphs_and_long_runs_are_compiled(processes, monkeypatch):
    monkeypatch.setattr(training.step, "world_size", lambda: processes)
    monkeypatch.setattr(training.step, "DistributedDataParallel", lambda net, devices: net)
    with net_on_fake_cuda() as net:
        for settings, steps, graphed, compiled in (
            ({}, 100, processes == 1, False),
            ({}, 5000, processes == 1, True),
            ({"cuda_graph": False, "compile": False}, 5000, False, False),
            ({"compile": True}, 100, processes == 1, True),
        ):
            step = TrainingStep(net, TrainSettings(**settings), "fp32", steps)
            assert isinstance(step.update, GraphedFunction) == graphed
            assert (step.uncompiled is not None) == compiled


def test_drawing_on_cuda_mixes_no_devices():
    keep = torch.zeros(3, 3, 2, 8, dtype=torch.uint8)
    with net_on_fake_cuda() as net:
        sampler = Sampler(net.eval(), (8, 8), graphs=False)
        drawn = [sampler(torch.tensor([0, 1, 2]), image_generators(0, 0, 3), 0.9, keep) for _ in range(2)]
        seen = {(images.device.type, tuple(images.shape)) for images in drawn}
    assert seen == {("cuda", (3, 3, 8, 8))}
