"""The tab Runs: curves, sample grids, confusion matrices and settings of several runs, also while they train."""

import html
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import altair
import gradio as gr
from gradio.components.plot import AltairPlotData
from PIL import Image

from data.images import MAX_PIXELS
from training.runs import RunContent, find_runs, metric_names, metric_title, points, read_folder, settings_table
from webapp.events import QUICK
from webapp.files import picture_file

MAX_RUNS = 6  # side by side
PANELS = 6  # curves at a time
FIRST = ("val_bpd", "accuracy", "train_bpd", "lr")  # metrics shown at first, those that there are
TICKS = 8  # of the axis of epochs
SECONDS = 5  # between refreshes


class Runs:
    """The runs below some folders, as they are at this moment.

    Args:
        folders: that are searched.
    """

    def __init__(self, folders: Sequence[str | Path]):
        self.folders = folders

    def names(self) -> list[str]:
        """The one that changed last first."""
        return list(find_runs(self.folders))

    def read(self, chosen: Sequence[str]) -> list[RunContent]:
        """The runs of these names that there are; only names that `names` gives are opened."""
        found = find_runs(self.folders)
        return [read_folder(name, found[name]) for name in chosen[:MAX_RUNS] if name in found]


def short_names(names: Sequence[str]) -> dict[str, str]:
    """Each name without the folders that all have in common."""
    parts = [Path(name).parts for name in names]
    shared = 0
    while parts and parts[0] and all(len(part) > shared + 1 and part[shared] == parts[0][shared] for part in parts):
        shared += 1
    return {name: str(Path(*part[shared:])) for name, part in zip(names, parts, strict=True)}


def whole_ticks(rows: Sequence[dict[str, Any]]) -> list[int]:
    """At most TICKS epochs at equal distances."""
    epochs = [row["epoch"] for row in rows] or [1]
    return list(range(min(epochs), max(epochs) + 1, max(1, -(-(max(epochs) - min(epochs)) // TICKS))))


def curve(runs: Sequence[RunContent], key: str) -> AltairPlotData:
    """A chart of a metric against epochs, a line for each run; the page gives it the colours of its theme."""
    short = short_names([run.name for run in runs])
    rows = [
        {"epoch": epoch, "value": value, "run": short[run.name]}
        for run in runs
        for epoch, value in points(run, key)
        if math.isfinite(value)
    ]
    names = list(short.values())
    epochs = altair.X("epoch:Q", axis=altair.Axis(values=whole_ticks(rows)), scale=altair.Scale(zero=False))
    values = altair.Y("value:Q", title=None, scale=altair.Scale(zero=False))
    colours = altair.Scale(domain=names, range=["black"] * len(names))  # the page puts its own in their place
    legend = altair.Legend(title=None, orient="bottom", columns=2, labelLimit=300)
    color = altair.Color("run:N", scale=colours, legend=legend)
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=epochs, y=values, color=color, tooltip=["run:N", "epoch:Q", "value:Q"]
    )
    chart = altair.layer(base.mark_line(), base.mark_point(filled=True, strokeWidth=0, size=40))
    chart = chart.properties(
        width=1000,
        height=220,
        title=metric_title(key, runs),
        background="transparent",
        usermeta={"embedOptions": {"actions": False}},  # a menu that leads to another site
    )
    # of this class, it is drawn in the width and the colours of the page
    return AltairPlotData(plot=chart.to_json(), chart="line")


def open_figure(path: Path | None) -> Image.Image | None:
    """A figure of a run as a picture, so that no path of a run reaches the page; None for what is none."""
    if path is None or path.is_symlink() or not path.is_file():
        return None
    try:
        with Image.open(path, formats=["PNG"]) as opened:
            return opened.convert("RGB") if opened.width * opened.height <= MAX_PIXELS else None
    except Exception:  # Pillow raises nearly every exception for a damaged file
        return None


def grids_at(runs: Sequence[RunContent], epoch: int) -> list[tuple[str, str]]:
    """The last sample grid of each run up to ``epoch``, with its name and epoch."""
    short = short_names([run.name for run in runs])
    shown = []
    for run in runs:
        last = max((number for number in run.grids if number <= epoch), default=None)
        picture = open_figure(None if last is None else run.grids[last])
        if picture is not None:
            shown.append((picture_file(picture), f"{short[run.name]}, epoch {last}"))
    return shown


def confusions(runs: Sequence[RunContent]) -> list[tuple[str, str]]:
    """The confusion matrix of each run that has one, with its name."""
    short = short_names([run.name for run in runs])
    pictures = [(open_figure(run.confusion), short[run.name]) for run in runs]
    return [(picture_file(picture), name) for picture, name in pictures if picture is not None]


def state_of(runs: Sequence[RunContent]) -> tuple[Any, ...]:
    """What changes when a run goes on: its epochs, grids and figures."""
    return tuple(
        (run.name, len(run.reports), tuple(run.grids), run.confusion and run.confusion.stat().st_mtime_ns, run.problem)
        for run in runs
    )


def gallery(shown: gr.Gallery, said: gr.HTML, pictures: Sequence[Any], otherwise: str) -> dict[Any, Any]:
    """The updates that show pictures, or say that there are none."""
    return {shown: gr.update(value=list(pictures), visible=bool(pictures)), said: "" if pictures else otherwise}


def figure_gallery(name: str, columns: int) -> gr.Gallery:
    """A place for figures of several runs, hidden while there are none."""
    return gr.Gallery(
        show_label=False,
        format="png",
        columns=columns,
        height=560,
        object_fit="contain",
        buttons=["download", "fullscreen"],
        visible=False,
        elem_id=name,
    )


def runs_tab(runs: Runs, tab: gr.Tab, others: Sequence[gr.Tab]) -> None:
    """Build the tab inside a `gr.Blocks`, in ``tab``; it is refreshed until one of ``others`` is selected."""
    with gr.Row():
        chosen = gr.Dropdown(
            [],
            multiselect=True,
            max_choices=MAX_RUNS,
            label=f"Runs, up to {MAX_RUNS} side by side",
            scale=3,
            min_width=280,
            elem_id="runs",
        )
        metrics = gr.Dropdown(
            [], multiselect=True, max_choices=PANELS, label="Curves", scale=2, min_width=280, elem_id="metrics"
        )
    note = gr.HTML("", elem_id="runs_note")
    plots = []
    for start in range(0, PANELS, 2):
        with gr.Row():
            plots += [
                gr.Plot(show_label=False, visible=False, min_width=280, elem_id=f"plot{i}")
                for i in range(start, start + 2)
            ]
    with gr.Tabs():
        with gr.Tab("Samples"):
            epoch = gr.Slider(1, 2, value=2, step=1, label="Epoch", visible=False, elem_id="epoch")
            no_grids = gr.HTML("")
            grids = figure_gallery("grids", 2)
        with gr.Tab("Confusion matrix"):
            no_matrices = gr.HTML("")
            matrices = figure_gallery("matrices", 3)
        with gr.Tab("Settings"):
            differing = gr.Checkbox(False, label="Only the settings that differ", elem_id="differing")
            settings = gr.Dataframe(interactive=False, wrap=True, elem_id="settings")
    timer = gr.Timer(SECONDS, active=False)
    known = gr.State((), time_to_live=3600)
    newest = gr.State(True, time_to_live=3600)  # whether the slider is at its end, and moves on with the run
    outputs = [chosen, metrics, note, *plots, epoch, no_grids, grids, no_matrices, matrices, settings, known]

    def show(names: list[str] | None, keys: list[str] | None, at: float, differ: bool, end: bool) -> dict[Any, Any]:
        there = runs.names()
        if names is None:
            names = there[:2]
        names = [name for name in names if name in there]
        content = runs.read(names)
        possible = metric_names(content)
        if not keys:
            keys = [key for key in FIRST if key in possible] or possible[:PANELS]
        keys = [key for key in keys if key in possible][:PANELS]
        lines = [run.problem for run in content if run.problem]
        lines += [f"{run.name}: no epoch has ended yet" for run in content if not run.reports and not run.problem]
        if not there:
            where = ", ".join(map(str, runs.folders))
            lines.append(f"There is no run below {where} yet; python pcnn_train.py makes one.")
        update: dict[Any, Any] = {
            chosen: gr.update(choices=there, value=names),
            metrics: gr.update(choices=[(metric_title(key, content), key) for key in possible], value=keys),
            note: "<br>".join(map(html.escape, lines)),
            settings: gr.update(value=table_value(content, differ)),
            **gallery(matrices, no_matrices, confusions(content), "No confusion matrix yet."),
            known: (there, state_of(content)),
        }
        for plot, key in zip(plots, [*keys, *[None] * PANELS], strict=False):
            if key is None:
                update[plot] = gr.update(visible=False)
            else:
                update[plot] = gr.update(value=curve(content, key), visible=True)
        epochs = sorted({number for run in content for number in run.grids})
        if not epochs:
            return update | {epoch: gr.update(visible=False)} | gallery(grids, no_grids, [], "No samples yet.")
        at = epochs[-1] if end else min(max(int(at), epochs[0]), epochs[-1])
        slider = gr.update(minimum=epochs[0], maximum=max(epochs[-1], epochs[0] + 1), value=at, visible=len(epochs) > 1)
        return (
            update | {epoch: slider} | gallery(grids, no_grids, grids_at(content, at), "No samples up to this epoch.")
        )

    def refresh(names: list[str], keys: list[str], at: float, differ: bool, end: bool, before: Any) -> dict[Any, Any]:
        there = runs.names()
        if before == (there, state_of(runs.read(names or []))):
            return {known: before}
        return show(names, keys, at, differ, end)

    def table_value(content: Sequence[RunContent], differ: bool) -> dict[str, Any]:
        short = short_names([run.name for run in content])
        return {"headers": ["setting", *short.values()], "data": settings_table(content, differ)}

    def move(names: list[str], at: float) -> dict[Any, Any]:
        content = runs.read(names or [])
        last = max((number for run in content for number in run.grids), default=0)
        shown = gallery(grids, no_grids, grids_at(content, int(at)), "No samples up to this epoch.")
        return shown | {newest: at >= last}

    inputs = [chosen, metrics, epoch, differing, newest]
    opened = tab.select(lambda: gr.update(active=True), None, timer, **QUICK)
    opened.then(lambda names, *rest: show(names or None, *rest), inputs, outputs, **QUICK)
    for other in others:
        other.select(lambda: gr.update(active=False), None, timer, **QUICK)
    chosen.input(show, inputs, outputs, **QUICK)
    metrics.input(show, inputs, outputs, **QUICK)
    differing.input(lambda names, d: table_value(runs.read(names or []), d), [chosen, differing], settings, **QUICK)
    epoch.input(move, [chosen, epoch], [grids, no_grids, newest], trigger_mode="always_last", **QUICK)
    timer.tick(refresh, [*inputs, known], outputs, **QUICK)
