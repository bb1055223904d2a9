"""Numbers in words: signs, intervals, p-values, what is missing."""

import doctest

import pytest

from mechicl import wording
from mechicl.wording import number, p_value, percent, with_interval

MINUS, NAN = "\N{MINUS SIGN}", float("nan")


def test_examples_of_the_docstrings_hold():
    found = doctest.testmod(wording)
    assert found.attempted >= 4 and found.failed == 0


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (1.0, 3, "1.000"),
        (-0.0004, 3, "0.000"),
        (-0.0006, 3, f"{MINUS}0.001"),
        (1234.5678, 1, "1234.6"),
        (float("-inf"), 3, f"{MINUS}∞"),
        (NAN, 3, "n/a"),
    ],
)
def test_numbers(value, digits, text):
    assert number(value, digits) == text


@pytest.mark.parametrize(
    ("p", "text"),
    [(0.0005, "p < .001"), (0.001, "p = .001"), (0.05, "p = .050"), (0.9995, "p > .999"), (NAN, "p not available")],
)
def test_p_values(p, text):
    assert p_value(p) == text


def test_an_interval_that_is_missing_is_left_out():
    assert with_interval(0.5, NAN, 1.0, 1) == "0.5"
    assert with_interval(0.5, 0.0, 1.0, 1) == "0.5 [0.0, 1.0]"


def test_percentages():
    assert percent(0.005, 1) == "0.5%" and percent(NAN) == "n/a"
