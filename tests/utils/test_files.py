"""Files that cannot be written: one line."""

import pytest

from utils.errors import UserError
from utils.files import atomic_write, check_writable


@pytest.mark.parametrize("path", [".", "/", "file/below.txt"])
def test_a_path_that_no_file_can_have_is_one_line(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match=r"is a folder|cannot be written"):
        check_writable(path)
    with pytest.raises(UserError, match=r"is a folder|cannot be written"), atomic_write(path) as partial:
        partial.write_text("x")
    assert (tmp_path / "file").read_text() == "mine" and len(list(tmp_path.iterdir())) == 1
