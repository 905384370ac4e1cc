"""The discriminative baseline: its training, its file, its scores."""

import copy
import dataclasses

import pytest
import torch

from data import load_split
from evaluation import baseline
from evaluation.baseline_network import BaselineScorer, build_baseline, is_baseline, load_baseline, save_baseline
from evaluation.baseline_training import BaselineSettings, epoch_batches, train_baseline
from evaluation.metrics import classification_scores
from model import PRETRAINED, load_checkpoint
from tests.model.checkpoints import refuse
from utils.errors import UserError
from utils.script import run_script

ABOUT = {"image_size": (8, 8), "class_names": ["a", "b", "c"], "dataset": "folder"}
SHORT = "--dataset digits --blocks 1 --augment none --precision fp32 --device cpu".split()
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = build_baseline([1, 1], 1, 3).eval()
    net.image_size = (8, 8)
    return net


@pytest.fixture
def saved(net, tmp_path):
    """A file, and what is in it."""
    save_baseline(tmp_path / "baseline.pt", net, [1, 1], **ABOUT, settings={"lr": 0.1})
    return tmp_path / "baseline.pt", torch.load(tmp_path / "baseline.pt", weights_only=True)


@pytest.fixture
def images():
    return torch.randint(0, 256, (7, 1, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def few(digits):
    """20 digits of a data set that main reads in no time."""
    return dataclasses.replace(digits, images=digits.images[:20], labels=digits.labels[:20], paths=digits.paths[:20])


@pytest.mark.parametrize(
    "blocks, channels, classes, count",
    [([2, 3], 3, 4, 971_332), ([2, 2, 2], 3, 4, 2_776_132), ([2, 3], 1, 10, 970_954)],
)
def test_sizes(blocks, channels, classes, count):
    net = build_baseline(blocks, channels, classes)
    assert sum(parameter.numel() for parameter in net.parameters()) == count


@pytest.mark.parametrize("blocks", [[1], [1, 1, 1, 1]])
def test_any_image_size_and_a_first_convolution_that_keeps_the_resolution(blocks):
    net = build_baseline(blocks, 3, 5)
    for side in (4, 12, 32):
        assert net(torch.rand(2, 3, side, side)).shape == (2, 5)
    sides = []
    net.layer1.register_forward_hook(lambda _, inputs, __: sides.append(inputs[0].shape[-1]))
    net(torch.rand(2, 3, 32, 32))
    assert sides == [32]


def test_a_short_training_on_the_digits(tmp_path, capsys):
    out = tmp_path / "new" / "digits.pt"
    assert baseline.main([*SHORT, "--epochs", "2", "--batch_size", "32", "--out", str(out)]) == 0
    first, *epochs, accuracy, last = capsys.readouterr().out.splitlines()
    assert first == "digits: 1437 training and 360 validation images of 8x8, 10 classes; 75,338 parameters; cpu"
    assert [line.split("  ")[0] for line in epochs] == ["epoch 1/2", "epoch 2/2"]
    net, validation = load_baseline(out), load_split("digits", "validation")
    assert (net.class_names, net.image_size, net.dataset) == (validation.class_names, (8, 8), "digits")
    predicted = BaselineScorer(net)(validation.images).argmax(dim=1)
    scores = classification_scores(validation.labels.tolist(), predicted.tolist())
    assert scores.accuracy > 0.9
    said = net.metadata["validation"]
    assert (said["accuracy"], said["f1"], said["images"]) == (scores.accuracy, scores.f1, 360)
    low, high = said["interval"]
    assert accuracy == (
        f"accuracy {scores.accuracy:.4f} (95 % Wilson interval {low:.4f} to {high:.4f}), "
        f"macro F1 {scores.f1:.4f} over 360 validation images"
    )
    assert 0.02 < high - low < 0.07 and last.endswith(f"minutes: {out}")
    assert net.metadata["settings"]["blocks"] == [1]
    assert not {"out", "data_dir", "device"} & net.metadata["settings"].keys()  # of this machine


def train(split, precision="fp32", seed=1):
    torch.manual_seed(3)
    net = build_baseline([1], 1, split.num_classes)
    train_baseline(net, split, BaselineSettings(epochs=2, batch_size=8, precision=precision, seed=seed), CPU)
    return net.state_dict()


def test_the_same_seed_gives_the_same_weights(few):
    one, same, other = train(few), train(few), train(few, seed=2)
    assert all(torch.equal(value, same[name]) for name, value in one.items())
    assert not torch.equal(one["fc.weight"], other["fc.weight"])


def test_bf16_trains_nearly_alike(few):
    exact, rough = train(few)["fc.weight"], train(few, precision="bf16")["fc.weight"]
    assert 0 < (exact - rough).norm() < 0.1 * exact.norm()


def test_an_epoch_has_full_batches_of_different_images(few):
    pixels = few.images.flatten(1)
    seen = []
    generator = torch.Generator().manual_seed(0)
    for kind in ("none", "none", "flip+shift"):
        batches = list(epoch_batches(few.images, few.labels, 8, kind, generator))
        assert [len(labels) for _, labels in batches] == [8, 8]
        images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
        same = (images.flatten(1)[:, None] == pixels).all(dim=2)
        if kind == "none":
            number = same.long().argmax(dim=1)
            assert same.any(dim=1).all() and number.unique().numel() == 16 and torch.equal(labels, few.labels[number])
            seen.append(number)
        else:
            assert not same.any(dim=1).all()
    assert not torch.equal(*seen)


def test_a_file_gives_the_same_scores_bit_for_bit(net, saved, images):
    path, _ = saved
    loaded = load_baseline(path)
    assert torch.equal(BaselineScorer(loaded)(images), BaselineScorer(net)(images))
    assert not loaded.training and loaded.metadata == {"format": "resnet baseline 1", "settings": {"lr": 0.1}}
    assert (loaded.class_names, loaded.image_size, loaded.dataset) == (("a", "b", "c"), (8, 8), "folder")
    assert loaded.image_channels == 1


def test_the_two_kinds_of_file_are_told_apart(saved, tmp_path):
    path, _ = saved
    assert is_baseline(path) and not is_baseline(PRETRAINED)
    assert "is not a baseline" in refuse(load_baseline, PRETRAINED)
    refuse(load_checkpoint, path)
    refuse(load_baseline, tmp_path / "none.pt")
    refuse(is_baseline, tmp_path / "none.pt")


@pytest.mark.parametrize(
    "change",
    [
        {"blocks": [1, 1, 1]},
        {"blocks": [10**9]},
        {"blocks": []},
        {"blocks": 3},
        {"image_size": [6, 8]},
        {"image_size": [8]},
        {"image_size": [8, 10**6]},
        {"class_names": ["a", "b"]},
        {"class_names": ["a", "b", "b"]},
        {"class_names": [1, 2, 3]},
        {"class_names": []},
        {"weights": None},
        {"weights": {}},
        {"fc.bias": torch.zeros(2)},
        {"fc.bias": torch.tensor([0, 0, torch.nan])},
        {"fc.bias": torch.zeros(3, dtype=torch.int64)},
        {"fc.bias": torch.zeros(()).expand(3)},
        {"fc.more": torch.zeros(3)},
        {"conv1.weight": torch.zeros(64, 2, 3, 3)},
        {"bn1.running_var": torch.full((64,), torch.inf)},
        {"bn1.running_var": torch.full((64,), -1.0)},
    ],
)
def test_a_damaged_file_is_refused_in_one_line(saved, change):
    path, content = saved
    content = copy.deepcopy(content)
    for name, value in change.items():
        (content if name in content else content["weights"])[name] = value
    torch.save(content, path)
    assert "is inconsistent and cannot be used" in refuse(load_baseline, path)


def test_a_cut_file_and_a_missing_entry_are_refused(saved):
    path, content = saved
    path.write_bytes(path.read_bytes()[:-100])
    refuse(load_baseline, path)
    for name in set(content) - {"settings"}:
        torch.save({key: value for key, value in content.items() if key != name}, path)
        refuse(load_baseline, path)


def test_scores_are_log_probabilities_in_any_batches(net, images):
    scores = BaselineScorer(net.train(), batch_size=3)(images)
    assert scores.shape == (7, 3) and scores.dtype == torch.float32
    torch.testing.assert_close(scores.exp().sum(dim=1), torch.ones(7))
    expected = net.eval()((images.float() - 127.5) / 127.5).log_softmax(dim=1)
    torch.testing.assert_close(scores, expected, rtol=1e-4, atol=1e-5)
    assert BaselineScorer(net)(images[:0]).shape == (0, 3)
    rough = BaselineScorer(net, "bf16")(images)
    assert not torch.equal(rough, scores)
    torch.testing.assert_close(rough, scores, rtol=0, atol=0.1)


def test_batches_halve_when_memory_runs_out(net, images, monkeypatch):
    scorer, expected = BaselineScorer(net, batch_size=6), BaselineScorer(net)(images)
    real, sizes = scorer.net.forward, []

    def limited(x):
        sizes.append(len(x))
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return real(x)

    monkeypatch.setattr(scorer.net, "forward", limited)
    torch.testing.assert_close(scorer(images), expected, rtol=1e-4, atol=1e-5)
    assert sizes[0] == 6 and max(sizes[2:]) <= 3 and scorer.batch_size <= 2


@pytest.fixture
def run(monkeypatch, capsys, few):
    """Run the program on ``few``: run(flags...) -> (exit status, stdout, stderr)."""
    monkeypatch.setattr(baseline, "load_labelled", lambda *_: (few, few))

    def run(*flags):
        with pytest.raises(SystemExit) as stop:
            run_script(lambda: baseline.main([*SHORT, "--epochs", "1", *map(str, flags)]))
        return stop.value.code, *capsys.readouterr()

    return run


@pytest.mark.parametrize(
    "flags, message",
    [
        ("--blocks 0", "--blocks 0: should be greater than or equal to 1"),
        ("--blocks 1 1 1 1 1", "should be a shorter list"),
        ("--batch_size 1", "--batch_size 1: should be greater than or equal to 2"),
        ("--augment shift", "--augment shift: should be 'none', 'flip' or 'flip+shift'"),
        ("--image_size 516", "--image_size 516: should be less than or equal to 512"),
        ("--out .", "is a folder; give the name of a file"),
        ("--lr 1e30 --epochs 2", "the loss is non-finite; lower --lr"),
    ],
)
def test_a_mistake_is_one_line(run, flags, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    status, _, errors = run(*flags.split())
    assert status == 2 and len(errors.splitlines()) == 1 and message in errors
    assert not list(tmp_path.iterdir())


def test_several_processes_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UserError, match="trained in one process"):
        baseline.main(SHORT)


def test_ctrl_c_is_one_line_and_leaves_the_earlier_file(run, tmp_path, monkeypatch):
    (tmp_path / "out.pt").write_text("earlier")

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(torch.optim.SGD, "step", stop)
    status, _, errors = run("--out", tmp_path / "out.pt")
    assert (status, errors) == (130, "interrupted\n")
    assert [file.name for file in tmp_path.iterdir()] == ["out.pt"] and (tmp_path / "out.pt").read_text() == "earlier"


def test_images_of_the_data_set_are_not_written_over_and_one_class_is_refused(own_folder, write_folder, digits):
    before = (own_folder / "train/a/000.png").read_bytes()
    flags = ["--dataset", "folder", "--image_size", "8", "--blocks", "1", "--data_dir"]
    with pytest.raises(UserError, match=r"--out .*000\.png would overwrite .* which is an input"):
        baseline.main([*flags, str(own_folder), "--out", str(own_folder / "train/a/000.png")])
    assert (own_folder / "train/a/000.png").read_bytes() == before
    write_folder(digits.images[:5], own_folder / "one" / "cat" / "x")
    with pytest.raises(UserError, match=r"only one class of training images, cat: add the others$"):
        baseline.main([*flags, str(own_folder / "one"), "--out", str(own_folder / "out.pt")])


def test_a_holdout_of_no_images_is_one_line(own_folder):
    for file in own_folder.glob("train/*/00[1-3].png"):
        file.unlink()
    flags = ["--dataset", "folder", "--image_size", "8", "--blocks", "1", "--hold_out", "true"]
    with pytest.raises(UserError, match=r"^--hold_out: no class has two training images; add some, or leave it out$"):
        baseline.main([*flags, "--data_dir", str(own_folder), "--out", str(own_folder / "out.pt")])


def test_the_shipped_recipe_has_the_defaults_of_the_program():
    from utils.arguments import parse_settings

    assert parse_settings(BaselineSettings, "", ["--config", "configs/cpen455_baseline.yaml"]) == BaselineSettings()
