"""pcnn_train.py through its command line."""

import json
import shutil

import pytest
import torch
import yaml
from PIL import Image

from model import load_checkpoint
from training import results
from training.settings import TrainSettings
from training.trainer import Trainer
from utils.errors import UserError

TINY = (
    "--dataset digits --nr_resnet 1 --nr_filters 8 --nr_logistic_mix 2 --batch_size 128 --dropout 0 --precision fp32 "
    "--fid_samples 0 --metric_samples 0"  # tests/training/test_samples.py has its own runs
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
        assert {"train_bpd", "val_bpd", "lr", "seconds", "images_per_second"} <= report.keys()
        assert {"accuracy", "balanced_accuracy", "f1"} <= report.keys()
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


@pytest.mark.parametrize("init", ["default", "data"])
def test_load_params_takes_a_checkpoint(run_folder, tmp_path, init):
    import pcnn_train

    flags = [*TINY, "--init", init, "--max_epochs", "1", "--lr", "1e-8", "--sampling_interval", "0"]
    run = tmp_path / "run"
    assert pcnn_train.main([*flags, "--load_params", str(run_folder / "best.pt"), "--run_dir", str(run)]) == 0
    best = load_checkpoint(run_folder / "best.pt").metadata["validation"]["bpd"]
    assert json.loads((run / "metrics.jsonl").read_text())["val_bpd"] == pytest.approx(best, abs=0.01)


def test_load_params_takes_a_starter_state_dict(tmp_path):
    from training.network import build_network
    from training.settings import TrainSettings

    path = "tests/golden/starter_r1_f8_m3.pth"
    settings = TrainSettings(nr_resnet=1, nr_filters=8, nr_logistic_mix=3, dropout=0.1)
    net = build_network(settings, image_channels=3, class_names="abcd", load_params=path).eval()
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
    ("path", "select_on"),
    [
        ("configs/digits.yaml", "validation"),
        ("configs/cifar10.yaml", "validation"),
        ("configs/cpen455.yaml", "holdout"),
        ("configs/cpen455_hybrid.yaml", "holdout"),
        ("configs/cpen455_distilled.yaml", "validation"),
        ("configs/cpen455_published.yaml", "validation"),
        ("configs/cpen455_wide.yaml", "holdout"),
    ],
)
def test_shipped_configs_parse(path, select_on):
    from training.settings import TrainSettings
    from utils.arguments import parse_settings

    settings = parse_settings(TrainSettings, "", ["--config", path])
    assert settings.dataset in path and settings.select_on == select_on


FOLDER = (
    "--dataset folder --image_size 8 --nr_resnet 1 --nr_filters 4 --nr_logistic_mix 1 --batch_size 4 --dropout 0 "
    "--precision fp32 --fid_samples 0 --sampling_interval 0 --ema 0"
).split()


def test_a_run_without_its_bad_images_is_resumed_and_told_when_they_change(own_folder, tmp_path, capsys):
    import pcnn_train

    run = tmp_path / "run"
    (own_folder / "train/a/000.png").write_bytes(b"")
    flags = [*FOLDER, "--data_dir", str(own_folder), "--run_dir", str(run), "--max_epochs"]
    with pytest.raises(UserError, match="1 of 8 images cannot be read"):
        pcnn_train.main([*flags, "1"])
    assert pcnn_train.main([*flags, "1", "--skip_bad_images", "true"]) == 0
    told = capsys.readouterr()
    assert "left out: 1 of 8 images cannot be read" in told.err
    assert "classes in order, with their training images: a: 3, b: 4\n" in told.out
    assert pcnn_train.main(["--resume", str(run), "--max_epochs", "2"]) == 0
    assert "warning" not in capsys.readouterr().err
    (own_folder / "train/b/000.png").write_bytes(b"")
    assert pcnn_train.main(["--resume", str(run), "--max_epochs", "3"]) == 0
    assert "warning: the images are not those" in capsys.readouterr().err
    (own_folder / "train/b").rename(own_folder / "train/c")
    (own_folder / "validation/b").rename(own_folder / "validation/c")
    with pytest.raises(UserError, match=r"other classes than these images \(b gone, c new\)"):
        pcnn_train.main(["--resume", str(run), "--max_epochs", "4"])
    last = torch.load(run / "last.pt", weights_only=True)
    del last["images"]  # of an older version
    torch.save(last, run / "last.pt")
    for split in ("train", "validation"):
        (own_folder / split / "c").rename(own_folder / split / "b")
    assert pcnn_train.main(["--resume", str(run), "--max_epochs", "4"]) == 0
    assert "warning" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("best_metric", "best", "line"),
    [
        ("accuracy", 1, "best validation accuracy 0.9000 (at 3.500 bits/dim)"),
        ("balanced_accuracy", 3, "best validation balanced accuracy 0.7000 (at 3.400 bits/dim)"),
        ("f1", 2, "best validation macro F1 0.6000 (at 3.600 bits/dim)"),
        ("bpd", 4, "best validation bits/dim 3.000"),
        ("last", 4, "best.pt is of epoch 4, the last, with 3.000 validation bits/dim"),
    ],
)
def test_best_metric_selects_best_pt(own_folder, tmp_path, monkeypatch, capsys, best_metric, best, line):
    import pcnn_train
    import training.trainer
    from evaluation.evaluate import Evaluation

    first, second, third, fourth = (
        (3.5, 0.9, 0.5, 0.4),
        (3.6, 0.8, 0.7, 0.6),
        (3.4, 0.8, 0.7, 0.5),
        (3.0, 0.1, 0.1, 0.1),
    )
    measured = iter([first, second, second, third, fourth])  # last.pt is of before the second evaluation
    labels = torch.tensor([0, 0, 1, 1])
    monkeypatch.setattr(training.trainer, "evaluate", lambda *_: Evaluation(*next(measured), labels, torch.zeros(4, 2)))
    run = tmp_path / "run"
    flags = [*FOLDER, "--data_dir", str(own_folder), "--run_dir", str(run), "--best_metric", best_metric]
    assert pcnn_train.main([*flags, "--max_epochs", "2"]) == 0
    assert pcnn_train.main(["--resume", str(run), "--max_epochs", "4"]) == 0
    told = capsys.readouterr().out
    assert line in told.splitlines() and "accuracy 0.8000 (balanced 0.7000), macro F1 0.6000" in told
    net = load_checkpoint(run / "best.pt")
    assert net.metadata["epoch"] == best
    reports = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    keys = {"bpd": "val_bpd", "accuracy": "accuracy", "balanced_accuracy": "balanced_accuracy", "f1": "f1"}
    measured = {name: reports[best - 1][key] for name, key in keys.items()}
    assert net.metadata["validation"] == {**measured, "split": "validation", "images": 4}
    with pytest.raises(UserError, match="--best_metric"):
        other = "accuracy" if best_metric == "f1" else "f1"
        pcnn_train.main(["--resume", str(run), "--best_metric", other, "--max_epochs", "5"])
    row = results.row(results.read_run(run))
    assert row[4] == f"{best} of 4" + {"accuracy": "", "last": ", the last"}.get(best_metric, f" by {best_metric}")


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
