import pytest

from utils.errors import UserError
from utils.memory import FittingBatches


def limited(most):
    """A function of batches that yields three results, and runs out of memory before the third above ``most`` items."""

    def results(batch):
        yield "one", list(batch)
        yield "two", list(batch)
        if len(batch) > most:
            raise RuntimeError("out of memory")
        yield "three", list(batch)

    return results


def test_all_results_of_a_batch():
    batches = FittingBatches(2)
    assert [result for _, result in batches.stream(limited(2), range(3))] == [
        (word, batch) for batch in ([0, 1], [2]) for word in ("one", "two", "three")
    ]


def test_a_halved_batch_begins_anew():
    batches = FittingBatches(4)
    results = [result for _, result in batches.stream(limited(2), range(4))]
    assert results[:2] == [("one", [0, 1, 2, 3]), ("two", [0, 1, 2, 3])]
    assert results[2:5] == [("one", [0, 1]), ("two", [0, 1]), ("three", [0, 1])]
    assert results[-1] == ("three", [2, 3]) and batches.batch_size == 2


def test_not_even_one_fits():
    with pytest.raises(UserError, match="not even one photo fits in memory"):
        list(FittingBatches(4).stream(limited(0), range(4), "photo"))
    with pytest.raises(ValueError, match="another"):
        list(FittingBatches(1).map(lambda batch: (_ for _ in ()).throw(ValueError("another")), range(2)))
