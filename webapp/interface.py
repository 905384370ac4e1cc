"""The page: a tab for each task."""

from collections.abc import Sequence
from pathlib import Path

import gradio as gr

from model import PixelCNN
from webapp.classify import Classifier, classify_tab
from webapp.complete import complete_tab
from webapp.events import MAX_WAITING
from webapp.files import RESULT_SECONDS
from webapp.generate import Generator, generate_tab
from webapp.runs import Runs, runs_tab
from webapp.turns import Turns

TITLE = "Conditional PixelCNN++"
SYSTEM_FONTS = ["system-ui", "sans-serif"]  # nothing is fetched from elsewhere
THEME = gr.themes.Default(primary_hue="orange", font=SYSTEM_FONTS, font_mono=["ui-monospace", "monospace"])
CSS = """
.verdict { font-size: 1.6em; }
.warning { border-left: 4px solid #f97316; padding: 0.5em 0.8em; margin-top: 0.5em; background: rgb(249 115 22 / 12%); }
#photo img { width: 100%; height: 100%; object-fit: contain; }
#map img { image-rendering: pixelated; }
footer, [data-testid=status-tracker].hidden { display: none !important; }
@media (max-width: 640px) {
  .gradio-container { padding: 8px !important; }
  .tab-container button { padding: 0 8px !important; }
  .grid-container { grid-template-columns: 1fr !important; }
}
"""


def build(net: PixelCNN, samples_net: PixelCNN, runs: Sequence[str | Path], turns: Turns) -> gr.Blocks:
    """The page, not served yet.

    Args:
        net: classifies.
        samples_net: draws; may be the same.
        runs: folders of runs.
        turns: on the device of both networks.

    Raises UserError for a checkpoint whose temperature or reference of typicality cannot be used.
    """
    classifier, generator = Classifier(net, turns), Generator(samples_net, turns)
    classifier.warm_up()
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(60, RESULT_SECONDS), fill_width=True) as page:
        gr.Markdown(f"# {TITLE}")
        with gr.Tab("Classify") as first:
            classify_tab(classifier)
        with gr.Tab("Generate") as second:
            generate_tab(generator)
        with gr.Tab("Complete") as third:
            complete_tab(generator)
        with gr.Tab("Runs") as tab:
            runs_tab(Runs(runs), tab, [first, second, third])
    return page.queue(max_size=MAX_WAITING, api_open=False)
