"""Classify, generate and complete images, and look at runs, in the browser: python app.py.

It opens on 127.0.0.1:7860 and is reached from this machine alone, unless --host says otherwise. It needs Gradio: pip
install -r requirements-app.txt, or make app.
"""

import os
import threading
import warnings
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Annotated

from pydantic import Field

from model import PRETRAINED, PRETRAINED_SAMPLES, load_checkpoint
from utils.arguments import parse_settings
from utils.device import pick_device
from utils.errors import UserError
from utils.script import run_script
from utils.values import PathName, PathNames

Port = Annotated[int, Field(ge=1, le=65535)]


@dataclass
class AppSettings:
    """Settings of app.py.

    Args:
        checkpoint: a .pt file of pcnn_train.py, or an exported folder, that classifies; by default the pretrained
            checkpoint for labels (burger, panda, koala, pizza).
        samples_checkpoint: the one that generates and completes; by default that of --checkpoint, or without it the
            pretrained checkpoint for samples.
        runs_dirs: folders whose runs are shown.
        host: the address to listen on; 0.0.0.0 is every network of this machine, for anybody who reaches it.
        port: 1 to 65535.
        device: auto (CUDA where there is one, else cpu), cpu, cuda, cuda:1, mps, ...
    """

    checkpoint: PathName | None = None
    samples_checkpoint: PathName | None = None
    runs_dirs: PathNames = field(default_factory=lambda: ["runs", "sweeps"])
    host: str = "127.0.0.1"
    port: Port = 7860
    device: str = "auto"


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(AppSettings, __doc__, argv)
    if find_spec("gradio") is None:
        raise UserError("the application needs Gradio: pip install -r requirements-app.txt, or make app")
    warnings.filterwarnings("ignore", module=r"PIL\.")  # about odd metadata; what matters is on the page
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # before the import, which looks for updates
    device = pick_device(settings.device)
    net = load_checkpoint(settings.checkpoint or PRETRAINED, device)
    draws = settings.samples_checkpoint or (None if settings.checkpoint else PRETRAINED_SAMPLES)
    samples_net = load_checkpoint(draws, device) if draws else net

    from webapp.files import temporary_files

    with temporary_files():
        from webapp.interface import build
        from webapp.server import serving
        from webapp.turns import Turns

        turns = Turns()
        page = build(net, samples_net, settings.runs_dirs, turns)
        with serving(page, settings.host, settings.port) as address:
            print(f"open {address} in a browser; Ctrl-C ends it", flush=True)
            try:
                threading.Event().wait()
            finally:
                turns.stop()
    return 0


if __name__ == "__main__":
    run_script(main)
