"""The teacher of a run: what it says of images, what is refused, and that the loss and the checkpoints have it."""

import dataclasses

import pytest
import torch

import pcnn_train
from data import ImageSet, load_split
from data.splits import hold_out
from evaluation import baseline
from evaluation.baseline_network import build_baseline, load_baseline, save_baseline
from model import load_checkpoint, to_unit
from tests.training.steps import batches, make_step
from training import export_checkpoint
from training.settings import TrainSettings
from training.teacher import Teacher
from training.trainer import Trainer
from utils.errors import UserError

CPU = torch.device("cpu")
HOLDOUT = TrainSettings(dataset="folder", select_on="holdout")
SMALL = "--dataset digits --nr_resnet 1 --nr_filters 4 --nr_logistic_mix 1 --max_epochs 1 --batch_size 64 --device cpu"
HYBRID = [*SMALL.split(), *"--sampling_interval 0 --discriminative_weight 0.1 --select_on holdout".split()]


@pytest.fixture
def file(tmp_path):
    """A teacher of three classes of 8x8 images, and its network."""
    torch.manual_seed(0)
    net = build_baseline([1], 1, 3).eval()
    torch.nn.init.normal_(net.fc.bias, std=2.0)
    about = {"image_size": (8, 8), "class_names": ["c", "a", "b"], "dataset": "folder"}
    save_baseline(tmp_path / "teacher.pt", net, [1], **about, settings={"hold_out": True})
    return str(tmp_path / "teacher.pt"), net


def images_of(names="abc", channels=1, side=8):
    images = torch.zeros(3, channels, side, side, dtype=torch.uint8)
    return ImageSet(images, torch.arange(3) % len(names), tuple(names), ("x", "y", "z"))


def matched(path) -> Teacher:
    teacher = Teacher(path, CPU)
    teacher.match(images_of(), HOLDOUT)
    return teacher


def test_its_posterior_is_over_the_classes_of_the_run(file):
    """In the order of the run, and over those that are compared alone."""
    path, net = file
    images = torch.randint(0, 256, (2, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    whole = net(to_unit(images)).softmax(dim=1)[:, [1, 2, 0]]  # a, b, c
    classes = torch.tensor([[2, 0], [1, 2]])
    expected = whole.gather(1, classes)
    expected = expected / expected.sum(dim=1, keepdim=True)
    found = matched(path)(images, classes)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    assert not found.requires_grad and not any(p.requires_grad for p in matched(path).net.parameters())


def test_the_loss_is_against_it(file):
    step, ((images, labels),) = make_step(discriminative_weight=0.5, posterior_temperature=3.0, dropout=0.0), batches(1)
    teacher, compared = matched(file[0]), []

    def record(images, classes):
        compared.append(classes)
        return teacher(images, classes)

    step.teacher = record
    loss, parts = step.loss(images, labels)
    (classes,) = compared
    log_p = step.log_likelihood(images.repeat_interleave(3, dim=0), classes.flatten()).view_as(classes)
    soft = -(teacher(images, classes) * (log_p / 3).log_softmax(dim=1)).sum(dim=1).mean()
    assert loss.item() == pytest.approx((parts[0] + 0.5 * soft).item(), rel=1e-5)
    assert parts[1].item() == pytest.approx(-(log_p / 3).log_softmax(dim=1)[:, 0].mean().item(), rel=1e-5)
    assert abs(soft.item() - parts[1].item()) > 1e-2


@pytest.mark.parametrize(
    ("split", "words"),
    [
        (images_of("abd"), "knows other classes than this run has"),
        (images_of("ab"), "knows other classes than this run has"),
        (images_of(channels=3), "is of images of 1x8x8 values, this run of 3x8x8"),
        (images_of(side=12), "is of images of 1x8x8 values, this run of 1x12x12"),
    ],
)
def test_one_of_other_images_is_refused(file, split, words):
    with pytest.raises(UserError, match=f"--teacher .*teacher.pt {words}"):
        Teacher(file[0], CPU).match(split, HOLDOUT)


def test_what_is_no_teacher_is_refused(tmp_path):
    for path in (tmp_path / "gone.pt", tmp_path):
        with pytest.raises(UserError, match=r"no such file; python -m evaluation\.baseline --out FILE trains one"):
            Teacher(str(path), CPU)
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for path in (tmp_path / "junk.pt", "checkpoints/cpen455.pt"):
        with pytest.raises(UserError, match=r"^--teacher: "):
            Teacher(str(path), CPU)


@pytest.mark.parametrize(
    ("hold_out", "select_on", "dataset", "warned"),
    [
        (True, "holdout", "folder", False),
        (False, "holdout", "folder", True),
        (False, "validation", "folder", False),
        (False, "holdout", "digits", False),  # other images
    ],
)
def test_one_that_saw_the_held_out_images_is_told(tmp_path, capsys, hold_out, select_on, dataset, warned):
    about = {"image_size": (8, 8), "class_names": ["a", "b", "c"], "dataset": dataset}
    save_baseline(tmp_path / "t.pt", build_baseline([1], 1, 3), [1], **about, settings={"hold_out": hold_out})
    teacher = Teacher(str(tmp_path / "t.pt"), CPU)
    teacher.match(images_of(), dataclasses.replace(HOLDOUT, select_on=select_on))
    assert teacher.metadata().get("saw_held_out", False) == warned
    told = capsys.readouterr().err
    assert told.startswith(f"warning: --teacher {tmp_path}/t.pt was trained on") == warned == bool(told)


def test_without_a_weight_it_is_not_read(tmp_path):
    settings = TrainSettings(dataset="digits", nr_resnet=1, nr_filters=4, teacher=str(tmp_path / "gone.pt"))
    assert Trainer(settings).step.teacher is None


def test_flags_without_effect_are_named(capsys):
    settings = TrainSettings(dataset="digits", nr_resnet=1, nr_filters=4, cutmix_prob=0.5, teacher="t.pt")
    Trainer(settings)
    assert capsys.readouterr().err == "no effect without --discriminative_weight: --cutmix_prob, --teacher\n"
    Trainer(dataclasses.replace(settings, cutmix_prob=0.0, teacher=None))
    assert capsys.readouterr().err == ""


def test_a_baseline_teaches_a_run_and_the_checkpoints_say_so(tmp_path, capsys):
    """A run resumed needs it again."""
    teacher, run = str(tmp_path / "teacher.pt"), tmp_path / "run"
    train = "--dataset digits --blocks 1 --epochs 1 --device cpu --hold_out true --out".split()
    assert baseline.main([*train, teacher]) == 0
    assert f"digits: {len(hold_out(load_split('digits', 'train'))[0])} training" in capsys.readouterr().out
    flags = [*HYBRID, "--teacher", teacher]
    assert pcnn_train.main([*flags, "--run_dir", str(run)]) == 0
    net = load_checkpoint(run / "best.pt")
    accuracy = load_baseline(teacher).metadata["validation"]["accuracy"]
    assert net.metadata["teacher"] == {"parameters": load_baseline_parameters(teacher), "accuracy": accuracy}
    assert "warning" not in capsys.readouterr().err

    assert pcnn_train.main(["--resume", str(run), "--max_epochs", "2"]) == 0
    assert load_checkpoint(run / "last.pt").metadata["teacher"]["accuracy"] == accuracy
    after = [*HYBRID, "--discriminative_weight", "0", "--load_params", str(run / "best.pt")]
    assert pcnn_train.main([*after, "--run_dir", str(tmp_path / "after")]) == 0
    assert pcnn_train.main(["--resume", str(tmp_path / "after"), "--max_epochs", "2"]) == 0
    assert load_checkpoint(tmp_path / "after" / "last.pt").metadata["teacher"] == net.metadata["teacher"]
    out = tmp_path / "out.pt"
    assert export_checkpoint.main(["--checkpoint", str(run / "best.pt"), "--out", str(out)]) == 0
    exported = load_checkpoint(out).metadata
    assert exported["teacher"] == net.metadata["teacher"] and "teacher" not in exported["settings"]

    (tmp_path / "teacher.pt").rename(tmp_path / "moved.pt")
    with pytest.raises(UserError, match=r"--teacher .*: no such file"):
        pcnn_train.main(["--resume", str(run), "--max_epochs", "3"])
    with pytest.raises(UserError, match=r"^--teacher t\.pt: the run in .* has None"):
        pcnn_train.main(["--resume", str(tmp_path / "after"), "--teacher", "t.pt"])
    moved = ["--resume", str(run), "--teacher", str(tmp_path / "moved.pt")]
    assert pcnn_train.main([*moved, "--max_epochs", "3"]) == 0
    assert baseline.main([*train, str(tmp_path / "moved.pt"), "--seed", "2"]) == 0
    with pytest.raises(UserError, match=r"--teacher .*moved.pt is not the file of this run; give that one"):
        pcnn_train.main([*moved, "--max_epochs", "4"])


def load_baseline_parameters(path) -> int:
    return sum(parameter.numel() for parameter in load_baseline(path).parameters())
