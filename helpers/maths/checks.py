"""Checks of arguments, shared by every public function.

Each check names the argument, says what came and what is allowed, and hands the argument back.
"""

import math
from collections.abc import Iterable
from numbers import Integral, Real

import torch
from torch import Tensor


def real_tensor(value: object, name: str, *, least_dims: int = 1) -> Tensor:
    """Return ``value`` if it is a finite, non-empty float32 or float64 tensor.

    Raises TypeError for anything but a real floating tensor, ValueError for too few
    dimensions, an empty tensor, or a NaN or infinite entry.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must have dtype float32 or float64, not {value.dtype}")
    if value.ndim < least_dims:
        raise ValueError(
            f"{name} must have at least {least_dims} dimensions, but its shape is {tuple(value.shape)}"
        )
    if value.numel() == 0:
        raise ValueError(f"{name} must not be empty, but its shape is {tuple(value.shape)}")
    # One pass that needs no memory; a NaN or an infinity always shows in the extremes.
    if not torch.stack(torch.aminmax(value.detach())).isfinite().all():
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(
            f"{name} must be finite, but {bad} of its {value.numel()} entries are NaN or infinite"
        )
    return value


def integer(value: object, name: str, *, least: int, most: int | None = None) -> int:
    """Return ``value`` as an int if it is a whole number in ``least .. most``.

    Raises TypeError for anything but an integer (bool included), ValueError out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name} must be an integer, not {value!r} ({type(value).__name__})")
    if value < least or (most is not None and value > most):
        allowed = f"at least {least}" if most is None else f"between {least} and {most}"
        raise ValueError(f"{name} must be {allowed}, not {value}")
    return int(value)


def real_number(
    value: object,
    name: str,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    most: float = math.inf,
) -> float:
    """Return ``value`` as a float if it is finite, > ``above``, ≥ ``least`` and ≤ ``most``.

    Raises TypeError for anything but a real number, ValueError out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, not {value!r} ({type(value).__name__})")
    number = float(value)
    if not (math.isfinite(number) and above < number and least <= number <= most):
        bounds = (("above", above), ("at least", least), ("at most", most))
        allowed = " and ".join(
            f"{word} {bound:g}" for word, bound in bounds if math.isfinite(bound)
        )
        raise ValueError(f"{name} must be finite{allowed and ' and '}{allowed}, not {number:g}")
    return number


def one_of(value: object, name: str, allowed: Iterable[str]) -> str:
    """Return ``value`` if it is one of the ``allowed`` names; raises ValueError otherwise."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return value
