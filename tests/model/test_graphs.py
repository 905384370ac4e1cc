"""The rows that are replayed as CUDA graphs, by a stand-in for graphs that runs on the CPU."""

import pytest
import torch

from layers import FUSIONS
from model import Sampler, image_generators, sample


@pytest.mark.parametrize("keep_rows", [0, 3, 6])
@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_replayed_rows_are_the_plain_ones(make_net, recorded_graphs, fusion, batch, keep_rows):
    net, labels = make_net(fusion=fusion), torch.tensor([2, 0])[:batch]
    keep = torch.randint(0, 256, (batch, 3, keep_rows, 8), dtype=torch.uint8)
    plain = sample(net, labels, (20, 8), image_generators(5, 0, batch), keep=keep)
    graphed = Sampler(net, (20, 8), graphs=True)(labels, image_generators(5, 0, batch), keep=keep)
    assert torch.equal(graphed, plain)
    assert len(recorded_graphs) == 4
    # the first drawn row of each kind runs as it is
    assert sum(graph.replays for graph in recorded_graphs) == 20 - keep_rows - 4
    assert plain[:, :, 12:].unique().numel() > 50


@pytest.mark.parametrize("fusion", FUSIONS)
def test_later_batches_replay_every_row(make_net, recorded_graphs, fusion):
    """Other classes, other randomness, kept rows, a temperature, and a batch that is filled up."""
    net = make_net(fusion=fusion, image_channels=1)
    sampler = Sampler(net, (12, 8), graphs=True)
    sampler(torch.tensor([0, 1, 2]), image_generators(1, 0, 3))
    replays = sum(graph.replays for graph in recorded_graphs)
    for labels, keep_rows, temperature in (([2, 2, 1], 0, 1.0), ([1, 0, 2], 5, 0.8), ([2, 0], 0, 1.0)):
        labels, count = torch.tensor(labels), len(labels)
        keep = torch.randint(0, 256, (count, 1, keep_rows, 8), dtype=torch.uint8)
        drawn = sampler(labels, image_generators(7, 0, count), temperature, keep)
        filled = torch.tensor([0, 1, 2]).clamp(max=count - 1)
        generators = [image_generators(7, int(i), 1)[0] for i in filled]
        plain = sample(net, labels[filled], (12, 8), generators, temperature=temperature, keep=keep[filled])
        assert torch.equal(drawn, plain[:count])
        replays += 12 - keep_rows
        assert sum(graph.replays for graph in recorded_graphs) == replays
    assert len(recorded_graphs) == 4


def test_a_graph_never_waits_for_the_host(make_net, recorded_graphs):
    """CUDA refuses to capture what reads a number back or makes a tensor of numbers of Python's."""
    Sampler(make_net(), (8, 8), graphs=True)(torch.tensor([0, 1]), image_generators(5, 0, 2))
    names = {name for graph in recorded_graphs for name in graph.names()}
    assert "aten::addmm_" in names
    assert not names & {"aten::_local_scalar_dense", "aten::lift_fresh", "aten::nonzero", "aten::is_nonzero"}


def test_without_graphs_a_smaller_batch_is_not_filled_up(make_net):
    net = make_net()
    sampler = Sampler(net, (8, 8))
    for count in (3, 1, 2):
        labels = torch.arange(count)
        drawn = sampler(labels, image_generators(2, 0, count))
        assert torch.equal(drawn, sample(net, labels, (8, 8), image_generators(2, 0, count)))
        assert len(sampler.images) == count


def test_randomness_in_parts(make_net, monkeypatch):
    """Of as many rows at a time as a bound allows, the numbers are the same."""
    net, labels = make_net(), torch.tensor([0, 1])
    expected = [sample(net, labels, (8, 8), generators) for generators in (image_generators(0, 0, 2), None)]
    torch.manual_seed(0)
    expected[1] = sample(net, labels, (8, 8))
    monkeypatch.setattr("model.sampling.sampler.RANDOM_NUMBERS", 3 * 2 * 5 * 8)  # three rows of two images
    assert torch.equal(sample(net, labels, (8, 8), image_generators(0, 0, 2)), expected[0])
    torch.manual_seed(0)
    assert torch.equal(sample(net, labels, (8, 8)), expected[1])


@pytest.mark.parametrize("keep_rows", [0, 6])
@pytest.mark.parametrize("batch", [2, 16, 100])
def test_on_cuda_replayed_rows_are_the_plain_ones(make_net, device, batch, keep_rows):
    """Bit for bit: a graph launches the same kernels on the same numbers. Two batches; the second replays all rows."""
    if device.type != "cuda":
        pytest.skip("graphs are CUDA's")
    net = make_net(nr_filters=16).to(device)
    graphed, plain = Sampler(net, (20, 16)), Sampler(net, (20, 16), graphs=False)
    for seed in range(2):
        labels = (torch.arange(batch) + seed) % 3
        keep = torch.randint(0, 256, (batch, 3, keep_rows, 16), dtype=torch.uint8)
        both = [sampler(labels, image_generators(seed, 0, batch), keep=keep) for sampler in (graphed, plain)]
        assert torch.equal(*both)
