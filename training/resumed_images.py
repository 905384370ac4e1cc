"""Whether a run is resumed on the images that it had."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from data import ImageSet
from utils.console import notify
from utils.distributed import rank
from utils.errors import UserError
from utils.text import composed, listed, printable


def image_list(*splits: ImageSet) -> str:
    """A hash of the images' names, which changes where one is added, removed or renamed."""
    names = "\n".join(composed(path) for split in splits for path in split.paths)
    return hashlib.sha256(names.encode(errors="surrogateescape")).hexdigest()


def check_images(checkpoint: dict[str, Any], path: Path, class_names: Sequence[str], images: str) -> None:
    """Raise UserError where the run in ``checkpoint`` has other classes; warn where its `image_list` is another."""
    run = printable(path.parent)
    before = tuple(composed(str(name)) for name in checkpoint["class_names"])
    now = tuple(map(composed, class_names))
    if before != now:
        changes = [
            f"{listed(sorted(names), 5)} {what}"
            for names, what in (({*before} - {*now}, "gone"), ({*now} - {*before}, "new"))
            if names
        ]
        raise UserError(
            f"the run in {run} has other classes than these images ({', '.join(changes) or 'in another order'}); "
            f"give the --data_dir that it was trained on, or start a new run with --load_params {printable(path)}"
        )
    if checkpoint.get("images", images) != images and rank() == 0:  # older ones lack it
        notify(f"warning: the images are not those that the run in {run} had; it goes on with these, in another order")
