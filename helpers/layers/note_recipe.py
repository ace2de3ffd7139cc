"""The factorization note's recipe, and first-order training that puts one thing right at a time."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn
from tqdm import tqdm

from helpers.layers.factorization import FactorizationLayer, Factors, Fit, checked_target, fit_of
from helpers.layers.fitting import update, with_gradients
from helpers.maths import frobenius_norm, integer, real_number


class NoteRecipe(FactorizationLayer):
    """The factorization note's layer: LAPACK's QR of standard normal parameters, S through softplus.

    The note trains in float32; the default here is float64, where the numbers reproduce. ``options``
    go to :class:`FactorizationLayer` and may put one thing right at a time.
    """

    def __init__(self, rows: int, columns: int | None = None, **options: object) -> None:
        columns = rows if columns is None else columns
        options = {"orthogonal": "qr", "sigma": "softplus", "start": 1.0} | options
        super().__init__(rows, columns, **options)


@with_gradients
def descend(
    layer: FactorizationLayer,
    target: Float[Tensor, "m n"],
    *,
    steps: int = 800,
    learning_rate: float = 3e-3,
    one_cycle: bool = False,
    scale: bool = False,
    progress: bool = True,
    watch: Callable[[Factors], None] | None = None,
) -> Fit:
    """Adam on any layer, for a fixed number of ``steps``; the defaults are the note's.

    ``one_cycle`` makes ``learning_rate`` the peak of a one-cycle schedule. ``scale`` trains on
    X/‖X‖₂ and the sum of squares, where the note takes X itself and the mean. ``watch`` is called with
    the factors before every step.

    Raises as :func:`helpers.layers.factorization.fit`.
    """
    target = checked_target(layer, target)
    steps = integer(steps, "steps", least=1)
    learning_rate = real_number(learning_rate, "learning_rate", above=0)
    norm = frobenius_norm(target)
    norm = torch.where(norm > 0, norm, 1)
    size = spectral_norm(target) if scale and target.any() else torch.ones_like(norm)
    optimizer = torch.optim.Adam(layer.parameters(), learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = cycle(optimizer, learning_rate, total_steps=steps) if one_cycle else None
    records = []
    for _ in tqdm(range(steps), "descend", disable=not progress, delay=5, leave=False):
        factors = layer()
        difference = target / size - factors.matrix()
        update(optimizer, difference.square().sum() if scale else difference.square().mean())
        S = size * factors.S.detach()
        records.append((frobenius_norm(difference.detach()) * size / norm, S))
        if watch:
            watch(Factors(factors.U.detach(), S, factors.V.detach()))
        if schedule:
            schedule.step()
    with torch.no_grad():
        if scale:
            _rescale(layer, size)
        final = layer()
    records.append((frobenius_norm(target - final.matrix()) / norm, final.S.clone()))
    return fit_of(records, False)


def _rescale(layer: FactorizationLayer, factor: Tensor) -> None:
    """Multiply S by ``factor`` through its parameter; softplus⁻¹(s) = s + log(1 − exp(−s))."""
    if layer.sigma == "softplus":
        S = factor * nn.functional.softplus(layer.middle)
        layer.middle.copy_(S + torch.log(-torch.expm1(-S)))
    else:
        layer.middle.mul_(factor)


def spectral_norm(matrix: Float[Tensor, "m n"], iterations: int = 30) -> Float[Tensor, ""]:
    """‖matrix‖₂ from below by power iteration, to a few per cent, which is enough to set a scale."""
    size = frobenius_norm(matrix)
    scaled = matrix / size
    v = scaled[matrix.square().sum(1).argmax()]  # the longest row is never in the null space
    for _ in range(iterations):
        v = scaled.mT @ (scaled @ (v / v.norm()))
    return size * v.norm().sqrt()
