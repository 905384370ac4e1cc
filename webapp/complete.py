"""The tab Complete: the top rows of a photo are kept, and the rest is drawn for each class."""

import base64
import html
from collections.abc import Iterator
from typing import Any

import gradio as gr
from torch import Tensor

from evaluation.images import images_of_uploads
from plots.images import png_bytes, to_pil
from utils.errors import UserError
from utils.values import PositiveInt, validated
from webapp.events import WORK, photo_input, stopped_by, told, waits
from webapp.files import forget, picture_file
from webapp.generate import Generator, class_choice, result_picture, temperature_input

MAX_EACH = 6  # completions of each class

# the range covers the photo, so that a drag anywhere on it moves the boundary, and arrow keys do
BOUNDARY = """
<div class="boundary" style="--kept: ${100 * value / height}%; --shown: ${image ? 'block' : 'none'}">
  <div class="frame">
    <img src="${image}" alt="The photo as the network sees it">
    <div class="rest"></div>
    <input type="range" min="1" max="${height - 1}" step="1" value="${value}" aria-label="Rows of the photo to keep">
  </div>
  <p>Drag the line, or use the arrow keys: the top <output>${value}</output> of ${height} rows are kept.</p>
</div>
"""
STYLE = """
.boundary { display: var(--shown); }
.frame { position: relative; width: min(100%, 320px); touch-action: none; }
.frame img { display: block; width: 100%; image-rendering: pixelated; border-radius: 4px; }
.rest { position: absolute; inset: var(--kept) 0 0 0; border-top: 3px solid #f97316;
  background: rgb(128 128 128 / 75%); }
.frame input { position: absolute; inset: 0; width: 100%; height: 100%; margin: 0; opacity: 0; cursor: ns-resize;
  writing-mode: vertical-lr; direction: ltr; }
.frame:has(input:focus-visible) { outline: 3px solid #f97316; outline-offset: 3px; }
"""
SCRIPT = """
const show = (input) => {
  const kept = 100 * input.value / (Number(input.max) + 1);
  element.querySelector('.boundary').style.setProperty('--kept', kept + '%');
  element.querySelector('output').textContent = input.value;
};
element.addEventListener('input', (event) => show(event.target));
element.addEventListener('change', (event) => { props.value = Number(event.target.value); trigger('release'); });
"""


def data_uri(image: Tensor) -> str:
    """uint8 [C, H, W] as the address of a PNG, with nothing left on the disk."""
    return f"data:image/png;base64,{base64.b64encode(png_bytes(to_pil(image))).decode()}"


def read_photo(file: str, generator: Generator) -> Tensor:
    """The photo in an uploaded file, which is removed soon, as uint8 [C, H, W]. Raises UserError."""
    try:
        return images_of_uploads([file], generator.net).read(0)
    finally:
        forget([file])


def complete_tab(generator: Generator) -> None:
    """Build the tab inside a `gr.Blocks`."""
    height = generator.net.image_size[0]
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            photo = photo_input("Photo to complete", height=180, elem_id="start")
            boundary = gr.HTML(
                value=height // 2,
                html_template=BOUNDARY,
                css_template=STYLE,
                js_on_load=SCRIPT,
                elem_id="boundary",
                image="",
                height=height,
            )
            classes = class_choice(generator)
            each = gr.Slider(1, MAX_EACH, value=2, step=1, label="Completions of each class")
            with gr.Accordion("More settings", open=False):
                temperature = temperature_input(generator)
                seed = gr.Number(0, precision=0, minimum=0, maximum=2**32 - 1, label="Seed")
            with gr.Row():
                start = gr.Button("Complete", variant="primary", elem_id="complete")
                stop = gr.Button("Stop", elem_id="complete_stop")
        with gr.Column(scale=3, min_width=280):
            status = gr.HTML("<p>The completions appear here: the photo, the rows kept, and what is drawn.</p>",
                             elem_id="complete_status")  # fmt: skip
            picture = result_picture("The photo, the rows kept and the completions drawn so far", "completions")
            archive = gr.DownloadButton("Download the PNG files (ZIP)", visible=False)
    state = gr.State(None, time_to_live=3600)

    @told
    def load(file: str | None) -> Iterator[dict[Any, Any]]:
        if not file:  # the photo was taken away
            yield {state: None, boundary: gr.update(image=""), status: ""}
            return
        image = read_photo(file, generator)
        yield {state: image, boundary: gr.update(image=data_uri(image)), status: ""}

    @told
    def complete(
        image: Tensor | None, kept: Any, classes: list[int], each: int, temperature: float, seed: int
    ) -> Iterator[dict[Any, Any]]:
        if image is None:
            raise UserError("there is no photo to complete; drop one")
        rows = validated(PositiveInt, kept, "rows kept")
        yield {archive: gr.update(visible=False)}
        for drawing in generator.draw(classes, each, temperature, seed, image, rows):
            update: dict[Any, Any] = {picture: picture_file(drawing.picture), status: html.escape(drawing.status)}
            if drawing.file is not None:
                update[archive] = gr.update(value=str(drawing.file), visible=True)
            yield update

    def begin(image: Tensor | None, *values: Any) -> Iterator[dict[Any, Any]]:
        if image is None:
            yield {status: ""}
        else:
            yield from complete(image, *values)

    inputs = [state, boundary, classes, each, temperature, seed]
    outputs = [picture, status, archive]
    loaded = photo.input(load, photo, [state, boundary, status], **WORK)
    first = loaded.success(begin, inputs, outputs, **WORK)
    for trigger in (photo.input, boundary.release, start.click):
        waits(trigger, status)
    again = gr.on([boundary.release, start.click], complete, inputs, outputs, trigger_mode="always_last", **WORK)
    stopped_by(stop, status, [loaded, first, again])
