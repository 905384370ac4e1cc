"""Downloads over HTTP."""

import socket
import sys
from pathlib import Path

import torch

TIMEOUT = 30  # seconds without an answer, so that a silent network does not hold up a run


def download(url: str, file: Path, sha256: str | None = None) -> None:
    """Download ``url`` to ``file``; ``sha256`` holds the first digits of its hash. Raises what torch.hub does."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(TIMEOUT)  # torch.hub sets none
    try:
        torch.hub.download_url_to_file(url, str(file), hash_prefix=sha256, progress=sys.stderr.isatty())
    finally:
        socket.setdefaulttimeout(before)
