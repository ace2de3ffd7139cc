"""The factorization note's recipe, and first-order training that puts one thing right at a time: chapter 2's variants."""

import math
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from helpers.layers import FactorizationLayer, Factors, Fit, update, with_gradients
from helpers.layers.factorization import checked_target, fit_of
from helpers.maths import Seed, frobenius_norm, gaussian, generator, signed_qr


def lapack_qr(raw: Float[Tensor, "*batch m r"]) -> Float[Tensor, "*batch m r"]:
    """Q of the QR factorization, with the signs that LAPACK happens to give it.

    Q is then a product of Householder reflections, so a square Q has a determinant of fixed sign.
    """
    return torch.linalg.qr(raw).Q


def cayley(raw: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch n n"]:
    """(I + A)⁻¹(I − A) with A = (raw − rawᵀ)/2: every rotation without the eigenvalue −1."""
    skew = (raw - raw.mT) / 2
    identity = torch.eye(raw.shape[-1], dtype=raw.dtype, device=raw.device)
    return torch.linalg.solve(identity + skew, identity - skew)


MAPS = {"qr": lapack_qr, "signed qr": signed_qr, "cayley": cayley}
"""From parameters to orthonormal columns. Cayley's map is square; fewer columns are cut from its result."""
SIGMAS = ("free", "softplus")


class VariedLayer(FactorizationLayer):
    """A layer with other maps from its parameters: ``orthogonal`` names one of MAPS, ``sigma`` one of SIGMAS.

    ``start`` is the standard deviation of the parameters of U and V, by default one over the square root
    of their rows (a QR step moves Q the less, the larger the parameters are).
    """

    def __init__(
        self,
        rows: int,
        columns: int,
        rank: int | None = None,
        *,
        orthogonal: str = "signed qr",
        sigma: str = "free",
        start: float | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(rows, columns, rank, seed=seed)
        self.orthogonal, self.sigma = orthogonal, sigma
        stream = generator(seed, "factorization layer")

        def side(size: int) -> nn.Parameter:
            width = size if orthogonal == "cayley" else self.rank
            deviation = start or 1 / math.sqrt(size)
            return nn.Parameter(deviation * gaussian(size, width, seed=stream))

        self.left = side(rows)
        self.middle = nn.Parameter(gaussian(self.rank, seed=stream))
        self.right = side(columns)

    def forward(self) -> Factors:
        U, V = self.orthonormal()
        if self.sigma == "softplus":
            return Factors(U, nn.functional.softplus(self.middle), V)
        return Factors.signed(U, self.middle, V)

    def orthonormal(self) -> tuple[Float[Tensor, "m r"], Float[Tensor, "n r"]]:
        columns = MAPS[self.orthogonal]
        return columns(self.left)[:, : self.rank], columns(self.right)[:, : self.rank]


class NoteRecipe(VariedLayer):
    """The factorization note's layer: LAPACK's QR of standard normal parameters, S through softplus.

    The note trains in float32; the default here is float64, where the numbers reproduce. ``options``
    go to :class:`VariedLayer` and may put one thing right at a time.
    """

    def __init__(self, rows: int, columns: int | None = None, **options: object) -> None:
        columns = rows if columns is None else columns
        options = {"orthogonal": "qr", "sigma": "softplus", "start": 1.0} | options
        super().__init__(rows, columns, **options)


@with_gradients
def descend(
    layer: VariedLayer,
    target: Float[Tensor, "m n"],
    *,
    steps: int = 800,
    learning_rate: float = 3e-3,
    one_cycle: bool = False,
    scale: bool = False,
    watch: Callable[[Factors], None] | None = None,
) -> Fit:
    """Adam on any layer, for a fixed number of ``steps``; the defaults are the note's.

    ``one_cycle`` makes ``learning_rate`` the peak of a one-cycle schedule. ``scale`` trains on
    X/‖X‖₂ and the sum of squares, where the note takes X itself and the mean. ``watch`` is called with
    the factors before every step.

    Raises for targets as :func:`helpers.layers.factorization.fit` does, and DivergenceError.
    """
    target = checked_target(layer, target)
    norm = frobenius_norm(target)
    norm = torch.where(norm > 0, norm, 1)
    size = spectral_norm(target) if scale and target.any() else torch.ones_like(norm)
    optimizer = torch.optim.Adam(layer.parameters(), learning_rate)
    cycle = torch.optim.lr_scheduler.OneCycleLR
    schedule = cycle(optimizer, learning_rate, total_steps=steps) if one_cycle else None
    records = []
    for _ in range(steps):
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


def _rescale(layer: VariedLayer, factor: Tensor) -> None:
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
