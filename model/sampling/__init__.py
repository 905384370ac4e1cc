"""Drawing images pixel by pixel: the sampler, and the incremental twin of the network that computes each value once."""

from model.sampling.sampler import Sampler, image_generators, sample

__all__ = ["Sampler", "image_generators", "sample"]
