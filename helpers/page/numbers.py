"""Median and spread of a measurement repeated over seeds, texts or heads."""

import torch
from jaxtyping import Float
from torch import Tensor


def median(values: Float[Tensor, "..."] | Tensor | float) -> float:
    """Median of all entries (the mean of the middle two for an even number); a number is its own."""
    return float(torch.as_tensor(values).double().flatten().quantile(0.5))


def printed(value: float, spec: str) -> str:
    """``value`` in the format ``spec`` with a true minus sign, and none before a zero."""
    text = format(value, spec)
    if not text.startswith("-"):
        return text
    return "−" + text[1:] if text.strip("-0.%") else text[1:]


def median_range(values: Float[Tensor, "..."] | Tensor, spec: str = ".0f") -> str:
    """'median (smallest to largest)', each number in the format ``spec``."""
    return f"{printed(median(values), spec)} ({spread(values, spec)})"


def spread(values: Float[Tensor, "..."] | Tensor, spec: str = ".0f") -> str:
    """'smallest to largest', each number in the format ``spec``."""
    return f"{printed(float(values.min()), spec)} to {printed(float(values.max()), spec)}"
