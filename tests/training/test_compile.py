"""A compiled training step, and where compiling fails."""

import pytest
import torch

import training.step
from tests.training.steps import make_step, run
from utils.cuda_graph import GraphedFunction
from utils.errors import UserError


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
