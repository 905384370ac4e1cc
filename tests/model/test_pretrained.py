"""The network as a library: from_pretrained, classify and sample, exported checkpoints, the Hub."""

import doctest
import json
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file

import classify
import generate
import model.pixelcnn
from data import read_image
from model import (
    PRETRAINED,
    PixelCNN,
    class_log_likelihoods,
    image_generators,
    load_checkpoint,
    sample,
    save_checkpoint,
)
from model.export import MACHINE, export, main
from model.exported import CONFIG, WEIGHTS
from tests.model.checkpoints import ABOUT
from training.settings import tagged
from utils.errors import CheckpointError, UserError

ROOT = Path(__file__).resolve().parents[2]
MORE = {
    "temperature": 7.5,
    "sample_temperature": 0.8,
    "settings": {"lr": 0.1, "data_dir": "/home/ann/images"},
    "typicality": {"score": "input_complexity", "values": torch.rand(5), "images": 5},
    "validation": {"split": "validation", "images": 20, "accuracy": 0.75, "bpd": 3.5},
    "optimizer": {"state": {0: torch.ones(3)}},
}


@pytest.fixture
def saved(make_net, tmp_path):
    """A checkpoint in 16 bits, with all that one can hold."""
    torch.manual_seed(3)
    path = tmp_path / "net.pt"
    save_checkpoint(path, make_net(num_classes=3, image_channels=3).half(), **ABOUT, **MORE)
    return path


@pytest.fixture
def exported(saved, tmp_path):
    export(saved, tmp_path / "out")
    return tmp_path / "out"


def images(count: int = 5) -> torch.Tensor:
    return torch.randint(0, 256, (count, 3, 8, 12), dtype=torch.uint8)


def test_an_exported_checkpoint_loads_back_bit_for_bit(saved, exported):
    before = load_checkpoint(saved)
    for source in (exported, exported / WEIGHTS, str(exported)):
        net = PixelCNN.from_pretrained(source)
        x = images()
        assert torch.equal(class_log_likelihoods(net, x), class_log_likelihoods(before, x))
        assert (net.class_names, net.image_size, net.dataset) == (before.class_names, before.image_size, before.dataset)
        assert net.settings == before.settings and not net.training
        typicality = net.metadata["typicality"]
        assert torch.equal(typicality.pop("values"), before.metadata["typicality"]["values"])
        assert typicality == {"score": "input_complexity", "images": 5}
        assert net.metadata["temperature"] == 7.5 and net.metadata["validation"] == MORE["validation"]
        assert net.metadata["settings"] == {"lr": 0.1} and "optimizer" not in net.metadata
    weights = load_file(exported / WEIGHTS)  # as another program reads it: a state dict, and what is not of it
    assert {name for name in weights if "/" not in name} == before.state_dict().keys()
    assert all(weights[name].dtype == torch.float16 for name in before.state_dict())
    assert (exported / WEIGHTS).stat().st_mode & 0o444 == (exported / CONFIG).stat().st_mode & 0o444


def test_the_moving_average_is_exported(make_net, tmp_path):
    net, ema = make_net(), make_net()
    save_checkpoint(tmp_path / "best.pt", net, ema=ema, **ABOUT)
    export(tmp_path / "best.pt", tmp_path / "out")
    loaded = load_checkpoint(tmp_path / "out").state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in ema.state_dict().items())


def test_settings_that_name_something_on_a_machine_are_left_out():
    assert set(MACHINE) == tagged("machine")


def test_the_model_card_is_what_the_hub_reads(exported):
    _, header, text = (exported / "README.md").read_text().split("---\n", 2)
    header = yaml.safe_load(header)
    (result,) = header["model-index"][0]["results"]
    assert header["pipeline_tag"] == "image-classification"
    assert {entry["type"]: entry["value"] for entry in result["metrics"]} == {"accuracy": 0.75, "bpd": 3.5}
    assert result["dataset"]["name"] == "insects"
    assert "Measured on 20 validation images" in text and "- Classes: ant, bee, cat\n" in text and "8x12" in text


@pytest.mark.parametrize(
    ("teacher", "line"),
    [
        ({"parameters": 1234, "accuracy": 0.95}, "of 1,234 parameters, whose accuracy is 0.9500"),
        ({"parameters": 1234, "accuracy": None}, "of 1,234 parameters"),
        ({"parameters": "many"}, ""),
    ],
)
def test_the_model_card_names_the_teacher(make_net, tmp_path, teacher, line):
    save_checkpoint(tmp_path / "net.pt", make_net(), **ABOUT, teacher=teacher)
    export(tmp_path / "net.pt", tmp_path / "out")
    assert (
        f"\n- Distilled from a discriminative baseline {line}".rstrip() + "\n"
        in (tmp_path / "out/README.md").read_text()
    )
    assert load_checkpoint(tmp_path / "out").metadata["teacher"] == teacher


def test_a_checkpoint_without_figures_has_a_card_without_figures(make_net, tmp_path):
    save_checkpoint(tmp_path / "net.pt", make_net(), **ABOUT)
    export(tmp_path / "net.pt", tmp_path / "out")
    card = (tmp_path / "out/README.md").read_text()
    assert not any(word in card for word in ("model-index", "Measured", "None", "Distilled"))


def test_scripts_take_an_exported_checkpoint(checkpoint, photos, tmp_path, capsys):
    """The CSV is that of the .pt file, and the two are told apart where a classification is resumed."""
    assert main([str(checkpoint), str(tmp_path / "net")]) == 0
    assert f"README.md: {tmp_path / 'net'}\n" in capsys.readouterr().out
    for name, source in (("pt", checkpoint), ("folder", tmp_path / "net"), ("file", tmp_path / "net" / WEIGHTS)):
        assert classify.main(["--checkpoint", str(source), str(photos), "--out", str(tmp_path / name / "p.csv")]) == 0
    table = (tmp_path / "pt/p.csv").read_text()
    assert (tmp_path / "folder/p.csv").read_text() == (tmp_path / "file/p.csv").read_text() == table
    assert generate.main(["--checkpoint", str(tmp_path / "net"), "--per_class", "1", "--out", str(tmp_path / "s")]) == 0
    before = (tmp_path / "net" / CONFIG).read_bytes()
    with pytest.raises(UserError, match="--out"):
        classify.main(["--checkpoint", str(tmp_path / "net"), str(photos), "--out", str(tmp_path / "net" / CONFIG)])
    assert (tmp_path / "net" / CONFIG).read_bytes() == before


def test_classify_is_classify_py_s_confidence(checkpoint, photos, tmp_path):
    net = PixelCNN.from_pretrained(checkpoint).train()
    net.metadata["temperature"] = 3.0
    paths = sorted(photos.rglob("*.png"))
    batch = torch.stack([read_image(path, 3, (8, 8)) for path in paths])
    found = net.classify(batch)
    assert net.training  # as before
    expected = (class_log_likelihoods(net.eval(), batch).double() / 3).softmax(1).float()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-6)
    many = net.classify(batch.repeat(20, 1, 1, 1))  # in several batches
    torch.testing.assert_close(many[-len(paths) :], found, rtol=1e-3, atol=1e-6)
    assert net.classify(batch[:0]).shape == (0, net.num_classes)


@pytest.mark.parametrize(
    "bad",
    [torch.zeros(2, 3, 8, 12), torch.zeros(2, 3, 12, 8, dtype=torch.uint8), torch.zeros(3, 8, 12, dtype=torch.uint8)],
)
def test_other_images_are_refused(saved, bad):
    with pytest.raises(ValueError, match=r"they must be torch.uint8 \[N, 3, 8, 12\]"):
        PixelCNN.from_pretrained(saved).classify(bad)


def test_sample_draws_what_the_sampler_draws(checkpoint):
    net = PixelCNN.from_pretrained(checkpoint)
    owl = net.class_names.index("owl")
    expected = sample(net, torch.tensor([owl, owl]), (8, 8), image_generators(5, 0, 2), temperature=0.9)
    assert torch.equal(net.sample(["owl", owl], seed=5, temperature=0.9), expected)
    assert torch.equal(net.sample(torch.tensor([owl, owl]), seed=5, temperature=0.9), expected)
    net.metadata["sample_temperature"] = 0.9
    assert torch.equal(net.sample(["owl", "owl"], seed=5), expected)
    assert not torch.equal(net.sample(["owl", "owl"], seed=6), expected)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (["wasp"], "no class 'wasp'; the classes are ant, bee, cat"),
        ([3], "label is 3"),
        ([-1], "-1"),
        ([], "no labels"),
    ],
)
def test_unknown_classes_are_refused(saved, labels, message):
    with pytest.raises(ValueError, match=message):
        PixelCNN.from_pretrained(saved).sample(labels)


@pytest.mark.parametrize("temperature", [0, -1, float("nan"), float("inf")])
def test_a_wrong_temperature_is_refused(saved, temperature):
    with pytest.raises(ValueError, match=r"temperature is .*; it must be above 0"):
        PixelCNN.from_pretrained(saved).sample([0], temperature=temperature)


def test_a_fraction_is_no_class(saved):
    with pytest.raises(TypeError):
        PixelCNN.from_pretrained(saved).sample([0.7])


@pytest.mark.parametrize("name", ["x" * 5000, "runs/" + "x" * 5000 + ".pt"])
def test_a_name_too_long_for_a_file_is_no_checkpoint(name):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        PixelCNN.from_pretrained(name)


def test_class_names_are_text_in_the_card(make_net, tmp_path):
    """Whoever made the checkpoint chose them, and its reader copies the example."""
    names = ('a"]); import os #', "<b>bee", "\ud800")
    save_checkpoint(tmp_path / "net.pt", make_net(num_classes=3), **ABOUT | {"class_names": names})
    export(tmp_path / "net.pt", tmp_path / "out")
    assert load_checkpoint(tmp_path / "out").class_names == names
    card = (tmp_path / "out/README.md").read_text()
    assert "- Classes: a&quot;]); import os #, &lt;b&gt;bee, \\ud800\n" in card
    assert "net.sample(['a\"]); import os #'], seed=0)" in card


def test_a_network_without_a_checkpoint_classifies_and_samples(make_net):
    net = make_net(num_classes=3, image_channels=3)
    assert net.classify(images(2)).sum(1).tolist() == pytest.approx([1, 1])
    assert net.sample([0], seed=0, image_size=(8, 8)).shape == (1, 3, 8, 8)


def broken(folder: Path, how: str) -> Path:
    if how == "no weights":
        (folder / WEIGHTS).unlink()
    elif how == "no config":
        (folder / CONFIG).unlink()
        return folder / WEIGHTS
    elif how == "cut weights":
        (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-10])
    elif how == "text":
        (folder / WEIGHTS).write_text("hello")
    elif how == "no JSON":
        (folder / CONFIG).write_text("{")
    elif how == "a list":
        (folder / CONFIG).write_text("[1]")
    elif how == "deep":
        (folder / CONFIG).write_text("[" * 100_000)
    elif how == "other names":
        save_file({"a/b/c": torch.ones(1)}, folder / WEIGHTS)
    elif how == "a wrong place":
        save_file({"format/x": torch.ones(1)}, folder / WEIGHTS)
    elif how == "integers":
        save_file({n: w.int() for n, w in load_file(folder / WEIGHTS).items()}, folder / WEIGHTS)
    elif how == "another size":
        config = json.loads((folder / CONFIG).read_text())
        config["model"]["nr_filters"] = 10**6
        (folder / CONFIG).write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "how",
    "no weights,no config,cut weights,text,no JSON,a list,deep,other names,a wrong place,integers,another size".split(
        ","
    ),
)
def test_a_broken_export_is_one_line(exported, how):
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(broken(exported, how))
    assert str(exported) in str(caught.value) and "\n" not in str(caught.value) and len(str(caught.value)) < 600


def test_a_folder_of_something_else_is_no_checkpoint(tmp_path):
    with pytest.raises(CheckpointError, match="no checkpoint at"):
        load_checkpoint(tmp_path)


def test_the_examples_in_the_documentation_are_right(monkeypatch):
    monkeypatch.chdir(ROOT)
    found = doctest.testmod(model.pixelcnn)
    assert found.attempted >= 6 and not found.failed


@contextmanager
def hub(folder: Path, commit: str = "0" * 40):
    """A server with the files of one repository, ann/insects."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.answer(False)

        def do_GET(self):
            self.answer(True)

        def answer(self, body: bool):
            file = folder / Path(self.path).name
            known = self.path.startswith("/ann/insects/resolve/") and file.is_file()
            content = file.read_bytes() if known else b"{}"
            self.send_response(200 if known else 404)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("ETag", f'"{file.name}"')
            self.send_header("X-Repo-Commit", commit)
            if not known:
                self.send_header("X-Error-Code", "RepoNotFound")
            self.end_headers()
            if body:
                self.wfile.write(content)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def from_hub(name: str, endpoint: str, cache: Path) -> subprocess.CompletedProcess:
    code = f"from model import PixelCNN; net = PixelCNN.from_pretrained({name!r}); print(net.class_names)"
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(cache), "PATH": "/usr/bin:/bin", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_a_network_comes_from_the_hub_and_then_from_its_cache(exported, tmp_path):
    pytest.importorskip("huggingface_hub")
    with hub(exported) as endpoint:
        first = from_hub("ann/insects", endpoint, tmp_path / "cache")
        assert first.stdout == "('ant', 'bee', 'cat')\n", first.stderr
        unknown = from_hub("ann/birds", endpoint, tmp_path / "cache")
        assert unknown.returncode and "CheckpointError: ann/birds is no file or folder here, and was not found" in (
            unknown.stderr
        )
    offline = from_hub("ann/insects", endpoint, tmp_path / "cache")
    assert offline.stdout == "('ant', 'bee', 'cat')\n", offline.stderr


def test_the_hub_is_imported_for_its_ids_alone(monkeypatch):
    code = (
        f"import sys; from model import PixelCNN; PixelCNN.from_pretrained({PRETRAINED!r}); "
        "print('huggingface_hub' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.stdout == "False\n", done.stderr
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(CheckpointError, match=r"no file or folder ann/insects.*pip install huggingface_hub"):
        PixelCNN.from_pretrained("ann/insects")
