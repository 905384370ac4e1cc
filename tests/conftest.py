"""Fixtures that several folders of tests share."""

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("timeless", deadline=None)  # machines are slow at times
settings.load_profile("timeless")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def script():
    """Run a script of the repository as a user would: script("classify.py", "--help") -> CompletedProcess."""

    def run(name: str, *arguments: object, timeout: float = 300) -> subprocess.CompletedProcess:
        command = [sys.executable, str(ROOT / name), *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd=ROOT)

    return run


@pytest.fixture(scope="session")
def cpen455() -> Path:
    """The real data set beside the clone; tests that want it skip without."""
    folder = ROOT.parent / "shared" / "cpen455"
    if not folder.is_dir():
        pytest.skip("the cpen455 images are not beside this clone")
    return folder
