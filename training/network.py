"""The network that a run starts from."""

from typing import Any

from model import PixelCNN, load_any_checkpoint
from training.settings import TrainSettings
from utils.errors import UserError


def shape(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of `PixelCNN` that a run chooses and a checkpoint fixes."""
    return {name: getattr(settings, name) for name in ("nr_resnet", "nr_filters", "nr_logistic_mix", "fusion")}


def build_network(
    settings: TrainSettings, image_channels: int, num_classes: int, load_params: str | None = None
) -> PixelCNN:
    """A new network, with the weights of the checkpoint ``load_params`` where given. Raises UserError."""
    net = PixelCNN(**shape(settings), image_channels=image_channels, num_classes=num_classes, dropout=settings.dropout)
    if load_params:
        net.load_state_dict(load_initial_weights(load_params, settings, image_channels, num_classes).state_dict())
    return net


def load_initial_weights(
    path: str, settings: TrainSettings, image_channels: int, num_classes: int | None = None
) -> PixelCNN:
    """The network of --load_params; ``num_classes`` is None while the images have not been read.

    Raises UserError where its settings are not those of the run, CheckpointError where it cannot be read.
    """
    loaded = load_any_checkpoint(path, num_classes or 1, settings.fusion)
    wanted = shape(settings) | {"image_channels": image_channels}
    if num_classes:
        wanted["num_classes"] = num_classes
    for name, value in wanted.items():
        if loaded.settings[name] != value:
            raise UserError(
                f"--load_params {path} has {name} {loaded.settings[name]}, this run has {value}; "
                "give the checkpoint's settings, or another checkpoint"
            )
    return loaded
