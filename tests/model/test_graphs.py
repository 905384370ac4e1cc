"""The rows that are replayed as CUDA graphs, by a stand-in for graphs that runs on the CPU.

A graph repeats the operations of one run of Python on the same memory. The stand-in does as much: it records them, and
a replay runs each again on the tensors of then. What only Python would do, or a fresh tensor would hold, is lost, as it
is in a graph.
"""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from layers import FUSIONS
from model import image_generators, sample, sampler


class Recording(TorchDispatchMode):
    """A stand-in for `torch.cuda.CUDAGraph`."""

    def __init__(self):
        super().__init__()
        self.calls, self.replays = [], 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        outputs = function(*args, **kwargs or {})
        self.calls.append((function, args, kwargs or {}, outputs))
        return outputs

    def replay(self):
        self.replays += 1
        if self.replays == 1:
            return  # recording has computed what capturing leaves to the first replay
        for function, args, kwargs, outputs in self.calls:
            again = function(*args, **kwargs)
            for kept, new in zip(tree_leaves(outputs), tree_leaves(again), strict=True):
                if kept.data_ptr() != new.data_ptr():
                    kept.copy_(new)


class GraphedRows(sampler.IncrementalRows):
    def __init__(self, net, labels, images):
        super().__init__(net, labels, images)
        self.device = torch.device("cuda")  # as far as the choice between graphs and plain rows goes


@pytest.fixture
def graphs(monkeypatch):
    """The graphs that sampling by method="graphed" makes."""
    made = []

    def make():
        made.append(Recording())
        return made[-1]

    @contextmanager
    def capture(graph):
        with graph:
            yield

    monkeypatch.setattr(torch.cuda, "CUDAGraph", make)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    monkeypatch.setitem(sampler.ROW_DRAWERS, "graphed", GraphedRows)
    return made


@pytest.mark.parametrize("keep_rows", [0, 3, 6])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_replayed_rows_are_the_plain_ones(make_net, graphs, fusion, batch, keep_rows):
    net, labels = make_net(fusion=fusion), torch.tensor([2, 0])[:batch]
    keep = torch.randint(0, 256, (batch, 3, keep_rows, 8), dtype=torch.uint8)
    plain, graphed = (
        sample(net, labels, (20, 8), image_generators(5, 0, batch), method, keep=keep)
        for method in ("incremental", "graphed")
    )
    assert torch.equal(graphed, plain)
    assert len(graphs) == 4
    # the first four rows of all run as they are
    assert sum(graph.replays for graph in graphs) == 20 - max(4, keep_rows)
    assert plain[:, :, 12:].unique().numel() > 50


def test_a_graph_never_waits_for_the_host(make_net, graphs):
    """CUDA refuses to capture what reads a number back or makes a tensor of numbers of Python's."""
    sample(make_net(), torch.tensor([0, 1]), (8, 8), image_generators(5, 0, 2), "graphed")
    names = {function.overloadpacket._qualified_op_name for graph in graphs for function, *_ in graph.calls}
    assert "aten::addmm_" in names
    assert not names & {"aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero", "aten::is_nonzero"}
