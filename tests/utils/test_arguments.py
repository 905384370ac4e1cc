"""Flags and YAML files as people and programs write them."""

from dataclasses import asdict, dataclass, field
from typing import Literal

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from utils.arguments import parse_settings, repeat_flag
from utils.errors import UserError
from utils.values import Fraction, PathName, PathNames, PositiveInt, Temperature, expand_patterns


@dataclass
class Example:
    """Settings of a test.

    Args:
        text: or none.
        word: 100 % a text.
        words: a list, or none.
        count: or none.
        size: a number or a word.
        rate: in [0, 1).
        dims: a choice.
        mode: a choice.
        on: a boolean.
        maybe: a boolean, or none.
        path: a path.
    """

    text: str | None = None
    word: str = "d"
    words: list[str] | None = None
    count: PositiveInt | None = None
    size: PositiveInt | Literal["auto"] = "auto"
    rate: Fraction = 0.5
    dims: Literal[64, 192] = 64
    mode: Literal["none", "flip"] = "none"
    on: bool = False
    maybe: bool | None = None
    path: PathName = "p"


def parse(*argv: str) -> Example:
    return parse_settings(Example, "", argv)


@pytest.mark.parametrize(
    "argv, expected",
    [
        ("--text=None --words=None --count null --maybe=None", {}),
        ("--mode none", {"mode": "none"}),  # a choice of its own
        ("--on", {"on": True}),
        ("--on --maybe", {"on": True, "maybe": True}),
        ("--on True --maybe False", {"on": True, "maybe": False}),
        ("--on=1 --maybe 0", {"on": True, "maybe": False}),
        ("--words a b --on", {"words": ["a", "b"], "on": True}),
        ("--words a --words b", {"words": ["a", "b"]}),
        ("--words=['a','b']", {"words": ["a", "b"]}),  # as an agent of W&B writes it
        ("--words [a", {"words": ["[a"]}),
        ("--words", {"words": []}),
        ("--dims 192", {"dims": 192}),
        ("--size 3 --rate 1e-3", {"size": 3, "rate": 0.001}),
        ("--text 1e96 --word 0x10", {"text": "1e96", "word": "0x10"}),
    ],
)
def test_flags(argv, expected):
    result = parse(*argv.split())
    assert result == Example(**expected)
    assert all(type(getattr(result, name)) is type(value) for name, value in expected.items())


@pytest.mark.parametrize(
    "argv, message",
    [
        ("--rate 1", "--rate 1: should be less than 1 (--help lists all flags)"),
        ("--rate nan", "--rate nan: should be "),
        ("--count 0", "--count 0: should be greater than 0 (--help lists all flags)"),
        ("--count x", "--count x: should be a valid integer (--help lists all flags)"),
        ("--size x", "--size x: should be a valid integer or 'auto' (--help lists all flags)"),
        ("--mode x", "--mode x: should be 'none' or 'flip' (--help lists all flags)"),
        ("--dims 65", "--dims 65: should be 64 or 192 (--help lists all flags)"),
        ("--on x", "--on x: should be true or false (--help lists all flags)"),
        ("--rate None", "--rate has no value; give one, or leave it out (--help lists all flags)"),
        ("--text=", "--text is empty; give a value, or leave it out"),
        ("--text", "--text: expected one argument (--help lists all flags)"),
        ("--cuont 3", "unrecognized arguments: --cuont 3; did you mean --count? (--help lists all flags)"),
        ("x", "unrecognized arguments: x (--help lists all flags)"),
    ],
)
def test_a_bad_flag_is_one_plain_line(argv, message):
    with pytest.raises(UserError) as error:
        parse(*argv.split())
    assert str(error.value).startswith(message) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text, message",
    [
        ("cuont: 3", "unknown setting cuont; did you mean count?"),
        ("word: 12", "word 12: put quotes around the value, as it is a text"),
        ("word: yes", "word True: true, false, yes and no are booleans; put quotes around a text"),
        ("count: true", "count True: true, false, yes and no are booleans"),
        ("words: a", "words a: give a list, as in [a, b]"),
        ("words: [a, 1]", "words 1: put quotes around the value, as it is a text"),
        ("count: 3\nword: a\ncount: 4", "is not valid YAML: count is given twice"),
        ("rate:", "rate has no value; give one, or leave it out"),
        ("rate: [1]", "rate [1]: should be a valid number"),
        ("- 1", "holds no settings; give one in each line, as in lr: 0.001"),
        ("a: [1", "is not valid YAML: while parsing a flow sequence"),
        ("text: 2026-13-45", "is not valid YAML: month must be in 1..12"),
        ("a: " + "[" * 5000, "is not valid YAML"),
        ("size: [1]", "size [1]: should be"),
        ("size: []", "size []: should be"),
        ('text: "a\\0b"', "has a null character"),
        ('words: [b, "a\\0b"]', "has a null character"),
    ],
)
def test_a_bad_config_is_one_plain_line(tmp_path, text, message):
    file = tmp_path / "c.yaml"
    file.write_text(text)
    with pytest.raises(UserError) as error:
        parse("--config", str(file))
    assert str(error.value).startswith(f"{file}") and message in str(error.value) and "\n" not in str(error.value)


def test_a_config_of_none_and_empty_values(tmp_path):
    (tmp_path / "c.yaml").write_text("text:\nwords: null\ncount: None\nrate: 1e-3\nmaybe: ~\n")
    assert parse("--config", str(tmp_path / "c.yaml")) == Example(rate=0.001)
    (tmp_path / "c.yaml").write_text("")
    assert parse("--config", str(tmp_path / "c.yaml")) == Example()


@given(st.text(st.characters(exclude_characters="\0"), min_size=1))
def test_any_text_is_read_back_as_it_was_written(tmp_path_factory, text):
    file = tmp_path_factory.mktemp("yaml") / "c.yaml"
    given = parse(f"--text={text}", f"--word=x{text}", "--words", f"x{text}")
    assert given.text == (None if text in ("None", "null") else text)
    file.write_text(yaml.safe_dump(asdict(given)))
    assert parse("--config", str(file)) == given


@pytest.mark.parametrize(
    "text", ["1e96", "913264e12", "--", "-", "~", "[a]", "&x", "12", "\udc80", "a\nb", " a ", "\ufeff"]
)
def test_odd_texts_are_read_back(tmp_path, text):
    given = parse(f"--text={text}", f"--word={text}")
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(asdict(given)))
    assert parse("--config", str(tmp_path / "c.yaml")) == given == Example(text=text, word=text)


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert parse("--path=~/x").path == str(tmp_path / "x")
    (tmp_path / "c.yaml").write_text("path: ~/y")
    assert parse("--config=~/c.yaml").path == str(tmp_path / "y")


def test_every_path_of_every_program_expands_home(tmp_path, monkeypatch):
    from classify import ClassifySettings
    from data.export import ExportSettings as DataSettings
    from evaluate import EvaluateSettings
    from evaluation.baseline_training import BaselineSettings
    from generate import GenerateSettings
    from sweep import SweepSettings
    from training.export_checkpoint import ExportSettings
    from training.results import ResultsSettings
    from training.settings import TrainSettings

    monkeypatch.setenv("HOME", str(tmp_path))
    positional = {DataSettings: ["dataset", "split", "out"], SweepSettings: ["sweep"], ResultsSettings: ["runs"]}
    positional[EvaluateSettings] = ["checkpoints"]
    count = 0
    for settings in (
        *(ClassifySettings, DataSettings, EvaluateSettings, GenerateSettings, SweepSettings, ExportSettings),
        *(ResultsSettings, TrainSettings, BaselineSettings),
    ):
        for name in settings.__annotations__:
            words = "checkpoint checkpoints paths out explain fid fid_weights complete report figure images".split()
            if name in words or name.endswith("_dir") or name in ("runs", "resume", "load_params", "cache"):
                if settings is ClassifySettings and name == "resume":
                    continue  # a boolean
                required = {"checkpoint": "c", "out": "o"} if settings is ExportSettings else {}
                flags = [f"--{key}={value}" for key, value in required.items() if key != name]
                places = [*positional.get(settings, ()), *(["paths"] if settings is ClassifySettings else [])]
                if name in places:
                    flags += ["d"] * places.index(name) + ["~/x"] + ["d"] * (len(places) - places.index(name) - 1)
                else:
                    flags += [f"--{name}=~/x"] + (["d"] * 3 if settings is DataSettings else [])
                value = getattr(parse_settings(settings, "", flags, positional=places), name)
                assert value in (str(tmp_path / "x"), [str(tmp_path / "x")]), (settings, name)
                count += 1
    assert count > 25


def test_patterns_that_the_shell_left(tmp_path):
    for name in ("b.png", "a.png", "[x].png"):
        (tmp_path / name).touch()
    pattern, odd = str(tmp_path / "?.png"), str(tmp_path / "[x].png")
    expected = [str(tmp_path / "a.png"), str(tmp_path / "b.png"), odd, "nothing*"]
    assert expand_patterns([pattern, odd, "nothing*"]) == expected


def test_flags_before_and_between_positional_arguments():
    @dataclass
    class Files:
        """Files.

        Args:
            paths: of files.
            weights: numbers.
            on: a boolean.
        """

        paths: PathNames = field(default_factory=list)
        weights: list[Temperature] | None = None
        on: bool = False

    def files(*argv):
        return parse_settings(Files, "", repeat_flag(argv, "--weights", str.isdigit), positional=["paths"])

    assert files("a", "--weights", "1", "2", "b") == Files(["a", "b"], [1.0, 2.0])
    assert files("--on", "a", "--on=false", "b") == Files(["a", "b"])
    assert files("--on", "true") == Files(on=True) and files("--on", "1") == Files(["1"], on=True)
    assert files() == Files()
    with pytest.raises(UserError, match=r"--weights x: should be a valid number"):
        files("--weights", "x")


def test_repeat_flag():
    assert repeat_flag(["a", "--p", "0.5", "1", "b"], "--p", lambda x: x[0].isdigit()) == ["a", "--p=0.5", "--p=1", "b"]
    assert repeat_flag(["--p=[1]", "x"], "--p", str.isdigit) == ["--p=[1]", "x"]
    assert repeat_flag(["--p=1", "2", "--p", "3", "4", "x"], "--p", str.isdigit) == [*map("--p={}".format, "1234"), "x"]
    assert repeat_flag(["--p"], "--p", str.isdigit) == ["--p"]


def test_a_required_flag_is_named():
    from training.export_checkpoint import ExportSettings

    with pytest.raises(UserError, match=r"^--out is missing"):
        parse_settings(ExportSettings, "", ["--checkpoint", "x"])


def test_every_setting_has_a_help_text(capsys):
    with pytest.raises(SystemExit) as stop:
        parse("--help")
    text = capsys.readouterr().out
    assert stop.value.code == 0 and "100 % a text. (default: d)" in text and text.count("--") >= 13


def test_print_config(capsys):
    with pytest.raises(SystemExit):
        parse("--count", "3", "--print_config")
    assert yaml.safe_load(capsys.readouterr().out) == asdict(Example(count=3))
