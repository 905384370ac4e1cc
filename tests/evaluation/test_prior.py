"""--prior: by order and by name."""

import math
import unicodedata

import pytest

from evaluation.prior import class_prior, describe_prior, prior_weights
from utils.errors import UserError

NAMES = ("1", "10", "2")


def test_priors_sum_to_one():
    assert class_prior(None) is None
    assert class_prior([1, 3]).tolist() == [0.25, 0.75]
    assert class_prior([1e308] * 10).tolist() == pytest.approx([0.1] * 10)


def test_weights_come_in_order_or_by_name():
    assert prior_weights(None, NAMES) is None
    assert prior_weights([0.1, 0.2, 0.7], NAMES) == prior_weights(["2=0.7", "1=.1", "10=2e-1"], NAMES)
    assert prior_weights(["3"], ("x",)) == prior_weights(["x=3"], ("x",)) == [3.0]
    assert prior_weights(["a=b=1", "c=2"], ("c", "a=b")) == [2.0, 1.0]
    decomposed = unicodedata.normalize("NFD", "caf\u00e9")
    assert prior_weights([f"{decomposed}=1", "bar=2"], ("bar", "caf\u00e9")) == [2.0, 1.0]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1, 2], "has 2 numbers, the checkpoint has 3 classes; give one for each, in this order: 1, 10, 2"),
        ([1, 2, 0], "--prior 0: give positive, finite numbers"),
        ([1, 2, -1], "--prior -1: give positive"),
        ([1, 2, math.nan], "--prior nan: give positive"),
        ([1, 2, math.inf], "--prior inf: give positive"),
        (["x"], "--prior x: give positive, finite numbers, or NAME=NUMBER for each class"),
        (["1=1", "2=1"], "lacks 10; give NAME=NUMBER for each class \\(1, 10, 2\\)"),
        (["1=1", "2=1", "10=y"], "--prior 10=y: give positive"),
        (["1=1", "2=1", "3=1"], "--prior 3=1: the checkpoint has no class 3, but 1, 10, 2"),
        (["1=1", "1=1", "2=1", "10=1"], "names 1 twice"),
        (["1=1", "2=1", 0.5], "--prior 0.5: give NAME=NUMBER for each class, or a number"),
    ],
)
def test_a_bad_prior_is_one_line_with_the_order(given, message):
    with pytest.raises(UserError, match=message) as caught:
        prior_weights(given, NAMES)
    assert "\n" not in str(caught.value)


def test_a_line_says_which_class_has_which_probability():
    assert describe_prior(class_prior([1, 2, 1]), NAMES) == "prior: 1: 0.25, 10: 0.5, 2: 0.25"
    many = describe_prior(class_prior([1] * 1000), [str(i) for i in range(1000)])
    assert many.endswith("19: 0.001, ...")
