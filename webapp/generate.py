"""The tabs Generate and Complete draw alike: row by row, with a ZIP of the PNG files at the end."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from evaluation.generation import draw_rows, keep_top, sample_name
from model import PixelCNN
from model.temperature import sample_temperature
from plots.images import grid_picture, to_pil, write_zip
from utils.errors import UserError
from utils.text import file_stems, printable
from utils.values import PositiveInt, Seed, Temperature, validated
from webapp.events import WORK, stopped_by, told, waits
from webapp.files import picture_file, result_folder
from webapp.turns import Turns

MAX_PER_CLASS = 25
MAX_IMAGES = 200  # of one drawing
BATCH_SIZE = 16  # images of a turn: a row of them takes a fraction of a second on a CPU
MANY_CLASSES = 12  # above which none is chosen at first


@dataclass(frozen=True)
class Drawing:
    """What is drawn so far.

    Args:
        picture: a grid with a row for each class.
        status: in words.
        file: the ZIP of all images; None until they are complete.
    """

    picture: Image.Image
    status: str
    file: Path | None = None


class Generator:
    """What generate.py does, row by row and in turns with others.

    Args:
        net: the network.
        turns: on its device.
    """

    def __init__(self, net: PixelCNN, turns: Turns):
        self.net, self.turns = net, turns
        self.names = [printable(name) for name in net.class_names]
        self.stems = file_stems(net.class_names)
        self.temperature = sample_temperature(None, net)

    def check(self, classes: Sequence[int], per_class: int) -> None:
        """Raise UserError unless these images may be drawn."""
        if not classes:
            raise UserError("no class is chosen; choose one or more")
        if any(type(label) is not int or label not in range(self.net.num_classes) for label in classes):
            raise UserError("the network has no such class; choose one of the list")
        if not 1 <= per_class <= MAX_PER_CLASS:
            raise UserError(f"{per_class} images of each class: draw 1 to {MAX_PER_CLASS}")
        if len(classes) * per_class > MAX_IMAGES:
            raise UserError(
                f"{len(classes)} classes of {per_class} images are too many; draw at most {MAX_IMAGES} images at a time"
            )

    def draw(
        self,
        classes: Sequence[int],
        per_class: int,
        temperature: float,
        seed: int,
        original: Tensor | None = None,
        kept_rows: int = 0,
    ) -> Iterator[Drawing]:
        """Draw ``per_class`` images of each class; after each row what there is so far.

        With ``original``, uint8 [C, H, W], its top ``kept_rows`` rows are completed; the grid then shows it first, and
        the rows kept. Raises UserError for what cannot be drawn.
        """
        for name, value in (("number of images", per_class), ("temperature", temperature), ("seed", seed)):
            if value is None:
                raise UserError(f"the {name} is empty; give a number")
        per_class = validated(PositiveInt, per_class, "images of each class")
        temperature = validated(Temperature, temperature, "temperature")
        seed = validated(Seed, seed, "seed")
        classes = sorted(set(classes))
        self.check(classes, per_class)
        keep, shown = None, list[Tensor]()
        if original is not None:
            keep, blanked = keep_top(original, kept_rows)
            shown = [original, blanked]
        wanted = [(label, number) for label in classes for number in range(per_class)]
        size = (self.net.image_channels, *self.net.image_size)
        blank = torch.full(size, 128, dtype=torch.uint8) if original is None else shown[-1]
        images = dict.fromkeys(wanted, blank)
        steps = draw_rows(
            self.net,
            classes,
            per_class,
            self.net.image_size,
            seed=seed,
            temperature=temperature,
            batch_size=BATCH_SIZE if self.on_cpu else None,
            keep=keep,
        )
        done = 0
        for part in self.turns.each(steps):
            images.update(zip(part.batch, part.images, strict=True))
            complete = part.rows == size[1]
            if part.rows > kept_rows:  # the rows kept are there already
                first = done + 1
                which = f"image {first}" if len(part.batch) == 1 else f"images {first} to {done + len(part.batch)}"
                status = f"Row {part.rows} of {size[1]}, {which} of {len(wanted)}."
                yield Drawing(self.grid(classes, images, shown), status)
            done += len(part.batch) if complete else 0
        grid = self.grid(classes, images, shown)
        yield Drawing(grid, self.finished(len(wanted), original is not None), self.zipped(images, grid))

    @property
    def on_cpu(self) -> bool:
        return next(self.net.parameters()).device.type == "cpu"

    def grid(
        self, classes: Sequence[int], images: dict[tuple[int, int], Tensor], shown: Sequence[Tensor]
    ) -> Image.Image:
        """A row for each class: the images ``shown`` before, and its own."""
        tiles = [(label, image) for label in classes for image in shown]
        tiles += [(label, image) for (label, _), image in images.items()]
        labels = torch.tensor([label for label, _ in tiles])
        return grid_picture(torch.stack([image for _, image in tiles]), labels, self.names, len(tiles))

    def zipped(self, images: dict[tuple[int, int], Tensor], grid: Image.Image) -> Path:
        """A ZIP of the PNG files that generate.py writes, and of the grid."""
        with result_folder() as folder:
            path = folder / "samples.zip"
            named = [
                (sample_name(self.stems[label], number), to_pil(image)) for (label, number), image in images.items()
            ]
            write_zip([*named, ("samples_grid.png", grid)], path)
        return path

    def finished(self, count: int, completed: bool) -> str:
        what = "completion" if completed else "image"
        return f"Done: {count} {what}{'s' if count > 1 else ''}."


def class_choice(generator: Generator) -> gr.CheckboxGroup | gr.Dropdown:
    """An input for the classes to draw."""
    choices = list(zip(generator.names, range(len(generator.names)), strict=True))
    if len(choices) <= MANY_CLASSES:
        return gr.CheckboxGroup(choices, value=list(range(len(choices))), label="Classes", elem_id="classes")
    return gr.Dropdown(choices, value=[0], multiselect=True, label="Classes", elem_id="classes")


def temperature_input(generator: Generator) -> gr.Slider:
    """An input for the temperature."""
    return gr.Slider(
        0.1,
        1.5,
        value=min(max(generator.temperature, 0.1), 1.5),
        step=0.05,
        label="Temperature",
        info="1 samples from the model itself; less gives likelier and less varied images",
    )


def result_picture(text: str, name: str) -> gr.Image:
    """A place for a grid; its label would cover the first image, so that ``text`` is for screen readers alone."""
    buttons: list[Any] = ["download", "fullscreen"]
    return gr.Image(show_label=False, alt_text=text, format="png", buttons=buttons, interactive=False, elem_id=name)


def generate_tab(generator: Generator) -> None:
    """Build the tab inside a `gr.Blocks`."""
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            classes = class_choice(generator)
            per_class = gr.Slider(1, MAX_PER_CLASS, value=4, step=1, label="Images of each class", elem_id="per_class")
            temperature = temperature_input(generator)
            seed = gr.Number(0, precision=0, minimum=0, maximum=2**32 - 1, label="Seed", elem_id="seed")
            with gr.Row():
                start = gr.Button("Draw", variant="primary", elem_id="draw")
                stop = gr.Button("Stop", elem_id="draw_stop")
        with gr.Column(scale=3, min_width=280):
            status = gr.HTML("<p>The images appear here, row by row.</p>", elem_id="draw_status")
            picture = result_picture("The images drawn so far", "samples")
            archive = gr.DownloadButton("Download the PNG files (ZIP)", visible=False, elem_id="zip")

    @told
    def draw(*values: Any) -> Iterator[dict[Any, Any]]:
        yield {archive: gr.update(visible=False)}
        for drawing in generator.draw(*values):
            yield drawn(drawing)

    def drawn(drawing: Drawing) -> dict[Any, Any]:
        update: dict[Any, Any] = {picture: picture_file(drawing.picture), status: drawing.status}
        if drawing.file is not None:
            update[archive] = gr.update(value=str(drawing.file), visible=True)
        return update

    waits(start.click, status)
    event = start.click(draw, [classes, per_class, temperature, seed], [picture, status, archive], **WORK)
    stopped_by(stop, status, [event])
