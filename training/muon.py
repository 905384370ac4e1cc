"""Muon for the convolutions between feature maps, AdamW for all other weights."""

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from utils.distributed import from_main

MOMENTUM = 0.95
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5


def orthogonalized(matrices: Tensor) -> Tensor:
    """About U V^T of the singular value decomposition U S V^T of each matrix: [N, rows, columns] -> the same shape.

    Five steps of a Newton-Schulz iteration with the coefficients of Jordan et al. 2024, "Muon: An optimizer for hidden
    layers in neural networks", after which the singular values lie between about 0.7 and 1.2.
    """
    x = matrices
    tall = x.shape[1] > x.shape[2]
    if tall:
        x = x.mT
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=1e-7)
    a, b, c = COEFFICIENTS
    for _ in range(ITERATIONS):
        gram = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.mT if tall else x


class Muon(torch.optim.AdamW):
    """AdamW, but Muon for the weights in ``hidden``: their step is their momentum, orthogonalized.

    The weight of a convolution is the matrix that maps a patch of the input to a pixel of the output; that of a
    transposed one, from a pixel to a patch. Steps have the size of AdamW's (Liu et al. 2025, "Muon is Scalable for LLM
    Training"), so one learning rate serves both. `torch.optim.Muon` takes matrices alone, one at a time, reads the
    learning rate back and has no ``found_inf``.

    Args:
        parameters: all weights.
        hidden: those of them that Muon updates, of at least two dimensions.
        settings: of AdamW; lr and weight_decay are shared.
    """

    def __init__(self, parameters: Iterable[nn.Parameter], hidden: Iterable[nn.Parameter], **settings: Any):
        super().__init__(parameters, **settings)
        by_shape: dict[torch.Size, list[Tensor]] = defaultdict(list)
        for parameter in hidden:
            by_shape[parameter.shape].append(parameter)
        self.hidden = list(by_shape.values())
        native = torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
        on_gpu = all(weights[0].is_cuda for weights in self.hidden)
        # one type in all processes, whose weights must stay equal; many CPUs emulate bf16
        self.dtype = from_main(torch.bfloat16 if on_gpu and native else torch.float32)

    def updates(self, weight: Tensor) -> bool:
        """Whether Muon updates a weight."""
        return any(weight is other for weights in self.hidden for other in weights)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # no step needs a closure here
        """Update all weights; none, and no momentum, where ``found_inf`` is 1."""
        for weights in self.hidden:
            self._step(weights)
            for weight in weights:
                weight.grad = None  # AdamW leaves it alone
        super().step()

    def _step(self, weights: list[Tensor]) -> None:
        """Muon's step of weights of one shape."""
        (group,) = self.param_groups
        for weight in weights:
            if not self.state[weight]:
                # AdamW's class wants a step in a state that it loads
                step = torch.zeros((), device=weight.device)
                self.state[weight] = {"step": step, "momentum_buffer": torch.zeros_like(weight)}
        momenta = [self.state[weight]["momentum_buffer"] for weight in weights]
        gradients: list[Tensor] = [weight.grad for weight in weights]  # type: ignore[misc]  # all have one
        bad = getattr(self, "found_inf", None)
        if bad is not None:
            # a non-finite number times 0 is none: the momentum stands in for such a gradient
            gradients = [torch.where(bad > 0, m, g) for g, m in zip(gradients, momenta, strict=True)]
        torch._foreach_lerp_(momenta, gradients, 1 - MOMENTUM)
        nesterov = torch.stack(torch._foreach_lerp(gradients, momenta, MOMENTUM)).flatten(2)
        size = 0.2 * max(nesterov.shape[1:]) ** 0.5
        change = orthogonalized(nesterov.to(self.dtype)).float() * (group["lr"] * size)
        decay = group["lr"] * group["weight_decay"]
        if bad is not None:
            change, decay = change * (1 - bad), decay * (1 - bad)
        if group["weight_decay"]:
            torch._foreach_mul_(weights, 1 - decay)
        torch._foreach_sub_(weights, list(change.view(-1, *weights[0].shape).unbind()))
