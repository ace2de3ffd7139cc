"""Median and spread in words."""

import math
import statistics

import pytest
import torch

from helpers.page import median, median_range, printed, spread


@pytest.mark.parametrize("values", [[3.0], [3.0, 1.0], [5.0, 1.0, 2.0], [4.0, 1.0, 3.0, 2.0]])
def test_median_is_the_librarys(values):
    assert median(torch.tensor(values)) == pytest.approx(statistics.median(values))
    assert isinstance(median(torch.tensor(values)), float)


def test_median_of_a_table_is_that_of_all_entries():
    table = torch.tensor([[1.0, 9.0, 2.0], [8.0, 3.0, 100.0]])
    assert median(table) == 5.5
    assert median(torch.tensor([1, 2, 7])) == 2.0  # whole numbers too
    assert median(4) == 4.0
    assert median(torch.tensor([16777217], dtype=torch.int64)) == 16777217  # not rounded to float32


def test_median_of_more_entries_than_torch_can_sort_into_quantiles():
    values = torch.arange(2**24 + 1, dtype=torch.float32)
    assert median(values) == 2**23


def test_median_of_what_torch_holds_in_its_ways():
    assert median(torch.tensor([1.0, 3.0], requires_grad=True)) == 2.0
    assert median(torch.tensor([1.0, 3.0], dtype=torch.bfloat16)) == 2.0
    assert math.isnan(median(torch.tensor([1.0, float("nan"), 3.0])))


def test_a_printed_number_knows_how_far_it_may_move():
    values = torch.tensor([1.0, 3.0])
    assert printed(1.0, ".1f").tolerance is None
    for text in (printed(1, "", 0.5), spread(values, "", 0.5), median_range(values, "", 0.5)):
        assert text.tolerance == 0.5


def test_numbers_are_written_in_the_given_format():
    values = torch.tensor([[0.25, 1.5], [10.0, 0.125]], dtype=torch.float64)
    assert median_range(values, ".2f") == "0.88 (0.12 to 10.00)"
    assert median_range(values) == "1 (0 to 10)"
    assert median_range(values / 100, ".1%") == "0.9% (0.1% to 10.0%)"
    assert spread(values, ".3f") == "0.125 to 10.000"
    assert spread(torch.tensor([3, -1])) == "−1 to 3"


@pytest.mark.parametrize(
    ("value", "spec", "text"),
    [
        (-0.46, ".2f", "−0.46"),
        (-0.004, ".2f", "0.00"),
        (-0.0004, ".1%", "0.0%"),
        (-0.0, "", "0.0"),
        (-0.06, "+.2f", "−0.06"),
        (0.06, "+.2f", "+0.06"),
        (-3e-17, ".0e", "−3e-17"),
        (-10.0, ".0f", "−10"),
    ],
)
def test_minus_is_a_minus_sign_and_zero_has_none(value, spec, text):
    assert printed(value, spec) == text
