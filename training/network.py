"""The network that a run starts from."""

from collections.abc import Sequence
from typing import Any

from evaluation.protocol import SAW_HELD_OUT, holds_out
from model import PixelCNN, copy_weights, load_any_checkpoint, match_classes
from training.settings import TrainSettings
from utils.console import notify
from utils.distributed import rank
from utils.errors import UserError
from utils.text import listed, printable

SHOWN = 10  # classes that a line names
OPTIMISTIC = "was trained on the images too that are held out here: what is measured on these is optimistic"


def shape(settings: TrainSettings) -> dict[str, Any]:
    """The arguments of `PixelCNN` that a run chooses and a checkpoint fixes."""
    return {name: getattr(settings, name) for name in ("nr_resnet", "nr_filters", "nr_logistic_mix", "fusion")}


def build_network(
    settings: TrainSettings, image_channels: int, class_names: Sequence[str], load_params: str | None = None
) -> PixelCNN:
    """A new network, with the weights of the checkpoint ``load_params`` where given. Raises UserError.

    A checkpoint of other classes gives the classes of the same name their weights; one line says which. ``metadata`` of
    the network is what `inherited` says.
    """
    net = PixelCNN(
        **shape(settings), image_channels=image_channels, num_classes=len(class_names), dropout=settings.dropout
    )
    if load_params:
        loaded = load_initial_weights(load_params, settings, image_channels, len(class_names))
        net.metadata = inherited(loaded, settings)
        if SAW_HELD_OUT in net.metadata and rank() == 0:
            notify(f"warning: --load_params {printable(load_params)} {OPTIMISTIC}")
        known = getattr(loaded, "class_names", class_names)  # starter weights have none
        same = {number: number for number in range(len(class_names))}
        matches = match_classes(class_names, known)
        if matches == same and loaded.num_classes == len(class_names):
            net.load_state_dict(loaded.state_dict())
        else:
            copy_weights(net, loaded, matches)
            if rank() == 0:
                notify(describe_matches(load_params, class_names, known, matches))
    return net


def load_initial_weights(path: str, settings: TrainSettings, image_channels: int, num_classes: int = 1) -> PixelCNN:
    """The network of --load_params; starter weights are given ``num_classes``.

    Raises UserError where its settings are not those of the run, CheckpointError where it cannot be read.
    """
    loaded = load_any_checkpoint(path, num_classes, settings.fusion)
    for name, value in shape(settings).items():
        if loaded.settings[name] != value:
            raise UserError(
                f"--load_params {path} has {name} {loaded.settings[name]}, this run has {value}; "
                f"give --{name} {loaded.settings[name]}, or another checkpoint"
            )
    if loaded.image_channels != image_channels:
        colours = {1: "gray", 3: "RGB"}
        raise UserError(
            f"--load_params {path} is of {colours[loaded.image_channels]} images, those of --dataset "
            f"{settings.dataset} are {colours[image_channels]}; give another data set, or another checkpoint"
        )
    return loaded


def saw_held_out(loaded: Any, settings: TrainSettings) -> bool:
    """Whether the held-out images of a run, if it has any, were among the training images of its first weights, or of
    its teacher."""
    if settings.select_on == "validation" or not loaded.metadata:  # starter weights do not say
        return False
    return loaded.dataset == settings.dataset and not holds_out(loaded)


def inherited(loaded: PixelCNN, settings: TrainSettings) -> dict[str, Any]:
    """What the checkpoints of a run say of the weights it starts from: their teacher, and whether they were trained on
    the images that are held out here."""
    said = {"teacher": loaded.metadata["teacher"]} if "teacher" in loaded.metadata else {}
    return said | ({SAW_HELD_OUT: True} if saw_held_out(loaded, settings) else {})


def describe_matches(path: str, class_names: Sequence[str], known: Sequence[str], matches: dict[int, int]) -> str:
    """One line: which classes start from those of the checkpoint ``path``, called ``known``, and which anew."""
    if not matches:
        return (
            f"--load_params {printable(path)}: none of its classes ({listed(known, SHOWN)}) is in this run; "
            "all classes begin anew, the other weights are taken over"
        )
    new = [name for number, name in enumerate(class_names) if number not in matches]
    begin = f"; {listed(new, SHOWN)} begin{'s' * (len(new) == 1)} anew" if new else ""
    taken = listed([class_names[number] for number in matches], SHOWN)
    return f"--load_params {printable(path)}: classes matched by name: {taken} taken over{begin}"
