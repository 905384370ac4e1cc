"""A training step as a CUDA graph, on a CUDA device that is not there, and where compiling fails."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from unittest import mock

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import training.optimization
import training.step
from model import PixelCNN, Sampler, image_generators
from training.settings import TrainSettings
from training.step import TrainingStep
from utils.cuda_graph import GraphedFunction, capture
from utils.device import pick_device
from utils.errors import UserError

HYBRID = {"discriminative_weight": 0.1, "negatives": 1}


def make_step(precision="fp32", fusion="early+middle", total_steps=20, **settings) -> TrainingStep:
    torch.manual_seed(0)
    settings = {"dropout": 0.3, "warmup": 3, "lr": 3e-3, "grad_clip": 1.0, "compile": False} | settings
    net = PixelCNN(1, 4, 2, 1, 3, fusion, settings["dropout"]).train()
    return TrainingStep(net, TrainSettings(**settings), precision, total_steps)


def batches(count: int):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        images = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8, generator=generator)
        yield images, torch.randint(0, 3, (4,), generator=generator)


def run(step: TrainingStep, count: int = 10, bad: int | None = None) -> list[list[float]]:
    """Parts of the loss of each step; of step number ``bad`` the likelihood is no number."""
    parts, factor, log_likelihood = [], torch.ones(()), step.log_likelihood
    if bad is not None:
        step.log_likelihood = lambda *arguments: log_likelihood(*arguments) * factor
    for number, batch in enumerate(batches(count)):
        factor.fill_(float("nan") if number == bad else 1.0)
        parts.append(step(*batch, seed=number).tolist())
    return parts


def everything(step: TrainingStep) -> list[torch.Tensor]:
    moments = [value for state in step.optimizer.state.values() for value in state.values()]
    return [*step.net.state_dict().values(), *step.averaged.state_dict().values(), *moments, step.sums]


def saved(step: TrainingStep) -> dict:
    """As it comes from a checkpoint."""
    return deepcopy({"weights": step.net.state_dict(), "ema": step.averaged.state_dict(), **step.state()})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("more", [{}, HYBRID, {"grad_clip": 0.0, "lr_schedule": "cosine", "ema": 0.0}])
def test_a_replayed_step_is_the_plain_one(more, precision, recorded_graphs, monkeypatch):
    """The skipped step, the schedule, dropout and the wrong classes included, bit for bit."""
    graphed = make_step(precision, cuda_graph=True, **more)
    parts = run(graphed, bad=6)
    (graph,) = recorded_graphs
    assert graph.replays == 10 - GraphedFunction.WARMUP
    monkeypatch.setattr(GraphedFunction, "WARMUP", 1000)  # the same without a graph
    plain = make_step(precision, cuda_graph=True, **more)
    assert [p for i, p in enumerate(run(plain, bad=6)) if i != 6] == [p for i, p in enumerate(parts) if i != 6]
    assert len(recorded_graphs) == 1
    for ours, theirs in zip(everything(graphed), everything(plain), strict=True):
        assert torch.equal(ours, theirs)
    assert graphed.sums[0] == 1 and graphed.sums[2] == 1
    # where the learning rate is a number and not a tensor of float32
    other = make_step(precision, **more)
    run(other, bad=6)
    for ours, theirs in zip(everything(graphed), everything(other), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4 if precision == "fp32" else 1e-2)


def test_the_state_of_a_graphed_step_is_that_of_any_other(recorded_graphs):
    """A run goes on with or without a graph."""
    graphed, plain = make_step(cuda_graph=True), make_step()
    for step in (graphed, plain):
        run(step, 5)
    ours, theirs = graphed.state(), plain.state()
    assert ours["optimizer"]["param_groups"] == theirs["optimizer"]["param_groups"]
    assert ours["scheduler"] == theirs["scheduler"] and ours["ema_updates"] == theirs["ema_updates"] == 5
    fresh = make_step(cuda_graph=True)
    fresh.restore(saved(plain))
    torch.testing.assert_close(torch.tensor(run(fresh, 6)), torch.tensor(run(plain, 6)), rtol=1e-3, atol=0)


@pytest.mark.parametrize("more", [{}, HYBRID])
def test_forward_and_backward_read_nothing_back(more, recorded_graphs):
    """CUDA refuses to capture what does, or makes a tensor of numbers of Python's; the rest of a step is seen below."""
    step, (batch,) = make_step(fusion="middle", **more), batches(1)  # one-hot maps are checked, on a CPU alone
    with torch.cuda.CUDAGraph() as graph:
        step._gradients(*batch)
    assert "aten::convolution_backward" in graph.names()
    assert not graph.names() & {"aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero", "aten::is_nonzero"}


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
@pytest.mark.parametrize("more", [{}, HYBRID])
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


def test_drawing_on_cuda_mixes_no_devices():
    keep = torch.zeros(3, 3, 2, 8, dtype=torch.uint8)
    with net_on_fake_cuda() as net:
        sampler = Sampler(net.eval(), (8, 8), graphs=False)
        drawn = [sampler(torch.tensor([0, 1, 2]), image_generators(0, 0, 3), 0.9, keep) for _ in range(2)]
        seen = {(images.device.type, tuple(images.shape)) for images in drawn}
    assert seen == {("cuda", (3, 3, 8, 8))}


@pytest.mark.parametrize("where", ["forward", "backward"])
def test_where_compiling_fails_training_goes_on(where, monkeypatch, capsys):
    """With one line that says so, once, and the numbers of an eager run."""
    expected = run(make_step())

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, grad):
            raise RuntimeError("no Triton\nhere")

    def broken(function, options):
        def call(images, labels):
            if where == "forward":
                raise ImportError("no Triton\nhere")
            return Fails.apply(function(images, labels))

        return call

    monkeypatch.setattr(torch, "compile", broken)
    assert run(make_step(compile=True)) == expected
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("warning: torch.compile failed") and "no Triton here" in line


def test_where_compiling_fails_in_several_processes_the_run_ends(monkeypatch):
    """Gradients of some may be on their way to the others."""

    def no_triton(*_):
        raise ImportError("no Triton")

    step = make_step(compile=True)
    step.log_likelihood = no_triton
    monkeypatch.setattr(training.step, "world_size", lambda: 2)
    with pytest.raises(UserError, match=r"no Triton.*--compile false"):
        run(step)


def test_what_fails_in_a_capture_is_told_and_not_that_the_capture_failed(recorded_graphs, monkeypatch):
    @contextmanager
    def broken_capture(graph, stream):
        try:
            yield
        finally:
            raise RuntimeError("capture_end")

    def no_memory():
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(torch.cuda, "graph", broken_capture)
    with pytest.raises(torch.OutOfMemoryError):
        capture(no_memory)
    with pytest.raises(RuntimeError, match="capture_end"):
        capture(lambda: None)


def test_an_error_in_a_capture_is_no_failure_to_compile(recorded_graphs, monkeypatch):
    monkeypatch.setattr(torch, "compile", lambda function, options: function)
    step = make_step(compile=True, cuda_graph=True)
    run(step, GraphedFunction.WARMUP)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)

    def wrong(*_):
        raise RuntimeError("operation not permitted")

    step.log_likelihood = wrong
    with pytest.raises(RuntimeError, match="not permitted"):
        run(step, 1)
    assert step.uncompiled is not None


def test_errors_that_compiling_did_not_make_are_raised(monkeypatch):
    def wrong(*_):
        raise ValueError("shapes")

    monkeypatch.setattr(training.step, "log_likelihood", wrong)
    monkeypatch.setattr(torch, "compile", lambda function, options: function)
    with pytest.raises(ValueError, match="shapes"):
        run(make_step(compile=True))


def test_memory_that_runs_out_while_compiling_is_no_failure_to_compile(monkeypatch, capsys):
    def broken(function, options):
        def call(*_):
            raise torch.OutOfMemoryError("CUDA out of memory")

        return call

    monkeypatch.setattr(torch, "compile", broken)
    with pytest.raises(UserError, match="--batch_size"):
        run(make_step(compile=True))
    assert capsys.readouterr().err == ""


def test_on_a_gpu_channels_last_is_compiled_for(monkeypatch):
    asked = {}
    monkeypatch.setattr(torch, "compile", lambda function, options: asked.setdefault(function, options))
    training.step.compiled("on cuda", torch.device("cuda", 0))
    training.step.compiled("on a cpu", torch.device("cpu"))
    assert asked == {"on cuda": {"force_layout_optimization": True}, "on a cpu": None}
    assert torch._inductor.config.force_layout_optimization is False  # the name exists, elsewhere nothing is changed


@pytest.mark.parametrize("before, after", [("bf16", "fp16"), ("fp16", "bf16"), ("fp16", "fp16")])
def test_a_run_goes_on_in_another_precision(before, after):
    """As where "auto" means bf16 on one GPU and fp16 on the next."""

    def make(precision):
        step = make_step("fp32")
        step.scaler = torch.amp.GradScaler("cpu", enabled=precision == "fp16", init_scale=8.0)
        return step

    first, second = make(before), make(after)
    run(first, 3)
    second.restore(saved(first))
    assert all(torch.isfinite(torch.tensor(run(second, 3))).flatten())
    assert second.ema.updates == 6


@pytest.fixture
def cuda() -> torch.device:
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return pick_device("cuda")


def on_cuda(device, precision, **settings) -> TrainingStep:
    torch.manual_seed(0)
    net = PixelCNN(1, 8, 2, 1, 3, dropout=0.3).to(device).train()
    return TrainingStep(net, TrainSettings(**{"lr": 1e-3, "compile": False} | settings), precision, 100)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("more", [{}, HYBRID, {"compile": True}])
def test_on_cuda_a_captured_step_is_the_plain_one(cuda, precision, more):
    """Up to rounding, as the gradients of convolutions are summed in any order."""
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("no native bf16, and nothing is compiled for it")
    losses = []
    for settings in ({"cuda_graph": True, **more}, more):
        step = on_cuda(cuda, precision, **settings)
        losses.append([])
        for seed, (images, labels) in enumerate(batches(20)):
            losses[-1].append(step(images.to(cuda), labels.to(cuda), seed).tolist())
        assert (step.uncompiled is not None) == ("compile" in more)  # it did not fall back
        assert torch.isfinite(step.sums).all() and step.sums[0] <= (0 if precision != "fp16" else 10)
    torch.testing.assert_close(torch.tensor(losses[0]), torch.tensor(losses[1]), rtol=0.01, atol=0.01)


@pytest.mark.parametrize("graphed", [False, True])
def test_on_cuda_no_step_waits(cuda, graphed):
    step = on_cuda(cuda, "bf16", cuda_graph=graphed, grad_clip=1.0)
    data = [(images.to(cuda), labels.to(cuda)) for images, labels in batches(12)]
    for seed, batch in enumerate(data[:6]):
        step(*batch, seed)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for seed, batch in enumerate(data[6:]):
            step(*batch, seed)
    finally:
        torch.cuda.set_sync_debug_mode("default")
