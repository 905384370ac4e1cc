"""The network p(image | class), its likelihood, its sampler, the Bayes classifier and checkpoints."""

from model.checkpoint import (
    PRETRAINED,
    PRETRAINED_SAMPLES,
    check_description,
    check_tensors,
    check_weights,
    checkpoint_files,
    checkpoint_hash,
    load_checkpoint,
    read_checkpoint,
    save_checkpoint,
    torch_load,
    write_checkpoint,
)
from model.classes import copy_weights, match_classes
from model.initialization import data_dependent_init
from model.likelihood import bits_per_dim, class_log_likelihoods, fold_weight_norm, log_likelihood, posterior
from model.mixture import mixture_log_prob, mixture_sample, pixel_log_prob, to_levels, to_unit
from model.pixelcnn import SIDES, PixelCNN
from model.sampling import Sampler, image_generators, sample
from model.starter import load_any_checkpoint, load_starter_checkpoint
from utils.errors import CheckpointError

__all__ = [
    "PRETRAINED",
    "PRETRAINED_SAMPLES",
    "SIDES",
    "CheckpointError",
    "PixelCNN",
    "Sampler",
    "bits_per_dim",
    "check_description",
    "check_tensors",
    "check_weights",
    "checkpoint_files",
    "checkpoint_hash",
    "class_log_likelihoods",
    "copy_weights",
    "data_dependent_init",
    "fold_weight_norm",
    "image_generators",
    "load_any_checkpoint",
    "load_checkpoint",
    "load_starter_checkpoint",
    "log_likelihood",
    "match_classes",
    "mixture_log_prob",
    "mixture_sample",
    "pixel_log_prob",
    "posterior",
    "read_checkpoint",
    "sample",
    "save_checkpoint",
    "to_levels",
    "to_unit",
    "torch_load",
    "write_checkpoint",
]
