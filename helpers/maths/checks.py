"""Guards at the public door: what an argument may be, and the precision it is computed in.

Each check names the argument, says what came and what is allowed, and hands the argument back.
"""

import functools
from collections.abc import Callable, Iterable
from math import inf, isfinite
from numbers import Integral, Real

import torch
from torch import Tensor


def real_tensor(value: object, name: str, *, least_dims: int = 1) -> Tensor:
    """Return ``value`` if it is a finite, non-empty float32 or float64 tensor.

    Raises TypeError for anything but a real floating tensor, ValueError for too few dimensions, an
    empty tensor, or a NaN or infinite entry.
    """
    if not isinstance(value, Tensor):
        raise TypeError(f"{name} must be a torch.Tensor, not {type(value).__name__}")
    if value.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must have dtype float32 or float64, not {value.dtype}")
    shape = tuple(value.shape)
    if value.ndim < least_dims:
        raise ValueError(f"{name} must have {least_dims} dimensions or more, not the shape {shape}")
    if value.numel() == 0:
        raise ValueError(f"{name} must not be empty, but its shape is {shape}")
    # One pass that needs no memory; a NaN or an infinity always shows in the extremes.
    if not torch.stack(torch.aminmax(value.detach())).isfinite().all():
        bad = int((~torch.isfinite(value)).sum())
        raise ValueError(f"{name} must be finite, but {bad} of its {value.numel()} entries are not")
    return value


def square_matrices(value: object, name: str) -> Tensor:
    """:func:`real_tensor` of shape (…, n, n), ValueError for another one."""
    real_tensor(value, name, least_dims=2)
    if value.shape[-1] != value.shape[-2]:
        raise ValueError(f"{name} must be square, but the shape is {tuple(value.shape)}")
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
    value: object, name: str, *, above: float = -inf, least: float = -inf, most: float = inf
) -> float:
    """Return ``value`` as a float if it is finite, > ``above``, ≥ ``least`` and ≤ ``most``.

    Raises TypeError for anything but a real number, ValueError out of range.
    """
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name} must be a real number, not {value!r} ({type(value).__name__})")
    number = float(value)
    if not (isfinite(number) and above < number and least <= number <= most):
        bounds = (("above", above), ("at least", least), ("at most", most))
        limits = [f" and {word} {bound:g}" for word, bound in bounds if abs(bound) < inf]
        raise ValueError(f"{name} must be finite{''.join(limits)}, not {number:g}")
    return number


def one_of(value: object, name: str, allowed: Iterable[object]) -> object:
    """Return ``value`` if it is one of the ``allowed`` names; raises ValueError otherwise."""
    allowed = tuple(allowed)
    if value not in allowed:
        raise ValueError(f"{name} must be one of {', '.join(map(repr, allowed))}, not {value!r}")
    return value


def own_precision(function: Callable) -> Callable:
    """Decorator: compute in the precision of the arguments, even inside ``torch.autocast``.

    Autocast would have the matrix products of float32 tensors computed and returned in bfloat16.
    """

    @functools.wraps(function)
    def without_autocast(*args, **kwargs):
        if not (torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda")):
            return function(*args, **kwargs)
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            return function(*args, **kwargs)

    return without_autocast
