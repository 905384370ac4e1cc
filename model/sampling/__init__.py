"""Sampling of images pixel by pixel, incrementally (caches of causal convolutions) or naively."""

from model.sampling.sampler import Sampler, image_generators, sample

__all__ = ["Sampler", "image_generators", "sample"]
