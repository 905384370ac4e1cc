"""CUDA graphs: the kernels of a function of tensors, recorded once and then launched together."""

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor

T = TypeVar("T")


def capture(function: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
    """A graph of the kernels of ``function`` on the current device, and its result; nothing is computed yet.

    ``function`` must have run before, so that libraries have chosen algorithms and allocated workspaces. It must not
    synchronize with the host, and tensors that a replay reads must stay in the same memory. Raises what ``function``
    raises.
    """
    graph = torch.cuda.CUDAGraph()
    inference = torch.is_inference_mode_enabled()
    failure: Exception | None = None
    try:
        # the generator's state, shared by all graphs, must not be an inference tensor
        with torch.inference_mode(False), torch.cuda.graph(graph, stream=torch.cuda.Stream()):
            try:
                with torch.inference_mode(inference):
                    result = function()
            except Exception as error:
                failure = error
                raise
    except Exception:
        if failure is not None:  # not the consequent failure to end the capture
            raise failure from None
        raise
    return graph, result


class GraphedFunction:
    """Calls ``function`` eagerly a few times, then captures it as a CUDA graph, replayed at every call.

    Random numbers follow torch's generator as in eager mode. Input shapes must not change.

    Args:
        function: of tensors on a CUDA device -> a tensor, which the next call overwrites; see `capture`.
    """

    WARMUP = 3  # calls before the capture

    def __init__(self, function: Callable[..., Tensor]):
        self.function = function
        self.calls = 0
        self.side: torch.cuda.Stream | None = None
        self.graph: torch.cuda.CUDAGraph | None = None
        self.inputs: list[Tensor] = []
        self.output: Tensor  # of the last replay

    def __call__(self, *inputs: Tensor) -> Tensor:
        self.calls += 1
        if self.calls <= self.WARMUP:
            return self._on_side_stream(inputs)
        if self.graph is None:
            self.inputs = [x.clone() for x in inputs]
            self.graph, self.output = capture(lambda: self.function(*self.inputs))
        else:
            for kept, new in zip(self.inputs, inputs, strict=True):
                kept.copy_(new)
        self.graph.replay()
        return self.output

    def _on_side_stream(self, inputs: tuple[Tensor, ...]) -> Tensor:
        """Required before a capture, so that autograd launches no kernels on the main stream."""
        self.side = self.side or torch.cuda.Stream()
        here = torch.cuda.current_stream()
        self.side.wait_stream(here)
        with torch.cuda.stream(self.side):
            output = self.function(*inputs)
        here.wait_stream(self.side)
        return output
