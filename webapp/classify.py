"""The tab Classify: one photo or many; probabilities, bits/dim, typicality, attribution map and CSV."""

import html
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import gradio as gr
import torch
from PIL import Image
from torch import Tensor

from evaluation.attribution import attribution_maps
from evaluation.images import images_of_uploads
from evaluation.prediction_file import PredictionFile
from evaluation.predictions import Prediction, class_probabilities, predict
from evaluation.scoring import Scorer
from evaluation.typicality import stored_reference, typicality_warning
from model import PixelCNN
from model.temperature import posterior_temperature
from plots.attribution import attribution_picture
from utils.errors import DataError, UserError
from utils.text import printable
from webapp.events import QUICK, WORK, photo_input, photos_input, stopped_by, told, waits
from webapp.files import forget, picture_file, result_folder
from webapp.turns import Turns

MAX_PHOTOS = 500  # at a time
SHOWN = 20  # classes whose probabilities are drawn
NOTHING = "<p>The result appears here.</p>"
COLUMNS = ("photo", "class", "probability", "bits/dim", "typicality", "note")


@dataclass
class Classified:
    """Photos that were classified.

    Args:
        images: uint8 [C, H, W] of each photo, or why it could not be read.
        predictions: of the photos, in order; fewer while the others are computed.
        file: the CSV file; None until all are computed.
    """

    images: list[Tensor | DataError]
    predictions: list[Prediction]
    file: Path | None = None


class Classifier:
    """What classify.py does with its defaults, in turns with others.

    Args:
        net: the network.
        turns: on its device.
    """

    def __init__(self, net: PixelCNN, turns: Turns):
        self.net, self.turns = net, turns
        self.names = [printable(name) for name in net.class_names]
        self.scorer = Scorer(net, "auto", None, net.image_size)
        self.temperature = posterior_temperature(None, net)
        self.reference = stored_reference(net)

    def warm_up(self) -> None:
        """Classify a blank image, so that the first photo does not wait for what PyTorch prepares."""
        image = torch.zeros(1, self.net.image_channels, *self.net.image_size, dtype=torch.uint8)
        self.turns.run(self.scorer, image)
        if self.net.num_classes > 1:
            self.map(image[0], 0, 1)

    def classify(self, files: Sequence[str | Path]) -> Iterator[Classified]:
        """Read and classify photos, and write the CSV of classify.py: after each photo what is known so far.

        The files are removed soon after. Raises UserError for too many photos.
        """
        if len(files) > MAX_PHOTOS:
            forget(files)
            raise UserError(f"{len(files)} photos are too many at a time; drop at most {MAX_PHOTOS}")
        uploads = images_of_uploads(files, self.net)
        result = Classified([], [])
        try:
            for i in range(len(files)):  # before the turns: decoding a large photo must not hold up others
                try:
                    result.images.append(uploads.read(i))
                except DataError as error:
                    result.images.append(error)
                yield result
        finally:
            forget(files)

        def read(i: int) -> Tensor:
            image = result.images[i]
            if isinstance(image, DataError):
                raise image
            return image

        images = replace(uploads, read=read)
        with result_folder() as folder:
            path = folder / "predictions.csv"
            steps = predict(self.scorer, images, None, self.temperature, reference=self.reference)
            with PredictionFile(path, self.net.class_names, {}, images) as file:
                for prediction in self.turns.each(steps):
                    file.write(prediction)
                    result.predictions.append(prediction)
                    yield result
        result.file = path
        yield result

    def probabilities(self, prediction: Prediction) -> dict[str, float]:
        """The probability of each class, as the CSV's confidence is that of the best one."""
        return dict(zip(self.names, class_probabilities(prediction, None, self.temperature), strict=True))

    def map(self, image: Tensor, first: int, second: int) -> tuple[Image.Image, float]:
        """The attribution map of uint8 [C, H, W] over the image, and the sum of its values in nats."""
        maps = self.turns.run(attribution_maps, self.net, image[None], torch.tensor([first]), torch.tensor([second]))
        nats = maps[0].cpu()
        return attribution_picture(image, nats), float(nats.sum())

    def verdict(self, prediction: Prediction) -> str:
        """The result in words, as HTML."""
        p = prediction
        name = html.escape(self.names[p.label])
        lines = [
            f"<strong class='verdict'>{name}</strong> with probability {p.confidence:.3f}",
            f"{p.bpd:.3f} bits/dim",
        ]
        if not math.isnan(p.typicality):
            lines.append(f"typicality {p.typicality:.2f}, the share of known images that are odder")
        warning = typicality_warning(p.typicality)
        note = f"<p class='warning' role='alert'>{html.escape(warning)}</p>" if warning else ""
        if not self.net.conditional:
            note += "<p class='warning'>This network does not see the class: its labels mean nothing.</p>"
        return f"<p>{'<br>'.join(lines)}</p>{note}"

    def row(self, prediction: Prediction) -> list[str]:
        """The cells of COLUMNS."""
        p = prediction
        if p.error:
            return [printable(p.name), "", "", "", "", p.error]
        typicality = "" if math.isnan(p.typicality) else f"{p.typicality:.2f}"
        note = typicality_warning(p.typicality)
        return [printable(p.name), self.names[p.label], f"{p.confidence:.3f}", f"{p.bpd:.3f}", typicality, note]


def explain_map(names: Sequence[str], first: int, second: int, nats: float) -> str:
    """What the colours of a map mean, as HTML."""
    one, other = html.escape(names[first]), html.escape(names[second])
    return f"In the map, red pixels are likelier as {one}, blue ones as {other}; together {nats:+.0f} nats."


def classify_tab(classifier: Classifier) -> None:
    """Build the tab inside a `gr.Blocks`."""
    names = classifier.names
    choices = list(zip(names, range(len(names)), strict=True))
    compared = len(names) > 1
    with gr.Row():
        with gr.Column(scale=2, min_width=280):
            photo = photo_input("One photo: drop, choose, paste, or use the camera", height=300, elem_id="photo")
            several = photos_input("Or many photos", height=140, elem_id="photos")
            with gr.Row():
                stop = gr.Button("Stop", size="sm", elem_id="classify_stop")
                clear = gr.Button("Clear", size="sm")
            status = gr.HTML("", elem_id="classify_status")
        with gr.Column(scale=3, min_width=280):
            verdict = gr.HTML(NOTHING, elem_id="verdict")
            label = gr.Label(
                label="Probability of each class", num_top_classes=SHOWN, show_heading=False, visible=False
            )
            with gr.Row(visible=False) as pair:
                first = gr.Dropdown(choices, label="Compare", type="value", elem_id="first")
                second = gr.Dropdown(choices, label="with", type="value", elem_id="second")
            meaning = gr.HTML("")
            picture = gr.Image(
                show_label=False,
                alt_text="Attribution map over the photo",
                format="png",
                visible=False,
                buttons=["fullscreen"],
                interactive=False,
                height=300,
                elem_id="map",
            )
    table = gr.Dataframe(
        headers=list(COLUMNS),
        label="Photos: choose a row to see it above",
        interactive=False,
        visible=False,
        wrap=True,
        elem_id="table",
    )
    csv = gr.DownloadButton("Download the CSV of classify.py", visible=False, elem_id="csv")
    state = gr.State(None, time_to_live=3600)
    chosen = gr.State(0, time_to_live=3600)
    outputs = [status, verdict, label, pair, first, second, picture, meaning, table, csv, state, chosen]

    def empty() -> dict[Any, Any]:
        """What the page shows without a photo."""
        hidden = {part: gr.update(visible=False) for part in (label, pair, picture, table, csv)}
        return hidden | {status: "", verdict: NOTHING, meaning: "", state: None, chosen: 0}

    def shown(result: Classified, number: int) -> dict[Any, Any]:
        """What the page shows of photo ``number``."""
        image, p = result.images[number], result.predictions[number]
        if p.error or isinstance(image, DataError):
            raise UserError(p.error)
        update: dict[Any, Any] = {
            verdict: classifier.verdict(p),
            label: gr.update(value=classifier.probabilities(p), visible=True),
            chosen: number,
        }
        if not compared:
            return update
        drawn, nats = classifier.map(image, p.label, p.second)
        return update | {
            pair: gr.update(visible=True),
            first: p.label,
            second: p.second,
            picture: gr.update(value=picture_file(drawn), visible=True),
            meaning: explain_map(names, p.label, p.second, nats),
        }

    @told
    def classify(files: str | list[str] | None) -> Iterator[dict[Any, Any]]:
        files = [files] if isinstance(files, str) else files or []
        if not files:  # the photo was taken away
            yield empty()
            return
        many = len(files) > 1
        yield {status: "Reading …", table: gr.update(visible=False), csv: gr.update(visible=False)}
        result: Classified | None = None
        for result in classifier.classify(files):
            if len(result.images) < len(files):
                yield {status: f"Read {len(result.images)} of {len(files)} photos."}
            elif many:
                yield {status: f"Classified {len(result.predictions)} of {len(files)} photos."}
        assert result is not None
        failed = [p for p in result.predictions if p.error]
        if not many and failed:
            yield empty()
            raise UserError(failed[0].error)
        done = f"{len(files)} photos" if many else "Done"
        problems = f", of which {len(failed)} could not be read" if failed else ""
        rows = [classifier.row(p) for p in result.predictions]
        update = {
            status: f"{done}{problems}.",
            table: gr.update(value=rows, visible=many),
            csv: gr.update(value=str(result.file), visible=True),
            state: result,
        }
        good = next((i for i, p in enumerate(result.predictions) if not p.error), None)
        yield (empty() if good is None else shown(result, good)) | update

    @told
    def choose(result: Classified | None, event: gr.SelectData) -> Iterator[dict[Any, Any]]:
        if result is not None and 0 <= event.index[0] < len(result.predictions):
            yield shown(result, event.index[0])

    @told
    def compare(result: Classified | None, number: int, one: int | None, other: int | None) -> Iterator[dict[Any, Any]]:
        image = None if result is None or number >= len(result.images) else result.images[number]
        if isinstance(image, Tensor) and one is not None and other is not None:
            drawn, nats = classifier.map(image, one, other)
            yield {picture: picture_file(drawn), meaning: explain_map(names, one, other, nats)}

    # of photos that are dropped one after the other, the last one counts
    for trigger in (photo.input, several.upload):
        waits(trigger, status)
    one = photo.input(classify, photo, outputs, trigger_mode="always_last", **WORK)
    many = several.upload(classify, several, outputs, trigger_mode="always_last", **WORK)
    table.select(choose, state, outputs, **WORK)
    for dropdown in (first, second):
        dropdown.input(compare, [state, chosen, first, second], [picture, meaning], **WORK)
    stopped_by(stop, status, [one, many])
    cleared = clear.click(None, None, None, cancels=[one, many], **QUICK)
    cleared.then(lambda: empty() | {photo: None, several: None}, None, [*outputs, photo, several], **QUICK)
