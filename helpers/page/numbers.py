"""How numbers are printed: a median, its spread, a true minus, and how far each may move."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


class Printed(str):
    """A printed number, with how far it may move on another machine.

    ``tolerance`` is in the unit of the number before it was printed; None is one unit of the last
    printed digit. Tables and ``claims.bind`` pass it on; within a longer text it is lost.
    """

    tolerance: float | None = None


def median(values: Float[Tensor, "..."] | Tensor | float) -> float:
    """Median of all entries (the mean of the middle two for an even number); a number is its own."""
    return float(np.median(torch.as_tensor(values).detach().cpu().double()))


def printed(value: float, spec: str, tolerance: float | None = None) -> Printed:
    """``value`` in the format ``spec`` with a true minus sign, and none before a zero."""
    text = format(value, spec)
    if text.startswith("-"):
        text = "−" + text[1:] if text.strip("-0.%") else text[1:]
    return _within(text, tolerance)


def spread(
    values: Float[Tensor, "..."] | Tensor, spec: str = ".0f", tolerance: float | None = None
) -> Printed:
    """'smallest to largest', each number in the format ``spec``."""
    ends = (printed(float(end), spec) for end in (values.min(), values.max()))
    return _within(" to ".join(ends), tolerance)


def median_range(
    values: Float[Tensor, "..."] | Tensor, spec: str = ".0f", tolerance: float | None = None
) -> Printed:
    """'median (smallest to largest)', each number in the format ``spec``."""
    return _within(f"{printed(median(values), spec)} ({spread(values, spec)})", tolerance)


def _within(text: str, tolerance: float | None) -> Printed:
    result = Printed(text)
    result.tolerance = tolerance
    return result
