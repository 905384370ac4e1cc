"""The settings of a training run: flags of pcnn_train.py, keys of configs/*.yaml and of a run's config.yaml."""

import dataclasses
from dataclasses import dataclass, field
from typing import Annotated, Literal

from pydantic import Field

from data import DatasetName
from evaluation.metrics import BestMetric
from evaluation.protocol import SelectOn
from evaluation.splits import Side
from layers import Fusion
from utils.errors import UserError
from utils.precision import Precision
from utils.values import (
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PathName,
    PositiveFloat,
    PositiveInt,
    Probability,
    Seed,
    Temperature,
)

DecayRate = Annotated[float, Field(gt=0, le=1)]


# tags of settings
FREE = {"free": True}  # may change when a run is resumed
# names something on one machine: may differ between the machines of a sweep, and is left out of an exported checkpoint
MACHINE = {"machine": True}
FOLDER = {"folder": True}  # of one run alone: cannot be swept


def tagged(tag: str) -> set[str]:
    """The names of the settings with a tag: free, machine or folder."""
    return {setting.name for setting in dataclasses.fields(TrainSettings) if tag in setting.metadata}


@dataclass
class TrainSettings:
    """Settings of a training run.

    Args:
        dataset: digits (part of scikit-learn), cpen455, cifar10, cifar100, mnist, fashion_mnist, svhn, or folder: class
            sub-folders below --data_dir.
        data_dir: folder of the data set, and where it is downloaded to; datasets/NAME by default.
        image_size: side in pixels, a multiple of 4 from 4 to 512; the data set's own by default.
        skip_bad_images: train and validate without the images that cannot be read; by default they are named and the
            run ends.
        save_dir: each run makes one folder below this one.
        run_dir: the exact folder of the run instead; it must be new or empty.
        sample_dir: folder of the sample grids; samples/ in the run's folder by default.
        resume: resume an interrupted run: its folder, or auto: the newest run of this configuration below
            --save_dir (or in --run_dir), and a new one where there is none. Other flags may be left out.
        load_params: start from the weights of this checkpoint (or exported folder), or of a starter-code state dict.
            Classes are matched by name; the others begin anew.
        tag: a word in the name of the run's folder.
        nr_resnet: residual blocks per resolution (R), at least 1.
        nr_filters: channels of the feature maps (F), at least 1.
        nr_logistic_mix: components of the mixture (K), at least 1.
        fusion: how the class enters: early (one-hot maps joined to the input), middle (embedding after every
            residual block), film (scale and shift of every block), late (an embedding at the coarsest resolution and
            before the head), combined as in early+film+late; none (then labels and accuracy mean nothing).
        dropout: rate of the residual blocks, 0 to below 1; small networks on small images need little.
        init: of new weights: default, or data (every convolution's output starts with mean 0 and standard deviation 1).
        batch_size: images per step (of each process under torchrun), at least 1.
        max_epochs: passes over the training images, at least 1.
        optimizer: adam, or muon for the convolutions between feature maps and adam for the other weights: lower
            bits/dim after as many epochs.
        lr: learning rate at its peak, above 0; with muon about 0.01.
        lr_schedule: decay multiplies lr by --lr_decay after each step; cosine brings it to 0 at the end.
        lr_decay: factor per STEP, above 0, at most 1.
        warmup: steps in which lr rises linearly from 0, at least 0.
        weight_decay: decoupled (AdamW), at least 0.
        discriminative_weight: w in the loss, bits/dim under the true class + w x cross-entropy (nats) of the Bayes
            posterior; 0 is plain maximum likelihood. More than 0 takes the likelihoods of all C classes in one pass:
            C times the time and memory of a plain step, or 1 + k times with --negatives k.
        posterior_temperature: T of that posterior, softmax(log p / T), at least 1e-6; not that of classify.py.
        negatives: wrong classes per image in the cross-entropy, chosen at random at each step, fewer than classes; all
            by default. No effect where that weight is 0.
        label_smoothing: share of the cross-entropy's target that is spread over all classes it compares, 0 to below 1.
            No effect where that weight is 0; metrics give the cross-entropy without it.
        discriminative_share: share of the images of each batch that count in the cross-entropy alone; with flip+shift
            only these are moved. By default all images count in both terms, and are moved. No effect where that weight
            is 0.
        cutmix_prob: probability of CutMix for the images that count in the cross-entropy alone: a rectangle of another
            one of the batch is pasted into them, and their label is both, by area; 0 to 1. It needs a
            discriminative_share. No effect where that weight is 0; metrics give the cross-entropy against such labels,
            which does not reach 0.
        teacher: distill from this file of python -m evaluation.baseline: the cross-entropy is against its posterior
            instead of the labels. No effect where that weight is 0; metrics give the cross-entropy against the labels.
        grad_clip: largest norm of the gradient of the loss; longer ones are scaled down to it; 0 is no limit. The size
            of Muon's steps hardly depends on it.
        ema: decay of the moving average of the weights that is evaluated, sampled from and exported; 0 is none.
        augment: none, flip (each image is mirrored in every other epoch), or flip+shift (and moved at random).
        largest_shift: with flip+shift, how far at most, as a fraction of a side; 0 to below 1.
        precision: of the network: fp32, bf16, fp16 (with loss scaling; CUDA only), or auto: bf16 where the device has
            it natively, fp16 on older GPUs, else fp32. Likelihood and weights stay fp32.
        compile: whether to compile the log-likelihood and its gradient with torch.compile; by default on CUDA, in runs
            of at least 5000 steps: the first step then takes one to several minutes.
        cuda_graph: whether to capture the training step as one CUDA graph; by default where one process uses a CUDA
            GPU. The numbers are those without it, up to rounding.
        seed: of the weights, the order of the images, dropout and the samples, 0 to 2^32 - 1.
        deterministic: bit-identical repetitions on CUDA too, with slower kernels (how much slower has
            not been measured); a CPU is deterministic anyway.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
        best_metric: which epoch best.pt is of: the best one on the images of --select_on by accuracy, balanced_accuracy
            (mean recall of the classes), f1 (macro) or bpd (bits/dim); bits/dim decide a tie. Accuracy hardly depends
            on classes of few images. last: nothing is chosen, best.pt is of the last epoch.
        select_on: validation: the epoch is chosen on the validation images, whose figures are then optimistic; or
            holdout: on a fixed tenth of the training images of each class, which are not trained on. The validation
            images are then evaluated once, at the end, with best.pt.
        eval_interval: epochs between evaluations of all images of --select_on, at least 1.
        sampling_interval: epochs between sample grids, also drawn after the last; 0 is never.
        sample_batch_size: images of a grid, equal per class, at least 1.
        fid_samples: images that FID is measured on with every sample grid, equal per class, against the data set's
            test split (the images of --select_on where it has none); 0 is never.
        metric_samples: images that the metrics of samples without a download are measured on with every sample grid,
            equal per class, against the same split at the network's size; 0 is never.
        fid_dims: features of the Inception network, 64, 192, 768 or 2048; values for different dims are not comparable.
        fid_weights: a copy of pytorch-fid's Inception weights; by default the file in torch's cache, downloaded if it
            is missing.
        save_interval: epochs between writes of last.pt, also written after the last, at least 1.
        save_minutes: last.pt is also written after this many minutes without a write; 0 is never.
        en_wandb: track the run with Weights & Biases; offline where there is no API key or no network.
        wandb_project: on W&B; by default WANDB_PROJECT, else conditional-pixelcnn.
        wandb_entity: the W&B user or team; by default WANDB_ENTITY, else your own.
        wandb_name: of the W&B run; by default WANDB_NAME, else W&B makes one up.
        wandb_group: of the W&B run; by default WANDB_RUN_GROUP, if any.
        wandb_tags: of the W&B run, as in --wandb_tags a b; by default WANDB_TAGS, if any.
        log_model: with --en_wandb, upload best.pt as an artifact at the end.
    """

    dataset: DatasetName = "cpen455"
    data_dir: PathName | None = field(default=None, metadata=FREE | MACHINE)
    image_size: Side | None = None
    save_dir: PathName = field(default="runs", metadata=FREE | MACHINE | FOLDER)
    run_dir: PathName | None = field(default=None, metadata=FREE | MACHINE | FOLDER)
    sample_dir: PathName | None = field(default=None, metadata=FREE | MACHINE | FOLDER)
    resume: PathName | None = field(default=None, metadata=FREE | MACHINE)
    load_params: PathName | None = field(default=None, metadata=MACHINE)
    skip_bad_images: bool = field(default=False, metadata=FREE)
    tag: str | None = None
    nr_resnet: PositiveInt = 2
    nr_filters: PositiveInt = 80
    nr_logistic_mix: PositiveInt = 10
    fusion: Fusion = "early+middle"
    dropout: Fraction = 0.5
    init: Literal["default", "data"] = "default"
    batch_size: PositiveInt = 16
    max_epochs: PositiveInt = field(default=200, metadata=FREE)
    optimizer: Literal["adam", "muon"] = "adam"
    lr: PositiveFloat = 2e-4
    lr_schedule: Literal["decay", "cosine"] = "decay"
    lr_decay: DecayRate = 0.999995
    warmup: NonNegativeInt = 0
    weight_decay: NonNegativeFloat = 0.0
    discriminative_weight: NonNegativeFloat = 0.0
    posterior_temperature: Temperature = 20.0
    negatives: PositiveInt | None = None
    label_smoothing: Fraction = 0.0
    discriminative_share: Fraction = 0.0
    cutmix_prob: Probability = 0.0
    teacher: PathName | None = field(default=None, metadata=MACHINE)
    grad_clip: NonNegativeFloat = 0.0
    ema: Fraction = 0.9995
    augment: Literal["none", "flip", "flip+shift"] = "none"
    largest_shift: Fraction = 1 / 16
    precision: Precision = "auto"
    compile: bool | None = field(default=None, metadata=FREE)
    cuda_graph: bool | None = field(default=None, metadata=FREE)
    seed: Seed = 1
    deterministic: bool = field(default=False, metadata=FREE)
    device: str = field(default="auto", metadata=FREE | MACHINE)
    best_metric: BestMetric = "accuracy"
    select_on: SelectOn = "validation"
    eval_interval: PositiveInt = field(default=1, metadata=FREE)
    sampling_interval: NonNegativeInt = field(default=25, metadata=FREE)
    sample_batch_size: PositiveInt = field(default=16, metadata=FREE)
    fid_samples: NonNegativeInt = field(default=100, metadata=FREE)
    metric_samples: NonNegativeInt = field(default=100, metadata=FREE)
    fid_dims: Literal[64, 192, 768, 2048] = field(default=2048, metadata=FREE)
    fid_weights: PathName | None = field(default=None, metadata=FREE | MACHINE)
    save_interval: PositiveInt = field(default=25, metadata=FREE)
    save_minutes: NonNegativeFloat = field(default=10.0, metadata=FREE)
    en_wandb: bool = field(default=False, metadata=FREE | MACHINE)
    wandb_project: str | None = field(default=None, metadata=FREE)
    wandb_entity: str | None = field(default=None, metadata=FREE)
    wandb_name: str | None = field(default=None, metadata=FREE)
    wandb_group: str | None = field(default=None, metadata=FREE)
    wandb_tags: list[str] | None = field(default=None, metadata=FREE)
    log_model: bool = field(default=False, metadata=FREE)


OF_THE_POSTERIOR = ("negatives", "label_smoothing", "discriminative_share", "cutmix_prob", "teacher")


def without_effect(settings: TrainSettings) -> list[str]:
    """The flags that were given, but change nothing as the cross-entropy has no weight."""
    defaults = TrainSettings()
    given = [f"--{name}" for name in OF_THE_POSTERIOR if getattr(settings, name) != getattr(defaults, name)]
    return [] if settings.discriminative_weight else given


RELATED = ("fusion", "discriminative_weight", "discriminative_share", "cutmix_prob")  # what check_settings looks at


def check_settings(settings: TrainSettings) -> None:
    """Raise UserError for settings that contradict each other."""
    if settings.fusion == "none" and settings.discriminative_weight:
        raise UserError(
            "--discriminative_weight: with --fusion none the network does not see the class; "
            "give another --fusion, or leave the weight out"
        )
    if settings.cutmix_prob and settings.discriminative_weight and not settings.discriminative_share:
        raise UserError(
            "--cutmix_prob: it changes only images that count in the cross-entropy alone; "
            "give --discriminative_share, 0.5 for instance"
        )
