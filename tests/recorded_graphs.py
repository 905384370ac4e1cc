"""A stand-in for CUDA graphs; a plugin of conftest.py."""

from contextlib import contextmanager
from unittest import mock

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class RecordedGraph(TorchDispatchMode):
    """A stand-in for `torch.cuda.CUDAGraph` that runs on the CPU.

    A graph repeats the operations of one run of Python on the same memory. The stand-in does as much: it records them,
    and a replay runs each again on the tensors of then. What only Python would do, or a fresh tensor would hold, is
    lost, as it is in a graph.
    """

    def __init__(self):
        super().__init__()
        self.calls, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **kwargs or {})
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs

    def names(self) -> set[str]:
        """Of the operations."""
        return {function.overloadpacket._qualified_op_name for function, *_ in self.calls}

    @torch.no_grad()
    def replay(self):
        self.replays += 1
        if self.replays == 1:
            return  # recording has computed what capturing leaves to the first replay
        for function, args, kwargs, outputs in self.calls:
            again = function(*args, **kwargs)
            for kept, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if isinstance(kept, torch.Tensor) and kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


@pytest.fixture
def recorded_graphs(monkeypatch) -> list[RecordedGraph]:
    """CUDA graphs are recorded ones, listed here as they are made; streams are none."""
    made = []

    def make():
        made.append(RecordedGraph())
        return made[-1]

    @contextmanager
    def inside(context, stream=None):
        with context:
            yield

    stream = mock.MagicMock()
    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", inside)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", inside)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    return made
