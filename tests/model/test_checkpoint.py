import copy
import math
import os
import pickle
import random
import zipfile

import pytest
import torch

from layers import FUSIONS
from model import load_any_checkpoint, load_checkpoint, load_starter_checkpoint, read_checkpoint, save_checkpoint
from tests.model.checkpoints import ABOUT, refuse
from utils.errors import CheckpointError


class RunsCode:
    """Unpickled, it makes a folder."""

    def __init__(self, marker):
        self.marker = marker

    def __reduce__(self):
        return os.mkdir, (str(self.marker),)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("fusion", FUSIONS)
def test_round_trip_is_bit_equal(make_net, tmp_path, device, fusion, channels):
    net = make_net(fusion=fusion, image_channels=channels, dropout=0.25).to(device)
    save_checkpoint(tmp_path / "net.pt", net.train(), **ABOUT)
    loaded = load_checkpoint(tmp_path / "net.pt", device)
    assert not any(module.training for module in loaded.modules())
    assert loaded.settings == net.settings
    assert (loaded.image_size, loaded.class_names, loaded.dataset) == ((8, 12), ("ant", "bee", "cat"), "insects")
    x, labels = torch.rand(3, channels, 8, 12, device=device), torch.tensor([0, 1, 2], device=device)
    assert torch.equal(loaded(x, labels), net.eval()(x, labels))


def test_loaded_network_can_be_trained_on(make_net, tmp_path):
    save_checkpoint(tmp_path / "net.pt", make_net(), **ABOUT)
    net = load_checkpoint(tmp_path / "net.pt").train()
    before = [parameter.clone() for parameter in net.parameters()]
    net(torch.rand(3, 3, 8, 12), torch.tensor([0, 1, 2])).square().sum().backward()
    torch.optim.SGD(net.parameters(), lr=0.1).step()
    assert all(not torch.equal(old, new) for old, new in zip(before, net.parameters(), strict=True))


def test_moving_average_and_last_weights(make_net, tmp_path):
    net = make_net()
    ema = copy.deepcopy(net)
    torch.nn.init.constant_(ema.head.conv.bias, 0.5)
    path = tmp_path / "net.pt"
    save_checkpoint(path, net, ema=ema, **ABOUT)
    for weights, expected in (("ema", ema), ("last", net)):
        loaded = load_checkpoint(path, weights=weights).state_dict()
        assert all(torch.equal(loaded[name], value) for name, value in expected.state_dict().items())
    assert torch.equal(load_checkpoint(path).head.conv.bias, ema.head.conv.bias)
    save_checkpoint(path, net, **ABOUT)
    assert torch.equal(load_checkpoint(path, weights="ema").head.conv.bias, net.head.conv.bias)


def test_more_metadata_is_kept(make_net, tmp_path):
    more = {"epoch": 7, "history": [{"bpd": 3.5}, {"bpd": 3.25}], "optimizer": {"step": torch.arange(3)}}
    save_checkpoint(tmp_path / "net.pt", make_net(), **ABOUT, **more)
    for kept in (load_checkpoint(tmp_path / "net.pt").metadata, read_checkpoint(tmp_path / "net.pt")):
        assert kept["epoch"] == 7
        assert kept["history"] == more["history"]
        assert torch.equal(kept["optimizer"]["step"], torch.arange(3))


def test_a_failed_save_leaves_the_old_file(make_net, tmp_path):
    path = tmp_path / "net.pt"
    net = make_net()
    save_checkpoint(path, net, **ABOUT)
    with pytest.raises((AttributeError, pickle.PicklingError)):
        save_checkpoint(path, make_net(nr_filters=5), **ABOUT, unwritable=lambda: None)
    assert load_checkpoint(path).settings == net.settings


def test_a_link_to_another_disk_stays(make_net, tmp_path):
    (tmp_path / "disk").mkdir()
    (tmp_path / "last.pt").symlink_to(tmp_path / "disk" / "last.pt")
    for filters in (4, 5):
        save_checkpoint(tmp_path / "last.pt", make_net(nr_filters=filters), **ABOUT)
        assert (tmp_path / "last.pt").is_symlink() and os.listdir(tmp_path / "disk") == ["last.pt"]
        assert load_checkpoint(tmp_path / "last.pt").settings["nr_filters"] == filters
    (tmp_path / "disk").rename(tmp_path / "unmounted")
    with pytest.raises(CheckpointError, match=r"last\.pt cannot be written \(No such file or directory\)"):
        save_checkpoint(tmp_path / "last.pt", make_net(), **ABOUT)
    assert sorted(os.listdir(tmp_path)) == ["last.pt", "unmounted"]


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")  # torch's word on files that are none of ours
@pytest.mark.parametrize(
    "load",
    [
        load_checkpoint,
        read_checkpoint,
        lambda path: load_starter_checkpoint(path, 3),
        lambda path: load_any_checkpoint(path, 3, "early"),
    ],
    ids=["ours", "contents", "starter", "any"],
)
class TestFilesThatAreNoCheckpoint:
    def test_missing(self, tmp_path, load):
        refuse(load, tmp_path / "none.pt")
        refuse(load, tmp_path)  # a folder

    @pytest.mark.parametrize(
        "data", [b"", b"\n", b"label,image\n0,a.png\n", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0\0\x10JFIF", b"PK\3\4"]
    )
    def test_other_kinds_of_file(self, tmp_path, load, data):
        (tmp_path / "file.pt").write_bytes(data)
        refuse(load, tmp_path / "file.pt")

    def test_any_first_byte(self, tmp_path, load):
        """A byte is an instruction to the unpickler."""
        for byte in range(256):
            (tmp_path / "file.pt").write_bytes(bytes([byte]) + b"\1\n.")
            refuse(load, tmp_path / "file.pt")

    def test_random_bytes(self, tmp_path, load):
        generator = random.Random(0)
        for length in [1, 2, 3, 10, 100, 1000, 10_000] * 5:
            (tmp_path / "file.pt").write_bytes(generator.randbytes(length))
            refuse(load, tmp_path / "file.pt")

    @pytest.mark.parametrize(
        "save", [torch.save, lambda obj, path: path.write_bytes(pickle.dumps(obj))], ids=["zip", "pickle"]
    )
    def test_code_is_not_run(self, tmp_path, load, save):
        pickle.loads(pickle.dumps(RunsCode(tmp_path / "run-here")))
        assert (tmp_path / "run-here").is_dir()  # so it would show
        save({"format": "conditional-pixelcnn++ 1", "u_init": RunsCode(tmp_path / "run")}, tmp_path / "code.pt")
        refuse(load, tmp_path / "code.pt")
        assert not (tmp_path / "run").exists()

    @pytest.mark.parametrize("thing", [None, 3, "net", [1, 2], {}, {1: 2}, {"weights": 3}, torch.zeros(3)], ids=str)
    def test_other_contents(self, write, load, thing):
        refuse(load, write(thing))

    def test_a_plain_state_dict(self, write, contents, load):
        message = refuse(load, write(contents["weights"]))
        if load not in (load_checkpoint, read_checkpoint):
            assert "it is one of this project; give best.pt or last.pt" in message

    def test_another_one_of_the_run_is_named(self, tmp_path, load):
        (tmp_path / "last.pt").write_bytes(b"PK")
        assert "may be whole" not in refuse(load, tmp_path / "last.pt")
        (tmp_path / "best.pt").touch()
        assert refuse(load, tmp_path / "last.pt").endswith(f"; {tmp_path / 'best.pt'} may be whole")


@pytest.mark.parametrize("legacy", [False, True])
def test_truncated_at_any_length(contents, tmp_path, legacy):
    path = tmp_path / "net.pt"
    torch.save(contents, path, _use_new_zipfile_serialization=not legacy)
    load_checkpoint(path)
    data = path.read_bytes()
    generator = random.Random(0)
    lengths = [
        *range(0, 200, 9),
        *(len(data) - n for n in range(1, 100, 9)),
        *generator.choices(range(len(data)), k=60),
    ]
    for length in lengths:
        path.write_bytes(data[:length])
        refuse(load_checkpoint, path)


@pytest.mark.timeout(60)
@pytest.mark.filterwarnings("ignore")  # torch warns of whatever the damage spells
def test_damaged_anywhere(contents, tmp_path):
    """A few bytes changed: a CheckpointError, or a network where only a weight's digits changed."""
    path = tmp_path / "net.pt"
    torch.save(contents, path)
    data = path.read_bytes()
    directory = data.index(b"data.pkl")
    generator = random.Random(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(data)
        for _ in range(generator.randint(1, 5)):
            damaged[directory + generator.randrange(5000)] = generator.randrange(256)
        path.write_bytes(damaged)
        try:
            load_checkpoint(path)
        except CheckpointError as error:
            assert "\n" not in str(error)
            refused += 1
    assert refused > 50


@pytest.mark.parametrize("key", ["format", "model", "weights", "ema", "image_size", "class_names", "dataset"])
def test_missing_entry(contents, write, key):
    del contents[key]
    assert key in refuse(load_checkpoint, write(contents))


@pytest.mark.parametrize("key", ["nr_resnet", "nr_filters", "nr_logistic_mix", "num_classes"])
def test_missing_setting(contents, write, key):
    """The default is another number than the weights were made for."""
    del contents["model"][key]
    refuse(load_checkpoint, write(contents))


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("format", "conditional-pixelcnn++ 2"),
        ("format", torch.zeros(2)),
        ("model", None),
        ("model", [1, 8, 5]),
        ("model", {1: 2}),
        ("weights", None),
        ("weights", [torch.zeros(2)]),
        ("weights", {}),
        ("weights", {1: torch.zeros(2)}),
        ("ema", "weights"),
        ("ema", {}),
        ("image_size", None),
        ("image_size", 8),
        ("image_size", [8]),
        ("image_size", [8, 8, 8]),
        ("image_size", ["high", "wide"]),
        ("image_size", ["8", "12"]),
        ("image_size", [8.0, 12.0]),
        ("image_size", [8.5, 12]),
        ("image_size", [True, 8]),
        ("image_size", [math.inf, 8]),
        ("image_size", [8, -8]),
        ("image_size", [8, 6]),
        ("image_size", [8, 516]),
        ("image_size", [20000, 20000]),
        ("class_names", None),
        ("class_names", 3),
        ("class_names", ["ant", "bee"]),
        ("class_names", "abc"),
        ("class_names", [1, 2, 3]),
        ("class_names", ["ant", "bee", None]),
        ("class_names", ["ant", "bee", "ant"]),
    ],
    ids=repr,
)
def test_entry_of_a_wrong_kind(contents, write, key, value):
    contents[key] = value
    refuse(load_checkpoint, write(contents))


@pytest.mark.timeout(20)
@pytest.mark.parametrize("name", ["nr_resnet", "nr_filters", "nr_logistic_mix", "num_classes", "image_channels"])
@pytest.mark.parametrize("value", [10**6, 10**9, 10**30, 0, -1, "2", 2.5, math.nan, math.inf, None, [1]], ids=repr)
def test_absurd_setting(contents, write, name, value):
    contents["model"][name] = value
    refuse(load_checkpoint, write(contents))


def test_nothing_is_allocated_before_the_shapes_agree(contents, write, monkeypatch):
    devices = set()
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda weight, **_: devices.add(weight.device.type))
    contents["model"]["nr_filters"] += 1
    refuse(load_checkpoint, write(contents))
    assert devices == {"meta"}


@pytest.mark.parametrize(
    ("name", "value"), [("fusion", "later"), ("fusion", None), ("dropout", 1), ("dropout", "half"), ("depth", 3)]
)
def test_unknown_setting(contents, write, name, value):
    contents["model"][name] = value
    assert name in refuse(load_checkpoint, write(contents))


@pytest.mark.filterwarnings("ignore:Validating sparse")
@pytest.mark.parametrize("which", ["weights", "ema"])
def test_weights_that_disagree_with_the_settings(contents, write, which):
    good = contents["weights"]
    name, value = "head.conv.bias", good["head.conv.bias"]
    wrong = [
        {key: other for key, other in good.items() if key != name},
        good | {"head.conv.more": value},
        good | {name: value[:-1]},
        good | {name: value[None]},
        good | {name: None},
        good | {name: value.tolist()},
        good | {name: value.long()},
        good | {name: value.double()},
        good | {name: value.to(torch.complex64)},
        good | {name: value.to_sparse()},
        good | {name: value.to("meta")},
    ]
    for weights in wrong:
        contents[which] = weights
        message = refuse(load_checkpoint, write(contents))
        assert not message.endswith(":")  # it says what is wrong


def test_a_compressed_checkpoint_is_refused(tmp_path, make_net):
    path = tmp_path / "net.pt"
    save_checkpoint(path, make_net(num_classes=2), image_size=(8, 8), class_names=("a", "b"), dataset="digits")
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as target:
        for name in source.namelist():
            target.writestr(name, source.read(name))
    assert load_checkpoint(path).num_classes == 2
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_checkpoint(bomb)


def test_non_finite_weights_are_refused(tmp_path, make_net):
    path = tmp_path / "net.pt"
    net = make_net(num_classes=2)
    with torch.no_grad():
        net.head.conv.bias[0] = torch.nan
    save_checkpoint(path, net, image_size=(8, 8), class_names=("a", "b"), dataset="digits")
    with pytest.raises(CheckpointError, match=r"head\.conv\.bias is non-finite"):
        load_checkpoint(path)


def test_weights_that_the_file_does_not_hold_are_refused(tmp_path, make_net):
    path = tmp_path / "net.pt"
    save_checkpoint(path, make_net(num_classes=2), image_size=(8, 8), class_names=("a", "b"), dataset="digits")
    content = torch.load(path, weights_only=True)
    content["weights"] = {k: torch.zeros(()).expand(v.shape) for k, v in content["weights"].items()}
    torch.save(content, path)
    with pytest.raises(CheckpointError, match="larger than its data in the file"):
        load_checkpoint(path)
