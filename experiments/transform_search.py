"""Fast transforms among butterfly products: found by gradient descent, and directly.

Descent: every transform for N up to 64 and the DFT up to 1024. Directly: every transform, also in a shuffled
order, at N = 64, 256 and 1024 (half an hour on one core, nearly all of it descent).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import scipy
import torch
from jaxtyping import Complex128, Float64
from torch import Tensor

from experiments.store import Experiment
from helpers.layers import Butterfly, factorize, one_cycle, rank_one_bound
from helpers.maths import (
    bit_reversal,
    gaussian,
    generator,
    hartley,
    orders,
    power_of_two,
    signed_qr,
)  # fmt: skip

SEEDS = 10


@dataclass(frozen=True)
class Goal:
    """A transform to be found, and the form of the product that should hold it."""

    matrix: Complex128[Tensor, "n n"] | Float64[Tensor, "n n"]
    form: dict[str, object]
    """Arguments of :class:`Butterfly`."""


def dft(n: int, seed: int = 0) -> Goal:
    """The unitary DFT, exp(−2πi·jk/n)/√n, after a bit reversal."""
    matrix = scipy.fft.fft(np.eye(n), axis=0, norm="ortho")
    return Goal(torch.from_numpy(matrix), {"input_order": bit_reversal(n)})


def hadamard(n: int, seed: int = 0) -> Goal:
    """Sylvester's Hadamard matrix over √n. It needs no permutation."""
    matrix = scipy.linalg.hadamard(n, dtype=float)
    return Goal(torch.from_numpy(matrix) / math.sqrt(n), {})


def cosine(n: int, seed: int = 0) -> Goal:
    """The orthonormal DCT-II as the real part of one butterfly product (Makhoul 1980).

    The even places in order, then the odd ones backwards, go through a DFT; a phase per row and the
    real part give the DCT.
    """
    matrix = scipy.fft.dct(np.eye(n), axis=0, norm="ortho")
    order = torch.cat([torch.arange(0, n, 2), torch.arange(1, n, 2).flip(0)])
    form = {"input_order": order[bit_reversal(n)], "real": True}
    return Goal(torch.from_numpy(matrix), form)


def circular_convolution(n: int, seed: int = 0) -> Goal:
    """A random circulant matrix of norm √n, as Fᴴ·diag·F: 2L factors with the diagonal inside one of them."""
    levels = power_of_two(n).bit_length() - 1
    first = gaussian(n, seed=seed, stream="circular convolution")
    matrix = torch.from_numpy(scipy.linalg.circulant(first)) / first.norm()
    strides = [2**level for level in range(levels)]
    both = {"input_order": bit_reversal(n), "output_order": bit_reversal(n)}
    return Goal(matrix, {"strides": (*strides, *strides[::-1]), **both})


def random_orthogonal(n: int, seed: int = 0) -> Goal:
    """The negative control: a uniformly distributed orthogonal matrix."""
    matrix = signed_qr(gaussian(n, n, seed=seed, stream="random orthogonal"))
    return Goal(matrix, {"input_order": bit_reversal(n)})


GOALS: dict[str, Callable[[int, int], Goal]] = {
    "DFT": dft,
    "Hadamard": hadamard,
    "DCT": cosine,
    "convolution": circular_convolution,
    "random orthogonal": random_orthogonal,
}


@dataclass(frozen=True)
class Recipe:
    """How a goal is trained."""

    steps: int = 1000
    learning_rate: float = 0.1


RECIPES = {"DCT": Recipe(4000, 0.2), "convolution": Recipe(4000)}
"""Where the defaults leave many starts unfinished."""


def learn_blocks(
    layer: Butterfly,
    target: Tensor,
    *,
    steps: int,
    learning_rate: float = 0.1,
    columns: int | None = None,
    watch: Callable[[int, Butterfly], None] | None = None,
    seed: int = 0,
) -> Float64[Tensor, "steps *copies"]:
    """Train ``layer`` in place by Adam, one-cycle, on n times the mean squared modulus of the error.

    Every step sees all columns of the ``target`` (n, n), or so many random ones, drawn from ``seed``.
    ``watch`` is called with the step and the layer before every step. Returns the RMSE ‖T − B‖_F/n before
    each step, the measure of Dao et al. 2019, estimated from the columns that were seen.
    """
    n, stream, history = layer.n, generator(seed, "columns"), []
    identity = torch.eye(n, dtype=layer.blocks.real.dtype)

    def loss(step: int) -> Tensor:
        if watch:
            watch(step, layer)
        chosen = torch.arange(n) if columns is None else orders(n, seed=stream)[:columns]
        difference = layer(identity[:, chosen]) - target[:, chosen]
        mean_square = difference.abs().square().mean((-2, -1))
        history.append(mean_square.detach().sqrt())
        return n * mean_square.sum()

    rates, name = [learning_rate], "butterfly"
    one_cycle([[layer.blocks]], rates, loss, steps=steps, name=name, progress=False)
    return torch.stack(history)


@torch.no_grad()
def rmse(layer: Butterfly, target: Tensor) -> Float64[Tensor, "*copies"]:
    """‖T − B‖_F/n of the whole matrix."""
    return (layer.matrix() - target).abs().square().mean((-2, -1)).sqrt()


SIZES = dict.fromkeys(GOALS, (8, 16, 32, 64))
SIZES["DFT"] += (128, 256, 1024)


def descend(goal: str, n: int, seed: int) -> dict[str, float]:
    """One goal, size and seed: the RMSE at the end, and the bound on it for the control."""
    aim, recipe = GOALS[goal](n, seed), RECIPES.get(goal, Recipe())
    layer = Butterfly(n, seed=seed, **aim.form)
    # An exact solution has no error in any column, so a few of them at a time will do.
    columns = max(64, n // 8) if n > 64 else None
    steps = 2 * recipe.steps if n in (128, 256) else recipe.steps  # 1024 takes long enough
    rate = recipe.learning_rate
    learn_blocks(layer, aim.matrix, steps=steps, learning_rate=rate, columns=columns, seed=seed)
    found = {"rmse": float(rmse(layer, aim.matrix))}
    if goal == "random orthogonal":
        found["bound"] = rank_one_bound(aim.matrix, aim.form["input_order"]) / math.sqrt(n)
    return found


# Directly


def mirrored(matrix: Float64[Tensor, "n n"], sign: int) -> Complex128[Tensor, "n n"]:
    """The complex matrix with the real part T whose imaginary part is ``sign`` times row −k modulo n of T at row k.

    A cosine or Hartley transform is the real part of a DFT with a phase for each row, and the imaginary part
    of that has the same rows in mirrored order: DCT-II with sign −1, Hartley with +1.
    """
    return torch.complex(matrix, sign * matrix[-torch.arange(len(matrix)) % len(matrix)])


def random_product(n: int, seed: int) -> Tensor:
    """A butterfly product whose blocks are complex Gaussian."""
    layer = Butterfly(n)
    layer.blocks.data = torch.complex(
        *gaussian(2, *layer.blocks.shape, seed=seed, stream="product")
    )
    return layer.matrix().detach()


def shuffled(matrix: Tensor, seed: int, *, rows: bool) -> Tensor:
    """Its columns, and its ``rows`` too if wanted, in a random order."""
    first, last = orders(len(matrix), 2, seed=seed, stream="shuffled transform")
    return matrix[last][:, first] if rows else matrix[:, first]


FIXED, SEARCHED = {"columns": "bit reversal"}, {"columns": "search"}
DIRECT: dict[str, tuple[Callable[[int, int], Tensor], dict[str, str]]] = {
    "DFT": (lambda n, seed: dft(n).matrix, FIXED),
    "inverse DFT": (lambda n, seed: dft(n).matrix.conj(), FIXED),
    "Hadamard": (lambda n, seed: hadamard(n).matrix, {}),
    "random product": (random_product, {}),
    "DFT, columns shuffled": (lambda n, seed: shuffled(dft(n).matrix, seed, rows=False), SEARCHED),
    "DFT, rows and columns shuffled": (
        lambda n, seed: shuffled(dft(n).matrix, seed, rows=True),
        {**SEARCHED, "rows": "search"},
    ),
    "convolution": (
        lambda n, seed: dft(n).matrix @ circular_convolution(n, seed).matrix.to(torch.complex128),
        FIXED,
    ),
    "cosine transform": (lambda n, seed: mirrored(cosine(n).matrix, -1), SEARCHED),
    "Hartley transform": (lambda n, seed: mirrored(hartley(n), +1), FIXED),
    "random orthogonal": (lambda n, seed: random_orthogonal(n, seed).matrix, FIXED),
}
"""Matrices, and how :func:`factorize` is called. What is one butterfly of a convolution C is F·C, so that
C = Fᴴ(FC) is two of them round a diagonal; and of a cosine transform what :func:`mirrored` makes of it."""


def directly(goal: str, n: int, seed: int) -> dict[str, float]:
    """The relative error, and the lower bound for it."""
    make, named = DIRECT[goal]
    matrix = make(n, seed)
    found = factorize(matrix, **named)
    rows = found.output_order.argsort()
    return {"error": found.error, "bound": rank_one_bound(matrix[rows], found.input_order)}


def run(goal: str, n: int, seed: int, method: str = "descent") -> dict[str, float]:
    """One search, "descent" or "direct"."""
    return (directly if method == "direct" else descend)(goal, n, seed)


_JOBS = [(name, n, seed) for name in GOALS for n in SIZES[name] for seed in range(SEEDS)]
_DIRECT = [(name, n, seed) for name in DIRECT for n in (64, 256, 1024) for seed in range(SEEDS)]
EXPERIMENT = Experiment(
    name="transform_search",
    measure=run,
    jobs=[
        *({"goal": goal, "n": n, "seed": seed} for goal, n, seed in _JOBS),
        *({"goal": g, "n": n, "seed": s, "method": "direct"} for g, n, s in _DIRECT),
    ],
    settings={
        **{name: asdict(RECIPES.get(name, Recipe())) for name in GOALS},
    },
)


def load_results() -> dict[str, dict[tuple[str, int], Float64[Tensor, "seeds"]]]:
    """ "descent", "direct" and "bound" → (goal, N) → relative errors ‖T − B‖_F/‖T‖_F, one entry per seed."""
    results: dict = {"descent": {}, "direct": {}, "bound": {}}
    for job, row in EXPERIMENT.load():
        place, method = (job["goal"], job["n"]), job.get("method", "descent")
        # Every goal of the descent has the norm √n.
        error = row["error"] if method == "direct" else math.sqrt(job["n"]) * row["rmse"]
        results[method].setdefault(place, []).append(error)
        if method == "direct":
            results["bound"].setdefault(place, []).append(row["bound"])
    return {
        name: {place: torch.tensor(runs, dtype=torch.float64) for place, runs in found.items()}
        for name, found in results.items()
    }
