"""What every training of a layer shares: Adam with one cycle of its rate, and numbers that keep their precision."""

from collections.abc import Callable, Iterable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from helpers.maths import own_precision, unit_scale


def one_cycle(
    parts: Sequence[Iterable[Tensor]],
    rates: Sequence[float],
    loss: Callable[[int], Float[Tensor, ""]],
    *,
    steps: int,
    name: str,
    progress: bool = True,
) -> None:
    """``steps`` steps of Adam on ``loss(step)``, the learning rate of each of the ``parts`` rising and falling once.

    ``rates`` are the peaks (Smith & Topin 2018, torch's ``OneCycleLR``). ``loss`` is called before each
    step; draws and records are its own affair. A progress bar called ``name`` appears after five seconds.
    """
    optimizer = torch.optim.Adam([{"params": list(part)} for part in parts])
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, list(rates), total_steps=steps)
    for step in tqdm(range(steps), name, disable=not progress, delay=5, leave=False):
        update(optimizer, loss(step))
        schedule.step()


def update(optimizer: torch.optim.Optimizer, loss: Float[Tensor, ""]) -> None:
    """One step of ``optimizer`` down the gradient of ``loss``."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def matching(tensor: Tensor, name: str, dtype: torch.dtype, shape: Sequence[int]) -> Tensor:
    """``tensor`` if it has this dtype and shape; ValueError that names it otherwise."""
    if (tensor.dtype, tensor.shape) != (dtype, tuple(shape)):
        came = f"{tensor.dtype} of shape {tuple(tensor.shape)}"
        raise ValueError(f"{name} must be {dtype} of shape {tuple(shape)}, not {came}")
    return tensor


def with_gradients(function: Callable) -> Callable:
    """The same outside of the caller's ``no_grad``, ``inference_mode`` and ``autocast``."""
    return own_precision(torch.inference_mode(False)(torch.enable_grad()(function)))


def rms(
    tensor: Float[Tensor, "..."], dim: int | tuple[int, ...] = (-2, -1)
) -> Float[Tensor, "..."]:
    """√(mean of squares) along ``dim``, which stays, at any scale."""
    unit = unit_scale(tensor, dim)
    return unit * (tensor / unit).square().mean(dim, keepdim=True).sqrt()
