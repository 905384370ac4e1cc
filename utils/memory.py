"""Detection of out-of-memory errors, and batches that fit in memory."""

from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from utils.errors import UserError

Result = TypeVar("Result")


def out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` means out of memory, for which PyTorch has an exception class on GPUs only, and not always."""
    words = ("can't allocate memory", "out of memory")
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(word in str(error) for word in words)


class FittingBatches:
    """Batches that fit in memory: the batch size is halved permanently whenever memory runs out.

    Args:
        batch_size: initial batch size.
    """

    def __init__(self, batch_size: int):
        self.batch_size = batch_size

    def map(self, function: Callable[[Any], Result], items: Any, item: str = "image") -> Iterator[tuple[Any, Result]]:
        """Each batch of ``items``, a tensor or sequence, in order, with the result of ``function``.

        Raises UserError if not even one ``item`` (its name in the message) fits.
        """
        return self.stream(lambda batch: (function(batch) for _ in range(1)), items, item)

    def stream(
        self, function: Callable[[Any], Iterator[Result]], items: Any, item: str = "image"
    ) -> Iterator[tuple[Any, Result]]:
        """The same with each of the results that ``function`` yields for a batch; a halved batch begins anew."""
        start = 0
        while start < len(items):
            batch = items[start : start + self.batch_size]
            try:
                for result in function(batch):
                    yield batch, result
            except (RuntimeError, MemoryError) as error:
                if not out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise UserError(
                        f"not even one {item} fits in memory; free some memory, or use --device cpu"
                    ) from None
                self.batch_size = len(batch) // 2
                error.__traceback__ = None  # its frames reference the maps that filled the memory
                if torch.cuda.is_available():
                    torch.cuda.empty_cache()
                continue
            start += len(batch)
