"""Log-likelihoods, bits per dimension and the posterior over classes."""

import math
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from model.mixture import mixture_log_prob, to_unit
from model.pixelcnn import PixelCNN

Nats = TypeVar("Nats", float, Tensor)


@torch.no_grad()
def fold_weight_norm(net: PixelCNN) -> PixelCNN:
    """A copy in eval mode with plain weights: g v / ||v|| is computed once instead of at every call."""
    with torch.device("meta"):
        copy = PixelCNN(**net.settings)  # not a deepcopy, which would share the parametrised classes
    copy.load_state_dict({name: value.clone() for name, value in net.state_dict().items()}, assign=True)
    for module in list(copy.modules()):
        if parametrize.is_parametrized(module, "weight"):
            parametrize.remove_parametrizations(module, "weight", leave_parametrized=True)
    return copy.requires_grad_(False).eval()


def log_likelihood(net: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """log p(image | label) in nats: images uint8 [B, C, H, W], labels int64 [B] -> float32 [B]."""
    x = to_unit(images)
    return mixture_log_prob(x, net(x, labels).float())


@torch.inference_mode()
def class_log_likelihoods(net: PixelCNN, images: Tensor) -> Tensor:
    """log p(image | class) in nats for every class: images uint8 [B, C, H, W] -> float32 [B, num_classes].

    All classes are evaluated in one forward pass, on the network's device and in its current mode
    (call ``net.eval()`` first). Without a class in the network (fusion "none") all are exactly equal.
    """
    images = images.to(next(net.parameters()).device)
    if not net.conditional:  # one pass; separate ones would differ by rounding, and a label would be chance
        nats = log_likelihood(net, images, torch.zeros(len(images), dtype=torch.int64, device=images.device))
        return nats[:, None].repeat(1, net.num_classes)
    count = net.num_classes
    labels = torch.arange(count, device=images.device).repeat(len(images))
    return log_likelihood(net, images.repeat_interleave(count, dim=0), labels).view(len(images), count)


def posterior(log_likelihoods: Tensor, prior: Tensor | None = None, temperature: float = 1.0) -> Tensor:
    """p(class | image): log-likelihoods [B, num_classes], prior [num_classes] (uniform if None) -> [B, num_classes].

    A ``temperature`` above 1 lowers the confidence but keeps the predicted class (temperature scaling, Guo et al.
    2017): log-likelihood and log-prior are divided by it.
    """
    if prior is not None:
        log_likelihoods = log_likelihoods + prior.to(log_likelihoods).log()
    return (log_likelihoods / temperature).softmax(dim=1)


def bits_per_dim(nats: Nats, image_shape: tuple[int, ...]) -> Nats:
    """A negative log-likelihood in nats as bits per value of an image [C, H, W]."""
    return nats / (math.prod(image_shape) * math.log(2))
