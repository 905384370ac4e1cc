"""Messages on one line."""

from utils.errors import UserError, summary
from utils.text import listed, markdown_table, printable


def test_a_long_message_without_spaces_is_cut_not_dropped():
    assert summary(RuntimeError("x" * 400)) == "RuntimeError: " + "x" * 286
    assert summary(KeyError()) == "KeyError" and summary(UserError("y\n z")) == "y z"


def test_marks_that_turn_the_direction_of_text_are_escaped():
    assert printable("a\u202egnp.exe") == "a\\u202egnp.exe" and printable("\u2067b") == "\\u2067b"
    assert printable("é 漢字.png") == "é 漢字.png"


def test_a_bar_in_a_cell_is_no_column():
    assert markdown_table([["a", "b"], ["x|y", "z"]]) == "| a | b |\n| --- | --- |\n| x\\|y | z |\n"


def test_a_line_break_in_a_cell_is_a_space():
    assert markdown_table([["a"], ["x\ny"]]).splitlines()[2] == "| x y |"


def test_listed():
    assert listed(["a", "b\n"], 2) == "a, b\\x0a"
    assert listed(["a", "b", "c", "d"], 2) == "a, b and 2 more"
