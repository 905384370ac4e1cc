"""The network of p(image | class), its likelihood, its sampler, the Bayes classifier and checkpoints."""

from model.bayes import class_log_likelihoods, fold_weight_norm, log_likelihood, posterior
from model.checkpoint import (
    CheckpointError,
    load_any_checkpoint,
    load_checkpoint,
    load_starter_checkpoint,
    read_checkpoint,
    save_checkpoint,
)
from model.initialization import data_dependent_init
from model.mixture import mixture_log_prob, mixture_sample, pixel_log_prob, to_levels, to_unit
from model.pixelcnn import SIDES, PixelCNN
from model.sampler import Sampler, image_generators, sample

__all__ = [
    "SIDES",
    "CheckpointError",
    "PixelCNN",
    "Sampler",
    "class_log_likelihoods",
    "data_dependent_init",
    "fold_weight_norm",
    "image_generators",
    "load_any_checkpoint",
    "load_checkpoint",
    "load_starter_checkpoint",
    "log_likelihood",
    "mixture_log_prob",
    "mixture_sample",
    "pixel_log_prob",
    "posterior",
    "read_checkpoint",
    "sample",
    "save_checkpoint",
    "to_levels",
    "to_unit",
]
