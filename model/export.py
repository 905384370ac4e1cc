"""Export a checkpoint for other programs: python -m model.export CHECKPOINT FOLDER.

FOLDER gets model.safetensors (the weights, as they are in the checkpoint), config.json (all else) and README.md, a
model card in the form of the Hugging Face Hub. FOLDER and its model.safetensors are accepted wherever a checkpoint is.
"""

import html
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from model.checkpoint import load_checkpoint, read_checkpoint
from model.exported import write_exported
from model.pixelcnn import PixelCNN
from model.temperature import posterior_temperature
from utils.arguments import parse_settings
from utils.errors import UserError
from utils.files import atomic_write, check_folder
from utils.script import run_script
from utils.text import printable
from utils.values import PathName

# what is exported; a checkpoint of a training run also holds the state of the optimizer
KEPT: tuple[str, ...] = ("format", "model", "image_size", "class_names", "dataset", "settings", "epoch", "step")
KEPT += ("teacher", "saw_held_out", "temperature", "sample_temperature", "temperature_from", "typicality", "validation")
# settings that name something on one machine
MACHINE: tuple[str, ...] = ("data_dir", "save_dir", "run_dir", "sample_dir", "resume", "load_params", "device")
MACHINE += ("teacher", "fid_weights", "en_wandb")


@dataclass
class ExportSettings:
    """Settings of model.export.

    Args:
        checkpoint: a .pt file of pcnn_train.py or training.export_checkpoint.
        folder: the folder to write; files of these names are replaced.
    """

    checkpoint: PathName
    folder: PathName


def main(argv: list[str] | None = None) -> int:
    settings = parse_settings(ExportSettings, __doc__, argv, positional=["checkpoint", "folder"])
    export(settings.checkpoint, settings.folder)
    print(f"model.safetensors, config.json and README.md: {printable(settings.folder)}")
    return 0


def export(checkpoint: str | Path, folder: str | Path) -> None:
    """Write the moving average of a checkpoint's weights, or the weights where it has none. Raises UserError."""
    net = load_checkpoint(checkpoint)  # checks all of it
    content = read_checkpoint(checkpoint)
    kept: dict[str, Any] = {name: content[name] for name in KEPT if name in content}
    if isinstance(kept.get("settings"), dict):
        kept["settings"] = {name: value for name, value in kept["settings"].items() if name not in MACHINE}
    kept |= {"weights": content["weights"] if content["ema"] is None else content["ema"], "ema": None}
    check_folder(folder)
    try:
        write_exported(folder, kept)
    except TypeError as error:
        raise UserError(f"{printable(checkpoint)} holds what JSON cannot: {error}") from None
    with atomic_write(Path(folder, "README.md")) as partial:
        partial.write_text(model_card(net), encoding="utf-8")


def model_card(net: PixelCNN) -> str:
    """Markdown after a YAML header, of what the checkpoint says of itself."""
    measured = net.metadata.get("validation")
    measured = measured if isinstance(measured, dict) else {}
    numbers = {name: value for name, value in measured.items() if isinstance(value, int | float)}
    split, count = measured.get("split", "validation"), numbers.get("images")
    names, (height, width) = ", ".join(html.escape(printable(name)) for name in net.class_names), net.image_size
    data = html.escape(printable(net.dataset))
    parameters = sum(parameter.numel() for parameter in net.parameters())
    header: dict[str, Any] = {
        "library_name": "conditional-pixelcnn",
        "pipeline_tag": "image-classification",
        "tags": ["pixelcnn", "generative-classifier", "autoregressive", "class-conditional-image-generation"],
    }
    results = [
        {"type": kind, "name": title, "value": round(numbers[kind], 4)}
        for kind, title in TITLES.items()
        if kind in numbers
    ]
    if results:
        dataset = {"name": data, "type": data, "split": str(split)}
        task = {"type": "image-classification"}
        entry = {"task": task, "dataset": dataset, "metrics": results}
        header["model-index"] = [{"name": f"PixelCNN++ ({data})", "results": [entry]}]
    over = f"{count} {split} images" if count else f"{split} images"
    table = "".join(f"| {entry['name']} | {entry['value']} |\n" for entry in results)
    scores = f"\nMeasured on {over}:\n\n| | |\n| --- | --- |\n{table}" if table else ""
    settings, temperature = net.settings, posterior_temperature(None, net)
    kind = f"{settings['nr_resnet']}/{settings['nr_filters']}/{settings['nr_logistic_mix']}"
    return f"""---
{yaml.safe_dump(header, sort_keys=False, allow_unicode=True)}---

# Conditional PixelCNN++ ({data})

One network of p(image | class): it labels images by Bayes' rule, argmax over classes of log p(image | class), and
samples images of a class.

- Classes: {names}
- Images: {height}x{width}, {"RGB" if net.image_channels == 3 else "gray"}, 8 bits
- Network: {kind} (residual blocks per resolution, filters, mixture components), fusion {settings["fusion"]},
  {parameters:,} parameters
- Temperature of the posterior: {temperature:.3g}
{distilled(net)}{scores}
It knows these classes alone: an image of anything else gets one of them. Images are resized to {height}x{width}, so
small details are not seen.

## Use

```python
from model import PixelCNN

net = PixelCNN.from_pretrained("FOLDER")  # this folder, or its id on the Hub
net.classify(images)  # uint8 [N, {net.image_channels}, {height}, {width}] -> p(class | image) [N, {net.num_classes}]
net.sample([{printable(net.class_names[0])!r}], seed=0)  # -> uint8 [1, {net.image_channels}, {height}, {width}]
```
"""


def distilled(net: PixelCNN) -> str:
    """The line of a model card about the teacher of a checkpoint; empty where it had none."""
    teacher = net.metadata.get("teacher")
    if not isinstance(teacher, dict):
        return ""
    numbers = {name: value for name, value in teacher.items() if isinstance(value, int | float)}
    parameters = f" of {numbers['parameters']:,} parameters" if "parameters" in numbers else ""
    accuracy = f", whose accuracy is {numbers['accuracy']:.4f}" if "accuracy" in numbers else ""
    return f"- Distilled from a discriminative baseline{parameters}{accuracy}\n"


TITLES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "f1": "macro F1",
    "bpd": "bits per dimension",
    "expected_calibration_error": "expected calibration error",
}


if __name__ == "__main__":
    run_script(main)
