import threading
import time
from itertools import pairwise

import pytest


def test_long_works_take_turns_step_by_step(turns):
    order, begin = [], threading.Barrier(2)

    def steps(name):
        for i in range(5):
            time.sleep(0.01)
            order.append(name)
            yield i

    def work(name):
        begin.wait()
        assert list(turns.each(steps(name))) == [0, 1, 2, 3, 4]

    threads = [threading.Thread(target=work, args=[name]) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(order) == 10
    assert all({*pair} == {"a", "b"} for pair in pairwise(order[1:9])), order


def test_all_steps_run_in_one_thread(turns):
    def steps():
        yield threading.get_ident()
        yield threading.get_ident()

    assert {*turns.each(steps()), turns.run(threading.get_ident)} != {threading.get_ident()}
    assert len({*turns.each(steps()), turns.run(threading.get_ident)}) == 1


def test_what_is_cancelled_is_closed(turns):
    closed = threading.Event()

    def steps():
        try:
            yield from range(100)
        finally:
            closed.set()

    work = turns.each(steps())
    assert next(work) == 0
    work.close()
    assert closed.wait(5)


def test_an_error_reaches_the_one_who_asked(turns):
    def steps():
        yield 1
        raise ValueError("broken")

    work = turns.each(steps())
    assert next(work) == 1
    with pytest.raises(ValueError, match="broken"):
        next(work)
    assert turns.run(sum, [1, 2]) == 3


def test_a_work_that_is_closed_after_the_end_says_nothing(turns):
    steps = turns.each(iter(range(3)))
    assert next(steps) == 0
    turns.stop()
    steps.close()
