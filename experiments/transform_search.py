"""Gradient descent searches for fast transforms among butterfly products, and for the order of their inputs.

The errors of every transform for N up to 64 and of the DFT up to 1024, and those of learned permutations
(half an hour on one core).
"""

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np
import scipy
import torch
from jaxtyping import Complex128, Float64, Int64
from torch import Tensor, nn

from experiments.store import Experiment
from helpers.layers import Butterfly, learn_blocks, one_cycle, rank_one_bound, rmse
from helpers.maths import bit_reversal, gaussian, generator, orders, power_of_two, signed_qr

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


class SoftPermutation(nn.Module):
    """A product of choices that becomes a permutation as its probabilities become 0 or 1 (Dao et al. 2019, §3.2).

    At every level, on stretches of n, n/2, …, 4 places: (a) even places first, then odd ones; (b) reverse
    the first half; (c) reverse the second half; each done with probability p: x → p·P x + (1 − p)·x.
    ``copies`` independent starts near p = ½ are drawn from ``seed``.
    """

    def __init__(self, n: int, *, copies: int, seed: int = 0) -> None:
        super().__init__()
        levels = power_of_two(n).bit_length() - 2
        draw = gaussian(copies, levels, 3, seed=seed, stream="soft permutation")
        self.logits = nn.Parameter(draw / 2)

    def forward(self, x: Float64[Tensor, "n width"]) -> Float64[Tensor, "copies n width"]:
        """The rows of ``x`` in every copy's order, mixed as long as the choices are undecided."""
        return self._mix(x, self.logits.sigmoid())

    @torch.no_grad()
    def orders(self) -> Int64[Tensor, "copies n"]:
        """The nearest permutations: every choice with p > ½ is made."""
        n = 2 ** (self.logits.shape[1] + 1)
        places = torch.arange(n, dtype=torch.float64, device=self.logits.device)[:, None]
        return self._mix(places, (self.logits > 0).double())[..., 0].round().long()

    def _mix(self, x: Tensor, chances: Tensor) -> Tensor:
        n = x.shape[-2]
        x = x.expand(len(chances), *x.shape)
        for level in range(chances.shape[1]):
            a, b, c = chances[:, level, :, None, None, None].unbind(1)
            y = x.unflatten(1, (-1, n >> level))
            y = a * torch.cat([y[:, :, 0::2], y[:, :, 1::2]], 2) + (1 - a) * y
            first, second = y.chunk(2, 2)
            first = b * first.flip(2) + (1 - b) * first
            second = c * second.flip(2) + (1 - c) * second
            x = torch.cat([first, second], 2).flatten(1, 2)
        return x


def learn_columns(
    layer: Butterfly,
    target: Tensor,
    *,
    steps: int,
    learning_rate: float = 0.1,
    columns: int | None = None,
    permutation: SoftPermutation | None = None,
    seed: int = 0,
) -> Float64[Tensor, "steps *copies"]:
    """As ``learn_blocks``, but every step sees that many random columns of the identity, drawn from ``seed``.

    The RMSE is estimated from them. A ``permutation`` is trained too and goes first.
    """
    n, stream, history = layer.n, generator(seed, "columns"), []
    identity = torch.eye(n, dtype=layer.blocks.real.dtype)

    def loss(step: int) -> Tensor:
        chosen = torch.arange(n) if columns is None else orders(n, seed=stream)[:columns]
        x = identity[:, chosen]
        difference = layer(x if permutation is None else permutation(x)) - target[:, chosen]
        mean_square = difference.abs().square().mean((-2, -1))
        history.append(mean_square.detach().sqrt())
        return n * mean_square.sum()

    parts, rates = [[layer.blocks]], [learning_rate]
    if permutation is not None:
        parts.append([permutation.logits])
        rates.append(learning_rate / 2)
    one_cycle(parts, rates, loss, steps=steps, name="butterfly", progress=False)
    return torch.stack(history)


def learn_permutation(n: int, *, starts: int = 8, seed: int = 0) -> dict[str, object]:
    """Find the DFT and the order of its inputs together, from ``starts`` random starts.

    First with soft permutations; then each is rounded and the blocks are trained anew for the best one.
    Returns "soft" and "bounds", the RMSE and :func:`rank_one_bound` after rounding of every start, the
    "order" kept (of the least soft RMSE), and the "rmse" with it.
    """
    target = dft(n).matrix
    layer, permutation = (
        Butterfly(n, copies=starts, seed=seed),
        SoftPermutation(n, copies=starts, seed=seed),
    )
    soft = learn_columns(layer, target, steps=1000, permutation=permutation)[-1]
    found = permutation.orders()
    best = int(soft.argmin())
    final = Butterfly(n, input_order=found[best], seed=seed)
    learn_blocks(final, target, steps=1000, progress=False)
    return {
        "soft": soft.tolist(),
        "bounds": [rank_one_bound(target, order) for order in found],
        "order": found[best].tolist(),
        "rmse": float(rmse(final, target)),
    }


SIZES = dict.fromkeys(GOALS, (8, 16, 32, 64))
SIZES["DFT"] += (128, 256, 1024)


def run(goal: str, n: int, seed: int) -> dict[str, object]:
    """One goal, size and seed: the RMSE at the end; or, for "permutation", what that gave."""
    if goal == "permutation":
        return learn_permutation(n, seed=seed)
    aim, recipe = GOALS[goal](n, seed), RECIPES.get(goal, Recipe())
    layer = Butterfly(n, seed=seed, **aim.form)
    # An exact solution has no error in any column, so a few of them at a time will do.
    columns = max(64, n // 8) if n > 64 else None
    steps = 2 * recipe.steps if n in (128, 256) else recipe.steps  # 1024 takes long enough
    rate = recipe.learning_rate
    learn_columns(layer, aim.matrix, steps=steps, learning_rate=rate, columns=columns, seed=seed)
    found = {"rmse": float(rmse(layer, aim.matrix))}
    if goal == "random orthogonal":
        found["bound"] = rank_one_bound(aim.matrix, aim.form["input_order"]) / math.sqrt(n)
    return found


_JOBS = [(name, n, seed) for name in GOALS for n in SIZES[name] for seed in range(SEEDS)]
_JOBS += [("permutation", n, seed) for n in (8, 16, 32) for seed in range(SEEDS)]
EXPERIMENT = Experiment(
    name="transform_search",
    measure=run,
    jobs=[dict(zip(("goal", "n", "seed"), job, strict=True)) for job in _JOBS],
    settings={
        **{name: asdict(RECIPES.get(name, Recipe())) for name in GOALS},
    },
)


def load_results() -> dict[str, dict[str, list[dict]]]:
    """Goal → N (a string) → what :func:`run` measured, one entry per seed."""
    results: dict = {}
    for job, row in EXPERIMENT.load():
        results.setdefault(job["goal"], {}).setdefault(str(job["n"]), []).append(row)
    return results
