"""Files from strangers: each is labelled or told about in its row, nothing is lost, nothing runs."""

import io
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import classify
import pcnn_train
from data import read_image
from evaluation.prediction_file import read_csv
from model import PixelCNN, save_checkpoint
from training.settings import TrainSettings
from utils.arguments import parse_settings
from utils.errors import DataError, UserError
from utils.script import run_script

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("net") / "net.pt"
    save_checkpoint(path, PixelCNN(1, 4, 1, 3, 2), image_size=(8, 8), class_names=("=a", "b"), dataset="folder")
    return path


def encoded() -> dict[str, bytes]:
    """A 40x30 picture in every format and mode that Pillow writes here."""
    Image.init()
    picture = Image.effect_noise((40, 30), 60).convert("RGB")
    files = {}
    readable = {*Image.OPEN, "MPO"} - {"EPS", "JXL"}  # which are never opened
    for extension, name in sorted(Image.registered_extensions().items()):
        for mode in ("RGB", "L", "RGBA", "P", "CMYK", "1", "I;16"):
            key = f"{name}-{mode}{extension}"
            if name in Image.SAVE and name in readable and key.split(".")[0] not in {k.split(".")[0] for k in files}:
                buffer = io.BytesIO()
                try:
                    picture.convert("L" if mode == "I;16" else mode).convert(mode).save(buffer, format=name)
                except Exception:
                    continue  # not every format has every mode
                files[key] = buffer.getvalue()
    return files


def corpus(folder: Path, wanted: int = 420) -> int:
    """Broken files below ``folder``, as many as are wanted: cut, with flipped bits, renamed, of no image at all."""
    chance = random.Random(0)
    whole = list(encoded().items())
    assert len({name.split("-")[0] for name, _ in whole}) > 12  # formats
    folder.mkdir()
    for number in range(wanted):
        name, content = whole[number % len(whole)]
        content = bytearray(content)
        way = chance.choice(["cut", "flip", "flip", "zero", "noise", "repeat", "header"])
        if way == "cut":
            del content[chance.randrange(len(content)) :]
        elif way == "flip":
            for _ in range(chance.choice([1, 5, 50])):
                content[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        elif way == "header":
            for place in range(min(64, len(content))):
                if chance.random() < 0.2:
                    content[place] = chance.randrange(256)
        elif way == "zero":
            start = chance.randrange(len(content))
            content[start:] = bytes(len(content) - start)
        elif way == "noise":
            content = bytearray(chance.randbytes(chance.randrange(2000)))
        else:
            content = content[: len(content) // 2] * 3
        suffix = chance.choice([Path(name).suffix, Path(name).suffix, ".png", ".jpg"])
        (folder / f"{number:04d}-{way}{suffix}").write_bytes(content)
    return wanted


def test_broken_images_are_labelled_or_told_about(checkpoint, tmp_path, capsys):
    folder = tmp_path / "files"
    count = corpus(folder)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    argv = ["--checkpoint", str(checkpoint), str(folder), "--out", str(tmp_path / "out.csv")]
    status = classify.main(argv)
    table = read_csv(tmp_path / "out.csv")
    assert [row["path"] for row in table] == [str(file) for file in sorted(folder.iterdir())] and len(table) == count
    broken = [row for row in table if row["error"]]
    assert status == 1 and 100 < len(broken) < count  # a flipped bit in the pixels is no damage that one can see
    for row in table:
        cells = [row[name] for name in ("label", "class_name", "confidence", "bpd", "logp_=a", "logp_b")]
        if row["error"]:
            assert cells == [""] * 6 and row["path"] in row["error"]
        else:
            assert row["class_name"] in ("=a", "b") and all(float(cell) == float(cell) for cell in cells[2:])
            torch.testing.assert_close(read_image(row["path"], 3, 8), read_image(row["path"], 3, 8))
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert growth < 1_500_000, f"{growth / 1e6:.1f} GB more memory"  # kilobytes; small files that claim to be large


def make_odd_files(folder: Path) -> dict[str, str]:
    """Files with odd names and contents: name -> a word of the error, "" where the image can be read."""
    folder.mkdir()
    picture = Image.effect_noise((20, 10), 60)
    expected = {}

    def add(name, error, content=None):
        expected[name] = error
        if content is not None:
            (folder / name).write_bytes(content)
        return folder / name

    for name in ("=cmd|' x'!A0.png", "new\nline.png", 'quo"te, comma.png', "-1.png", "@x.png", "tab\t.png"):
        picture.save(add(name, ""))
    latin = os.fsencode(folder) + b"/caf\xe9.png"
    with open(latin, "wb") as file:
        picture.save(file, "PNG")
    expected[os.fsdecode(b"caf\xe9.png")] = ""
    picture.resize((1, 1)).save(add("one pixel.png", ""))
    picture.resize((60000, 1)).save(add("60000x1.png", ""))
    picture.convert("CMYK").save(add("cmyk.jpg", ""))
    Image.new("I;16", (9, 9), 40000).save(add("sixteen bits.png", ""))
    picture.save(add("animated.gif", ""), save_all=True, append_images=[picture.rotate(90)] * 3)
    picture.save(add("a jpeg.png", ""), format="JPEG")
    add("empty.png", "", b"")
    expected["empty.png"] = "cannot identify"
    add("text.jpg", "cannot identify", b"hello")
    Image.new("1", (20000, 20000)).save(add("bomb.png", "pixels"))
    (folder / "sub").mkdir()
    (folder / "sub" / "loop").symlink_to(folder)
    picture.save(folder / "sub" / "inner.png")
    expected["sub/inner.png"] = ""
    return expected


def test_special_files_have_their_row(checkpoint, tmp_path, special_files):
    folder = tmp_path / "files"
    expected = make_odd_files(folder) | special_files(folder)
    argv = ["--checkpoint", str(checkpoint), str(folder), "--out", str(tmp_path / "out.csv"), "--explain"]
    assert classify.main([*argv, str(tmp_path / "why")]) == 1
    table = {row["path"]: row for row in read_csv(tmp_path / "out.csv")}
    assert sorted(table) == sorted(str(folder / name) for name in expected)
    for name, error in expected.items():
        row = table[str(folder / name)]
        assert (error in row["error"] and row["error"] != "") if error else row["error"] == "", (name, row)
    assert len(list((tmp_path / "why").iterdir())) == sum(not error for error in expected.values()) + 1


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads any folder")
def test_a_closed_folder_has_a_row(checkpoint, tmp_path):
    folder = tmp_path / "files"
    (folder / "closed").mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder / "open.png")
    (folder / "closed").chmod(0)
    try:
        check_closed(checkpoint, folder, tmp_path)
    finally:
        (folder / "closed").chmod(0o700)


def test_a_folder_that_cannot_be_listed_has_a_row(checkpoint, tmp_path, monkeypatch):
    folder = tmp_path / "files"
    (folder / "closed").mkdir(parents=True)
    Image.new("L", (8, 8)).save(folder / "open.png")
    scandir = os.scandir

    def refuse(path):
        if str(path).endswith("closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    check_closed(checkpoint, folder, tmp_path)


def check_closed(checkpoint, folder, tmp_path):
    out = tmp_path / "out.csv"
    assert classify.main(["--checkpoint", str(checkpoint), str(folder), "--out", str(out)]) == 1
    closed, opened = read_csv(out)
    assert closed["path"] == str(folder / "closed") and "cannot be listed" in closed["error"]
    assert opened["path"] == str(folder / "open.png") and not opened["error"]


def test_training_on_a_folder_with_a_pipe_ends_in_one_line(tmp_path):
    for name in ("a", "b"):
        (tmp_path / "set" / name).mkdir(parents=True)
        for i in range(3):
            Image.new("L", (8, 8), i).save(tmp_path / "set" / name / f"{i}.png")
    os.mkfifo(tmp_path / "set" / "a" / "pipe.png")
    with pytest.raises(DataError, match="not a regular file"):
        pcnn_train.main(["--dataset", "folder", "--data_dir", str(tmp_path / "set"), "--image_size", "8"])


class Hostile:
    def __init__(self, file: Path):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def test_a_checkpoint_cannot_run_code(tmp_path, capsys):
    import pickle
    import zipfile

    touched, plain, archive = tmp_path / "touched", tmp_path / "plain.pt", tmp_path / "zip.pt"
    plain.write_bytes(pickle.dumps(Hostile(touched)))
    with zipfile.ZipFile(archive, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps({"format": Hostile(touched)}, protocol=2))
        file.writestr("archive/version", "3")
        file.writestr("archive/byteorder", "little")
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    for path in (plain, archive):
        for run in (
            lambda path=path: classify.main(["--checkpoint", str(path), str(tmp_path / "x.png")]),
            lambda path=path: pcnn_train.main(
                ["--dataset", "digits", "--load_params", str(path), "--run_dir", str(tmp_path / "run")]
            ),
        ):
            with pytest.raises(SystemExit) as stop:
                run_script(run)
            error = capsys.readouterr().err
            assert stop.value.code == 2 and len(error.strip().splitlines()) == 1 and path.name in error
    assert not touched.exists()


@settings(max_examples=150)
@given(
    st.one_of(
        st.text(),
        st.dictionaries(st.sampled_from(["lr", "nr_filters", "fusion", "seed", "en_wandb", "x"]), st.text()).map(str),
        st.sampled_from(
            [
                "lr: !!python/object/apply:os.system ['exit 1']",
                "!!python/name:os.system",
                "lr: &a [*a]",
                "lr: .nan",
                "lr: .inf",
                "max_epochs: 1e400",
                "? [a]\n: b",
                "nr_filters: 0x10",
                "seed: 12_000",
                "lr: 2001-01-01",
                "\0",
                "%YAML 3.0\n---\nlr: 1",
            ]
        ),
    )
)
def test_any_text_as_a_config_is_settings_or_one_line(tmp_path_factory, text):
    config = tmp_path_factory.mktemp("yaml") / "c.yaml"
    config.write_text(text, encoding="utf-8", errors="surrogatepass")
    try:
        result = parse_settings(TrainSettings, "", ["--config", str(config)])
    except UserError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert isinstance(result.lr, float) and 0 < result.lr < float("inf") and isinstance(result.nr_filters, int)


@pytest.mark.slow
def test_a_classification_killed_at_random_moments(checkpoint, tmp_path):
    """SIGKILL and SIGTERM of a real process, taken up each time: the file of one that was left alone."""
    folder = tmp_path / "files"
    corpus(folder, 300)
    command = [sys.executable, str(ROOT / "classify.py"), "--checkpoint", str(checkpoint), str(folder), "--batch_size"]
    command += ["2", "--precision", "fp32", "--out"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    whole, out = tmp_path / "whole.csv", tmp_path / "out.csv"
    subprocess.run([*command, whole], env=environment, capture_output=True, timeout=300)
    chance = random.Random(2)
    cuts = 0
    while not out.exists():
        slow = {**environment, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen([*command, out, "--resume"], env=slow, stderr=subprocess.PIPE, text=True)
        partial = tmp_path / "out.csv.partial"
        size = partial.stat().st_size if partial.exists() else 0
        begun = time.monotonic()
        while cuts < 6 and process.poll() is None and time.monotonic() - begun < 120:
            if partial.exists() and partial.stat().st_size > size:
                time.sleep(chance.uniform(0, 0.15))
                process.send_signal(chance.choice([signal.SIGKILL, signal.SIGTERM]))
                cuts += 1
                break
            time.sleep(0.005)
        error = process.communicate(timeout=300)[1]
        if process.returncode == 128 + signal.SIGTERM:
            assert "repeat the command with --resume" in error
        else:
            assert process.returncode in (-signal.SIGKILL, -signal.SIGTERM, 1), error
    assert cuts >= 3
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.csv.partial").exists() and not (tmp_path / "out.csv.partial.json").exists()


def test_a_config_that_is_no_text_is_one_line(tmp_path):
    (tmp_path / "b.yaml").write_bytes(b"\xff\xfe\x00a")
    with pytest.raises(UserError, match="not UTF-8"):
        parse_settings(TrainSettings, "", ["--config", str(tmp_path / "b.yaml")])
