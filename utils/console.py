"""Messages on the terminal."""

import sys

from tqdm import tqdm


def notify(message: str) -> None:
    """Write a line to stderr without breaking a progress bar."""
    tqdm.write(message, file=sys.stderr)
