"""What names a W&B run, and what W&B refuses of it."""

import os

import pytest

from training.wandb_run import sync_command, without_refused

LONG = 65 * "x"


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch):
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize(
    ("options", "kept", "said"),
    [
        ({"tags": ["a", "b"], "name": "n", "group": "g", "project": "p", "entity": "e"}, None, []),
        ({"tags": ["a", LONG, ""]}, {"tags": ["a"]}, ["tags xxx", "tags  is left out"]),
        ({"tags": [LONG], "name": "n"}, {"name": "n"}, ["between 1 and 64 characters"]),
        ({"project": "a/b", "entity": "e"}, {"entity": "e"}, ["project a/b is left out", "cannot contain"]),
        ({"id": 5, "resume": "allow"}, {"resume": "allow"}, ["id 5 is left out"]),
    ],
)
def test_what_is_refused_is_left_out_alone_and_said(options, kept, said, capsys):
    assert without_refused(options) == (options if kept is None else kept)
    error = capsys.readouterr().err
    assert all(words in error for words in said) and "pydantic" not in error and bool(error) == bool(said)


def test_environment_variables_are_treated_alike(monkeypatch, capsys):
    monkeypatch.setenv("WANDB_TAGS", f"a,{LONG}")
    monkeypatch.setenv("WANDB_PROJECT", "a/b")
    monkeypatch.setenv("WANDB_NAME", "fine")
    assert without_refused({"project": "mine"}) == {"project": "mine", "tags": ["a"]}
    assert "WANDB_TAGS" not in os.environ and os.environ["WANDB_NAME"] == "fine"
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_command_that_a_shell_takes():
    assert sync_command("my runs/wandb") == "wandb sync 'my runs/wandb'"
