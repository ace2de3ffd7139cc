"""The committed benchmarks: how methods compare in time, with a spread, and how they grow.

``make bench`` writes ``benchmarks/results.json``; the page "How fast, how accurate" reads it.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results.json"
LOW, HIGH = 0.05, 0.95


@dataclass(frozen=True)
class Timing:
    """One method at one size."""

    seconds: Float64[Tensor, "rounds"]
    errors: Float64[Tensor, "results"] | None
    """In the unit that the group's benchmark states; None if nothing was compared."""
    bytes: int | None = None
    """What is kept and the peak while it runs; None if that wasn't measured."""


Methods = dict[str, dict[int, Timing]]
"""Method → size → what was measured."""


def load_benchmarks(path: Path = RESULTS) -> dict[str, Methods]:
    """Group → method → size → :class:`Timing`, in the order of the run, in which sizes grow."""
    groups: dict[str, Methods] = {}
    for entry in json.loads(path.read_text(encoding="utf-8"))["benchmarks"]:
        errors = torch.tensor(entry["errors"]).double() if "errors" in entry else None
        timing = Timing(torch.tensor(entry["seconds"]).double(), errors, entry.get("bytes"))
        methods = groups.setdefault(entry["group"], {})
        methods.setdefault(entry["method"], {})[entry["size"]] = timing
    return groups


def time_ratio(
    first: Float64[Tensor, "m"], second: Float64[Tensor, "n"]
) -> tuple[float, float, float]:
    """How many times as long ``first`` takes: median, and the 5 % and 95 % points.

    Over all pairs of a round of one with a round of the other.
    """
    low, middle, high = np.quantile(first[:, None] / second, (LOW, 0.5, HIGH)).tolist()
    return middle, low, high


def exponent(timings: dict[int, Timing], least: int = 0) -> tuple[float, float, float]:
    """a in seconds ≈ c·sizeᵃ, over the sizes from ``least`` on: Theil–Sen slope, 90 % interval.

    The slope is the median over all pairs of rounds of different size (Theil 1950, Sen 1968), so a
    round that another process delayed counts for little. Raises ValueError for fewer than two sizes.
    """
    from scipy.stats import theilslopes  # half a second, which every notebook would pay

    sizes = [size for size in timings if size >= least]
    if len(sizes) < 2:
        raise ValueError(f"timings must hold two sizes of at least {least}, not {sizes}")
    x = np.concatenate([np.full(len(timings[size].seconds), np.log(size)) for size in sizes])
    y = torch.cat([timings[size].seconds for size in sizes]).log().numpy()
    slope, _, low, high = theilslopes(y, x, alpha=HIGH - LOW)
    return float(slope), float(low), float(high)
