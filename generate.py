"""Sample images of chosen classes: python generate.py --checkpoint CKPT --per_class 25 --out samples.

Writes PNG files <class>_0001.png, ... into the folder --out, ready for FID, and beside it a grid of the first
ones of each class, <out>_grid.png. The random numbers of an image depend on --seed, its class and its index only;
rounding depends on the batch size, and can change a level. --fid REFERENCE also prints
their Fréchet Inception distance to REFERENCE; where that fails, the images are kept and the exit status is 1.

With --complete IMAGE... the top --keep_rows rows of each image are kept and the rest is sampled, --per_class times for
each class: <image>_<class>_0001.png, ...; the grid shows the image, the rows kept, and completions.
"""

import os
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from data import read_image
from evaluation.fid import FID, SafeFID
from evaluation.fid_reference import parse_reference
from evaluation.generation import MAX_PER_CLASS, draw_images, keep_top, prepare_folder, sample_name
from evaluation.inception import given_weights
from evaluation.predictions import warn_unconditional
from model import PRETRAINED_SAMPLES, PixelCNN, checkpoint_files, load_checkpoint
from model.temperature import sample_temperature
from plots.images import labelled_grid, write_png
from utils.arguments import parse_settings
from utils.console import notify
from utils.device import pick_device
from utils.distributed import barrier, gather, process_group, rank
from utils.errors import UserError
from utils.files import check_writable
from utils.outputs import check_inputs, file_path
from utils.script import run_script
from utils.text import composed, file_stems, printable
from utils.values import PathName, PathNames, PositiveInt, Seed, Temperature

PerClass = Annotated[int, Field(ge=1, le=MAX_PER_CLASS)]

GRID_COLUMNS = 10


@dataclass
class GenerateSettings:
    """Settings of generate.py.

    Args:
        checkpoint: a .pt file of pcnn_train.py, or an exported folder; by default the pretrained checkpoint for samples
            (burger, panda, koala, pizza).
        out: the folder to write to, new or empty.
        per_class: images of each class, 1 to a million.
        classes: names of the classes to sample, as in --classes pizza koala; all by default.
        seed: random seed, 0 to 2^32 - 1.
        temperature: at least 1e-6; 1 samples from the model, less gives likelier and less varied images; by default the
            checkpoint's, or 1.
        batch_size: images sampled together, at least 1; auto is 64 on a CPU, 512 on a GPU. Halved when memory runs out.
        complete: image files to complete, as in --complete a.png b.jpg.
        keep_rows: with --complete: rows to keep, from 1 to below the height of the network's images; half by default.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
        overwrite: write to a folder that holds files, remove earlier samples (*CLASS_0001.png, ...) from it, and
            replace the grid; other files stay, and so do images that are completed.
        fid: measure FID against this folder of images, .npz file of statistics (python -m pytorch_fid --save-stats), or
            DATASET:SPLIT such as cpen455:test.
        data_dir: where the files of --fid DATASET:SPLIT are; datasets/DATASET by default.
        fid_dims: features of the Inception network, 64, 192, 768 or 2048; values for different dims are not comparable.
        fid_weights: a copy of pytorch-fid's Inception weights; by default the file in torch's cache, downloaded if
            it is missing.
    """

    checkpoint: PathName = PRETRAINED_SAMPLES
    out: PathName = "samples"
    per_class: PerClass = 25
    classes: list[str] | None = None
    seed: Seed = 0
    temperature: Temperature | None = None
    batch_size: PositiveInt | Literal["auto"] = "auto"
    complete: PathNames | None = None
    keep_rows: PositiveInt | None = None
    device: str = "auto"
    overwrite: bool = False
    fid: PathName | None = None
    data_dir: PathName | None = None
    fid_dims: Literal[64, 192, 768, 2048] = 2048
    fid_weights: PathName | None = None


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(GenerateSettings, __doc__, argv)
    with process_group():
        return generate(settings)


def generate(settings: GenerateSettings) -> int:
    """Returns the exit status."""
    device = pick_device(settings.device)
    net = load_checkpoint(settings.checkpoint, device)
    for flag, values in (("--classes", settings.classes), ("--complete", settings.complete)):
        if values == []:
            raise UserError(f"{flag} has no values; give one or more, or leave it out")
    names = list(net.class_names) if settings.classes is None else [*map(composed, settings.classes)]
    unknown = [name for name in names if name not in net.class_names]
    if unknown:
        known = ", ".join(map(printable, net.class_names))
        raise UserError(f"--classes {printable(unknown[0])}: the checkpoint has no such class; it has {known}")
    classes = [net.class_names.index(name) for name in dict.fromkeys(names)]
    warn_unconditional(net, "the images of all classes are drawn from one distribution")
    temperature = sample_temperature(settings.temperature, net)
    if settings.temperature is None and temperature != 1 and rank() == 0:
        notify(
            f"sampling at the checkpoint's temperature, {temperature:g}; --temperature 1 samples from the model itself"
        )
    starts = images_to_complete(settings, net)
    folder = file_path(os.path.abspath(settings.out))  # even "." has a name
    grid = folder.with_name(f"{folder.name}_grid.png")
    stems = file_stems(net.class_names)
    read: list[str | Path] = [*checkpoint_files(settings.checkpoint), *(settings.complete or ())]
    reference = weights = None
    if settings.fid is not None and rank() == 0:
        if len(starts) * len(classes) * settings.per_class < 2:
            raise UserError("--fid needs two or more images; raise --per_class")
        reference = parse_reference(settings.fid, net.image_size, settings.data_dir, settings.fid_dims)
        if os.path.isdir(settings.fid) and folder.resolve().is_relative_to(Path(settings.fid).resolve()):
            raise UserError(f"--out {printable(folder)} is in the folder of --fid; give another one")
        read += reference if isinstance(reference, list) else []
        weights = given_weights(settings.fid_weights) if settings.fid_weights else None
    if os.path.lexists(grid) and not settings.overwrite:
        raise UserError(f"{printable(grid)} exists; give another --out, or --overwrite true to replace it")
    check_inputs([grid], read, "--out", settings.out)
    check_writable(grid)
    fid = None
    if reference is not None:
        fid = SafeFID(partial(FID, reference, settings.fid_dims, weights, device))
        fid.prepare()
    if rank() == 0:
        each = product(starts, classes, range(settings.per_class))
        written = (sample_name(start.prefix + stems[label], number) for start, label, number in each)
        prepare_folder(Path(settings.out), stems, settings.overwrite, written, read)
    barrier()  # until the folder is there

    batch_size = None if settings.batch_size == "auto" else settings.batch_size
    tiles: list[tuple[int, int, Tensor]] = []  # of the grid: row, column, image
    row_names: list[str] = []
    files: list[Path] = []
    for start in starts:
        first_row = len(row_names)
        row_names += [start.prefix + net.class_names[label] for label in classes]
        for row in range(first_row, len(row_names)):
            tiles += [(row, column - len(start.shown), image) for column, image in enumerate(start.shown)]
        for label, number, image in draw_images(
            net,
            classes,
            settings.per_class,
            net.image_size,
            seed=settings.seed,
            temperature=temperature,
            batch_size=batch_size,
            keep=start.keep,
        ):
            files.append(folder / sample_name(start.prefix + stems[label], number))
            write_png(image, files[-1])
            if number < GRID_COLUMNS:
                tiles.append((first_row + classes.index(label), number, image))
    everyone = gather((tiles, files))
    if rank() > 0:
        return 0
    drawn = {(row, column): image for tiles, _ in everyone for row, column, image in tiles}
    files = sorted(file for _, files in everyone for file in files)
    places = sorted(drawn)
    labelled_grid(
        torch.stack([drawn[place] for place in places]),
        torch.tensor([row for row, _ in places]),
        row_names,
        grid,
        GRID_COLUMNS + len(starts[0].shown),
    )
    completed = f", for each of {len(starts)} images completed" if settings.complete else ""
    print(f"{settings.per_class} images of each of {len(classes)} classes{completed}: {printable(folder)}")
    print(f"sample grid: {printable(grid)}")
    if fid is None or settings.fid is None:
        return 0
    line = fid.describe(fid.measure(lambda: files), len(files), printable(settings.fid))
    if line:
        print(line)
    return 0 if line else 1


@dataclass
class Start:
    """What sampling starts from: nothing, or the top rows of an image to complete."""

    prefix: str = ""  # of the files' names
    keep: Tensor | None = None  # uint8 [C, rows, W]
    shown: tuple[Tensor, ...] = ()  # in the grid before the samples: the image, and the rows kept, uint8 [C, H, W]


def images_to_complete(settings: GenerateSettings, net: PixelCNN) -> list[Start]:
    """The images of --complete, or one empty start without it. Raises UserError, DataError."""
    rows = settings.keep_rows or net.image_size[0] // 2
    if settings.complete is None:
        if settings.keep_rows:
            raise UserError("--keep_rows needs --complete IMAGE...")
        return [Start()]
    originals = [read_image(file, net.image_channels, net.image_size) for file in settings.complete]
    starts = []
    for stem, original in zip(file_stems([Path(file).stem for file in settings.complete]), originals, strict=True):
        kept, blanked = keep_top(original, rows)
        starts.append(Start(f"{stem}_", kept, (original, blanked)))
    return starts


if __name__ == "__main__":
    run_script(main)
