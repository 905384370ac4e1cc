"""Running out of memory."""

import torch

__all__ = ["out_of_memory", "release_failed_batch"]


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is for want of memory: PyTorch has a class of its own for that on GPUs only."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "can't allocate memory" in str(error)


def release_failed_batch(error: RuntimeError) -> None:
    """Give back what a batch that did not fit still holds."""
    error.__traceback__ = None  # its frames hold the maps that filled the memory
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
