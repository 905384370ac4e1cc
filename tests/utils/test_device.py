"""The device of a process, with GPUs that are not there."""

import pytest
import torch

import utils.device
from utils.device import cudnn_benchmark, pick_device
from utils.errors import UserError


@pytest.fixture
def gpus(monkeypatch):
    """gpus(2) -> the devices that are made current, as if there were two GPUs; gpus(2, rank=1, of=2) under torchrun."""

    def pretend(count: int, rank: int | None = None, of: int = 1) -> list[torch.device]:
        made_current = []
        for name in ("LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name, raising=False)
        if rank is not None:
            monkeypatch.setenv("LOCAL_RANK", str(rank))
            monkeypatch.setenv("LOCAL_WORLD_SIZE", str(of))
        monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
        monkeypatch.setattr(torch.cuda, "set_device", made_current.append)
        monkeypatch.setattr(utils.device, "works", lambda device: device.type == "cpu" or (device.index or 0) < count)
        return made_current

    tf32 = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True  # PyTorch's default
    yield pretend
    torch.backends.cudnn.allow_tf32 = tf32


@pytest.mark.parametrize(
    "name, count, rank, of, device",
    [
        ("auto", 0, None, 1, "cpu"),
        ("auto", 2, None, 1, "cuda:0"),
        ("cuda", 2, None, 1, "cuda:0"),
        ("cuda:1", 2, None, 1, "cuda:1"),
        ("cpu", 2, None, 1, "cpu"),
        ("auto", 2, 1, 2, "cuda:1"),
        ("cuda", 2, 1, 2, "cuda:1"),
        ("cuda", 4, 2, 3, "cuda:2"),
        ("cuda:1", 2, 0, 1, "cuda:1"),
        ("cpu", 1, 1, 2, "cpu"),
        ("auto", 0, 1, 2, "cpu"),
    ],
)
def test_each_process_has_the_device_it_is_given(gpus, name, count, rank, of, device):
    made_current = gpus(count, rank, of)
    assert pick_device(name) == torch.device(device)
    # streams, events and graphs are made on the current device
    assert made_current == ([] if device == "cpu" else [torch.device(device)])


def test_the_accelerator_of_the_machine_is_allowed(gpus, monkeypatch):
    gpus(0)
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda: torch.device("mps"))
    monkeypatch.setattr(utils.device, "works", lambda device: True)
    assert pick_device("mps") == torch.device("mps") and pick_device("auto") == torch.device("cpu")
    with pytest.raises(UserError):
        pick_device("xpu")


@pytest.mark.parametrize(
    "name, count, rank, of, words",
    [
        ("cuda:1", 2, 0, 2, "--device cuda:1 puts all 2 processes on one GPU"),
        ("cuda", 1, 0, 2, "2 processes for 1 GPU, "),
        ("auto", 2, 2, 4, "4 processes for 2 GPUs, .*--nproc_per_node 2"),
        ("cuda:2", 2, None, 1, "--device cuda:2: there is no such device"),
        ("cuda", 0, None, 1, "--device cuda: there is no such device"),
        ("cuda", 0, 1, 2, "--device cuda: there is no such device"),
        ("meta", 0, None, 1, "--device meta: there is no such device"),
        ("gpu", 1, None, 1, "--device gpu: there is no such device"),
        ("mps", 0, None, 1, "--device mps: there is no such device"),
    ],
)
def test_other_devices_are_one_line(gpus, name, count, rank, of, words):
    made_current = gpus(count, rank, of)
    with pytest.raises(UserError, match=words):
        pick_device(name)
    assert made_current == []


def test_fp32_on_a_gpu_is_no_tf32(gpus):
    gpus(1)
    pick_device("cpu")
    assert torch.backends.cudnn.allow_tf32
    pick_device("cuda")
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


@pytest.mark.parametrize("before", [False, True])
def test_searching_for_algorithms_ends_with_the_steps(before, monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", before)
    with pytest.raises(KeyError), cudnn_benchmark(not before):
        assert torch.backends.cudnn.benchmark is not before
        raise KeyError
    assert torch.backends.cudnn.benchmark is before


def test_a_gpu_without_a_driver_that_suits_is_none(gpus, monkeypatch):
    gpus(1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # it is counted all the same
    assert pick_device("auto") == torch.device("cpu")


def test_a_gpu_whose_memory_is_full_is_there(monkeypatch):
    def full(*_, **__):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 MiB")

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "empty", full)
    with pytest.raises(UserError, match="--device cuda:0: no memory is free"):
        pick_device("cuda")
