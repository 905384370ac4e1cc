"""pcnn_train.py through its command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from model import PixelCNN, load_checkpoint, save_checkpoint
from training.settings import TrainSettings
from training.trainer import Trainer

TINY = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --batch_size 128 --dropout 0 --precision fp32 "
    "--fid_samples 0"  # tests/training/test_samples.py has its own runs
).split()


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A two-epoch run on the digits, made in this process."""
    import pcnn_train

    folder = tmp_path_factory.mktemp("run") / "digits"
    flags = "--max_epochs 2 --lr 0.003 --sampling_interval 2 --sample_batch_size 20 --augment flip --warmup 3"
    assert pcnn_train.main([*TINY, *flags.split(), "--run_dir", str(folder)]) == 0
    return folder


def test_run_folder_holds_what_the_readme_says(run_folder):
    assert {path.name for path in run_folder.iterdir()} == {
        "config.yaml", "metrics.jsonl", "last.pt", "best.pt", "samples", "curves.png", "confusion.png",
    }  # fmt: skip
    assert [path.name for path in (run_folder / "samples").iterdir()] == ["epoch_0002.png"]
    for picture in (run_folder / "curves.png", run_folder / "samples" / "epoch_0002.png"):
        with Image.open(picture) as image:
            assert image.format == "PNG" and min(image.size) > 100


def test_metrics_are_one_json_object_an_epoch(run_folder):
    reports = [json.loads(line) for line in (run_folder / "metrics.jsonl").read_text().splitlines()]
    assert [report["epoch"] for report in reports] == [1, 2]
    assert [report["step"] for report in reports] == [11, 22]  # 1437 images in whole batches of 128
    for report in reports:
        assert {"train_bpd", "val_bpd", "accuracy", "lr", "seconds", "images_per_second"} <= report.keys()
        assert 0 <= report["accuracy"] <= 1 and 0 < report["val_bpd"] < 9
    assert reports[1]["train_bpd"] < reports[0]["train_bpd"]
    assert reports[1]["val_bpd"] < reports[0]["val_bpd"]


def test_checkpoints_describe_themselves(run_folder):
    net = load_checkpoint(run_folder / "best.pt")
    assert net.class_names == tuple("0123456789") and net.image_size == (8, 8) and net.dataset == "digits"
    assert net.settings["nr_filters"] == 8 and net.metadata["validation"]["accuracy"] >= 0
    last = torch.load(run_folder / "last.pt", weights_only=True)
    assert last["epoch"] == 2 and last["step"] == 22 and last["settings"]["augment"] == "flip"
    assert {"optimizer", "scheduler", "weights", "ema"} <= last.keys()


def test_evaluated_weights_are_the_moving_average(run_folder):
    """val_bpd of the last report is that of the EMA weights of last.pt, over every validation image."""
    from data import load_split
    from evaluation.evaluate import evaluate

    split = load_split("digits", "validation")
    report = json.loads((run_folder / "metrics.jsonl").read_text().splitlines()[-1])
    ema = evaluate(load_checkpoint(run_folder / "last.pt"), split)
    raw = evaluate(load_checkpoint(run_folder / "last.pt", weights="last"), split)
    assert ema.bpd == pytest.approx(report["val_bpd"], abs=1e-5)
    assert abs(raw.bpd - report["val_bpd"]) > 1e-3


def test_config_of_a_run_repeats_it(run_folder, tmp_path):
    import pcnn_train

    config = yaml.safe_load((run_folder / "config.yaml").read_text())
    assert config["dataset"] == "digits" and config["nr_filters"] == 8 and config["max_epochs"] == 2
    again = tmp_path / "again"
    flags = ["--config", str(run_folder / "config.yaml"), "--run_dir", str(again), "--sampling_interval", "0"]
    assert pcnn_train.main(flags) == 0
    for key in ("train_bpd", "val_bpd", "accuracy"):
        first, second = (
            json.loads((f / "metrics.jsonl").read_text().splitlines()[-1])[key] for f in (run_folder, again)
        )
        assert first == pytest.approx(second, rel=1e-5)


def test_load_params_takes_a_checkpoint(run_folder, tmp_path):
    import pcnn_train

    flags = [*TINY, "--max_epochs", "1", "--lr", "1e-8", "--sampling_interval", "0"]
    run = tmp_path / "run"
    assert pcnn_train.main([*flags, "--load_params", str(run_folder / "best.pt"), "--run_dir", str(run)]) == 0
    best = load_checkpoint(run_folder / "best.pt").metadata["validation"]["bpd"]
    assert json.loads((run / "metrics.jsonl").read_text())["val_bpd"] == pytest.approx(best, abs=0.01)


def test_load_params_takes_a_starter_state_dict(tmp_path):
    from training.network import build_network
    from training.settings import TrainSettings

    path = "tests/golden/starter_r1_f8_m3.pth"
    settings = TrainSettings(nr_resnet=1, nr_filters=8, nr_logistic_mix=3, dropout=0.1)
    net = build_network(settings, image_channels=3, num_classes=4, load_params=path).eval()
    assert net.fusion.alpha == 0 and net.settings["dropout"] == 0.1
    x = torch.rand(1, 3, 8, 8)
    assert torch.equal(net(x, torch.tensor([0])), net(x, torch.tensor([3])))


def test_published_command_is_accepted():
    """Flag for flag, as the published configuration is run."""
    from training.settings import TrainSettings
    from utils.arguments import parse_settings

    flags = (
        "--batch_size 16 --sample_batch_size 16 --sampling_interval 25 --save_interval 25 --dataset cpen455 "
        "--nr_resnet 2 --nr_filters 80 --nr_logistic_mix 10 --lr_decay 0.999995 --max_epochs 200 --en_wandb True"
    )
    settings = parse_settings(TrainSettings, "", flags.split())
    assert settings == TrainSettings(batch_size=16, lr_decay=0.999995, max_epochs=200, en_wandb=True)


@pytest.mark.parametrize(
    ("text", "value"),
    [("--en_wandb True", True), ("--en_wandb false", False), ("--en_wandb=true", True), ("--en_wandb=False", False)],
)
def test_booleans_mean_what_they_say(text, value):
    from training.settings import TrainSettings
    from utils.arguments import parse_settings

    assert parse_settings(TrainSettings, "", text.split()).en_wandb is value


def test_flags_override_the_config(tmp_path):
    from training.settings import TrainSettings
    from utils.arguments import parse_settings

    config = tmp_path / "c.yaml"
    config.write_text("nr_filters: 24\nlr: 0.01\n")
    settings = parse_settings(TrainSettings, "", ["--config", str(config), "--lr", "0.5"])
    assert settings.nr_filters == 24 and settings.lr == 0.5


def test_print_config_is_a_config(script, tmp_path):
    result = script("pcnn_train.py", "--nr_filters", 24, "--print_config")
    assert result.returncode == 0 and yaml.safe_load(result.stdout)["nr_filters"] == 24
    config = tmp_path / "c.yaml"
    config.write_text(result.stdout)
    again = script("pcnn_train.py", "--config", config, "--print_config")
    assert again.stdout == result.stdout


@pytest.mark.parametrize(
    "path",
    ["configs/digits.yaml", "configs/cpen455.yaml", "configs/cpen455_hybrid.yaml", "configs/cpen455_published.yaml"],
)
def test_shipped_configs_parse(path):
    from training.settings import TrainSettings
    from utils.arguments import parse_settings

    assert parse_settings(TrainSettings, "", ["--config", path]).dataset in path


def bad_cases(tmp_path):
    """(flags, what the line must say)"""
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "key.yaml").write_text("nr_filter: 3\n")
    (tmp_path / "type.yaml").write_text("nr_filters: many\n")
    (tmp_path / "broken.yaml").write_text("a: [1\n")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    other = tmp_path / "other.pt"
    net = PixelCNN(1, 8, 2, 1, 3)
    save_checkpoint(other, net, image_size=(8, 8), class_names=("a", "b", "c"), dataset="folder")
    return [
        ("--nr_filter 3", "unrecognized arguments: --nr_filter 3"),
        ("--nr_filters many", "Not of type PositiveInt: invalid literal for int() with base 10: 'many'"),
        ("--nr_filters 0", '"nr_filters": Not of type PositiveInt: 0 does not conform to restriction v>0'),
        ("--dropout 1", '"dropout": Not of type Fraction: 1 does not conform to restriction v>=0 and v<1'),
        ("--fusion late", "['early+middle', 'early', 'middle', 'film', 'none']. Got value: late"),
        ("--en_wandb maybe", "\"en_wandb\": Expected a <class 'bool'>. Got value: maybe"),
        (f"--config {tmp_path}/none.yaml", f"\"config\": File does not exist: '{tmp_path}/none.yaml'"),
        (f"--config {tmp_path}/list.yaml", "config"),
        (f"--config {tmp_path}/key.yaml", "Option 'nr_filter' is not accepted"),
        (f"--config {tmp_path}/type.yaml", '"nr_filters": Not of type PositiveInt'),
        (f"--config {tmp_path}/broken.yaml", "Problems parsing config: while parsing a flow sequence"),
        ("--dataset digits --image_size 10", "image_size 10 is invalid: give a side or (H, W), positive"),
        ("--dataset digits --image_size 516", "Not of type Side: does not conform to restriction v>=4 and v<=512"),
        ("--dataset digits --device cuda:77", "--device cuda:77: there is no such device here; use --device cpu"),
        ("--dataset digits --device cpu --cuda_graph true", "--cuda_graph true needs a CUDA GPU"),
        ("--dataset digits --device meta", "--device meta: there is no such device here"),
        ("--dataset digits --seed 99999999999999999999999", '"seed": Not of type Seed: 99999999999999999999999'),
        ("--dataset digits --negatives 10", "--negatives 10: an image has only 9 wrong classes here"),
        (
            f"--dataset digits --sample_dir {tmp_path}/junk.pt --run_dir {tmp_path}/runs",
            f"cannot write the samples to {tmp_path}/junk.pt: File exists",
        ),
        (
            f"--dataset digits --run_dir {tmp_path}/junk.pt/run",
            f"cannot write the run to {tmp_path}/junk.pt/run: Not a directory",
        ),
        (f"--dataset folder --data_dir {tmp_path}/nowhere", f"{tmp_path}/nowhere: no such folder, set data_dir"),
        (f"--dataset digits --run_dir {tmp_path}/full", f"{tmp_path}/full is not empty; give a new folder"),
        (f"--dataset digits --load_params {tmp_path}/none.pt", f"no checkpoint at {tmp_path}/none.pt"),
        (f"--dataset digits --load_params {tmp_path}/junk.pt", f"{tmp_path}/junk.pt cannot be read as a checkpoint"),
        (f"--dataset digits --load_params {other}", f"--load_params {other} has nr_resnet 1, this run has 2"),
        (
            f"--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --load_params {other}",
            f"--load_params {other} has num_classes 3, this run has 10",
        ),
    ]


def test_a_mistake_gets_one_line_and_no_traceback(tmp_path, capsys):
    import pcnn_train
    from utils.arguments import run_script

    for flags, message in bad_cases(tmp_path):
        argv = [*flags.split(), "--save_dir", str(tmp_path / "runs")]
        with pytest.raises(SystemExit) as stop:
            run_script(lambda argv=argv: pcnn_train.main(argv))
        _, err = capsys.readouterr()
        assert stop.value.code == 2, flags
        lines = err.strip().splitlines()
        assert len(lines) == 1 and lines[0].startswith("error: "), (flags, err)
        assert message in lines[0], (flags, err)
    assert not (tmp_path / "runs").exists()  # nothing is left of a run that could not start


def test_what_is_wrong_at_the_start_is_told_before_the_images_are_read(tmp_path, monkeypatch, capsys):
    import pcnn_train
    import training.batches
    from utils.arguments import run_script

    def no_images(*_):
        raise AssertionError("the images were read")

    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("")
    monkeypatch.setattr(training.batches, "load_split", no_images)
    shipped = Path(pcnn_train.__file__).parent / "checkpoints" / "cpen455.pt"
    for flags, word in (
        (["--run_dir", str(tmp_path / "full")], "not empty"),
        (["--load_params", str(tmp_path / "none.pt")], "none.pt"),
        (["--load_params", str(shipped), "--nr_resnet", "1"], "nr_filters"),
    ):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda flags=flags: pcnn_train.main(["--dataset", "digits", *flags]))
        error = capsys.readouterr().err
        assert stop.value.code == 2 and error.startswith("error: ") and word in error


@pytest.mark.skipif(sys.platform != "linux", reason="limits the address space")
def test_a_network_that_does_not_fit_in_memory_is_one_line(tmp_path):
    import resource

    limit = 40 * 2**30  # of addresses, which CUDA's libraries take many of; the first convolution wants 77 GB
    result = subprocess.run(
        [
            sys.executable,
            "pcnn_train.py",
            "--dataset",
            "digits",
            "--nr_filters",
            "40000",
            "--run_dir",
            tmp_path / "run",
        ],
        cwd=Path(__file__).resolve().parents[1],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert result.returncode == 2, result.stderr
    assert result.stderr.splitlines() == [result.stderr.strip()] and "not enough memory" in result.stderr


def test_a_mistake_in_a_real_process(script):
    result = script("pcnn_train.py", "--lr", "-1")
    assert result.returncode == 2 and result.stderr.startswith("error: ") and "lr" in result.stderr
    assert len(result.stderr.splitlines()) == 1


def test_cpen455_trains_a_step(cpen455, tmp_path):
    """The real set goes through the loop (one epoch of a toy network on 8x8 pixels)."""
    import pcnn_train

    flags = "--dataset cpen455 --image_size 8 --nr_resnet 1 --nr_filters 4 --nr_logistic_mix 1 --batch_size 256"
    more = [
        "--max_epochs",
        "1",
        "--sampling_interval",
        "0",
        "--data_dir",
        str(cpen455),
        "--run_dir",
        str(tmp_path / "r"),
    ]
    assert pcnn_train.main([*flags.split(), *more]) == 0
    assert load_checkpoint(tmp_path / "r" / "best.pt").class_names == ("burger", "panda", "koala", "pizza")


def test_bf16_learns_as_fp32_does(tmp_path):
    import pcnn_train

    curves = {}
    for precision in ("fp32", "bf16"):
        folder = tmp_path / precision
        flags = [*TINY, "--max_epochs", "2", "--sampling_interval", "0", "--precision", precision]
        assert pcnn_train.main([*flags, "--run_dir", str(folder)]) == 0
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        curves[precision] = [json.loads(line)["train_bpd"] for line in lines]
    assert curves["bf16"] != curves["fp32"]
    assert curves["bf16"] == pytest.approx(curves["fp32"], rel=0.01)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on a CPU")
def test_a_compiled_run_learns_as_an_eager_one_does(tmp_path):
    torch._dynamo.utils.counters.clear()
    losses = {}
    for compiled in (True, False):
        settings = TrainSettings(
            "digits", nr_resnet=1, nr_filters=4, nr_logistic_mix=1, batch_size=64, dropout=0.0, precision="fp32",
            device="cpu", compile=compiled, run_dir=str(tmp_path / str(compiled)),
        )  # fmt: skip
        trainer = Trainer(settings)
        trainer.net.train()
        losses[compiled] = [
            trainer.train_step(*batch).item() for batch, _ in zip(trainer.batches.epoch(1), range(5), strict=False)
        ]
        assert (trainer.step.uncompiled is not None) == compiled  # it did not fall back
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= 1
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
