"""Ratios and exponents of timings, and that the committed benchmarks are complete."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from helpers.page import exponent, load_benchmarks, time_ratio
from helpers.page.benchmarks import RESULTS, Timing

ROOT = Path(__file__).parents[2]


def power_law(power, sizes=(8, 16, 32), constant=3.0, rounds=4):
    seconds = {n: torch.full((rounds,), constant * n**power, dtype=torch.float64) for n in sizes}
    return {n: Timing(values, None) for n, values in seconds.items()}


def test_a_ratio_is_the_median_over_all_pairs():
    first, second = torch.tensor([2.0, 4.0, 8.0]).double(), torch.tensor([1.0]).double()
    middle, low, high = time_ratio(first, second)
    assert middle == 4
    assert (low, high) == (pytest.approx(2.2), pytest.approx(7.6))


def test_the_median_of_an_even_number_of_pairs_is_the_mean_of_the_middle_two():
    assert time_ratio(torch.tensor([1.0, 3.0]).double(), torch.tensor([1.0]).double())[0] == 2


def test_a_ratio_of_equal_times_is_one():
    seconds = torch.tensor([0.3, 0.3]).double()
    assert time_ratio(seconds, seconds) == (1, 1, 1)


@pytest.mark.parametrize("power", [0.5, 1, 2.5])
def test_the_exponent_of_a_power_law(power):
    assert exponent(power_law(power)) == pytest.approx((power, power, power), abs=1e-12)


def test_one_slow_round_hardly_moves_the_exponent():
    timings = power_law(2, rounds=7)
    timings[32].seconds[0] *= 50
    assert exponent(timings)[0] == pytest.approx(2, abs=1e-12)


def test_small_sizes_can_be_left_out():
    timings = {1: Timing(torch.ones(3).double(), None)} | power_law(1)
    assert exponent(timings, least=8)[0] == pytest.approx(1)
    with pytest.raises(ValueError, match="timings must hold two sizes of at least 32"):
        exponent(timings, least=32)


def test_committed_sizes_ascend():
    for methods in load_benchmarks().values():
        for sizes in methods.values():
            assert list(sizes) == sorted(sizes)


def test_loading_keeps_groups_methods_and_sizes(tmp_path):
    entry = {"group": "a", "method": "m", "seconds": [1.0]}
    file = tmp_path / "results.json"
    rows = [entry | {"size": 2}, entry | {"size": 4, "errors": [0.5]}]
    file.write_text(json.dumps({"benchmarks": rows}))
    sizes = load_benchmarks(file)["a"]["m"]
    assert list(sizes) == [2, 4]
    assert sizes[2].errors is None
    assert sizes[4].errors.tolist() == [0.5]


@pytest.fixture(scope="module")
def collected():
    """What ``make bench`` would run, without running it."""
    options = "-m pytest benchmarks --collect-only -q -p no:cacheprovider"
    command = [sys.executable, *options.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [line for line in done.stdout.splitlines() if "::" in line]


def test_the_committed_results_are_those_of_all_benchmarks(collected):
    kept = json.loads(RESULTS.read_text("utf8"))
    assert len(kept["benchmarks"]) == len(collected)
    assert set(kept) == {"command", "python", "torch", "benchmarks"}  # no machine, no path


def test_benchmarks_still_run():
    """The smallest size of each, once, untimed."""
    options = "-m pytest benchmarks --benchmark-disable -q -p no:cacheprovider -p no:xdist"
    command = [sys.executable, *options.split()]
    smallest = "[8- or [32-l or [32-c or [32-n or [32-h or [64- or serving[512-"
    chosen = ["-k", f"({smallest}) and not factorization[64-"]
    done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
