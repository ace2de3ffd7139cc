"""Median and spread of a measurement repeated over seeds, texts or heads."""

import torch
from jaxtyping import Float
from torch import Tensor


def median(values: Float[Tensor, "..."] | Tensor | float) -> float:
    """Median of all entries (the mean of the middle two for an even number); a number is its own."""
    return float(torch.as_tensor(values).double().flatten().quantile(0.5))


def median_range(values: Float[Tensor, "..."] | Tensor, spec: str = ".0f") -> str:
    """'median (smallest to largest)', each number in the format ``spec``."""
    return f"{median(values):{spec}} ({spread(values, spec)})"


def spread(values: Float[Tensor, "..."] | Tensor, spec: str = ".0f") -> str:
    """'smallest to largest', each number in the format ``spec``."""
    return f"{float(values.min()):{spec}} to {float(values.max()):{spec}}"
