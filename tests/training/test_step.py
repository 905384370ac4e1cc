"""A training step as a CUDA graph, in another precision and on a real GPU."""

from contextlib import contextmanager
from copy import deepcopy

import pytest
import torch

from model import PixelCNN
from tests.training.steps import CUTMIX, HYBRID, MUON, batches, make_step, run
from training.settings import TrainSettings
from training.step import TrainingStep
from utils.cuda_graph import GraphedFunction, capture
from utils.device import pick_device


def everything(step: TrainingStep) -> list[torch.Tensor]:
    moments = [value for state in step.optimizer.state.values() for value in state.values()]
    return [*step.net.state_dict().values(), *step.averaged.state_dict().values(), *moments, step.sums]


def saved(step: TrainingStep) -> dict:
    """As it comes from a checkpoint."""
    return deepcopy({"weights": step.net.state_dict(), "ema": step.averaged.state_dict(), **step.state()})


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("more", [{}, HYBRID, CUTMIX, {"grad_clip": 0.0, "lr_schedule": "cosine", "ema": 0.0}, MUON])
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
@pytest.mark.parametrize("more", [{}, HYBRID, CUTMIX, MUON, {"compile": True}])
def test_on_cuda_a_captured_step_is_the_plain_one(cuda, precision, more):
    """Up to rounding, as the gradients of convolutions are summed in any order."""
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("no native bf16, and nothing is compiled for it")
    losses = []
    for settings in ({"cuda_graph": True, **more}, {"cuda_graph": False, **more}):
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
