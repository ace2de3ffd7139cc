"""Ten networks that learn to factor: the roots of their polynomials (a minute on one core)."""

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from tqdm import trange

from experiments.learned_svd import BLOCKS, DEGREE, FactorizationOperator, excess_error
from experiments.store import Experiment
from helpers.maths import Seed, gaussian, generator, integer, integers, signed_qr, uniform

TRAINING_STEPS, BATCH, SIZES, SEEDS = 400, 64, (16, 32), 10


def known_matrices(
    count: int, n: int, *, seed: Seed
) -> tuple[Float64[Tensor, "count n n"], Float64[Tensor, "count n"]]:
    """Random n×n matrices with their singular values, which are known because we choose them.

    X = P diag(σ) Qᵀ with P, Q uniformly distributed; σ is, each with probability 1/3, a power law
    k^−a (a from .3 to 2), exponential e^−bk (b from .05 to .5) or uniform on [0, 1], with 20 %
    noise on each value, sorted.
    """

    stream = generator(seed, "known matrices")

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * uniform(*shape, seed=stream)

    def rotations() -> Tensor:
        return signed_qr(gaussian(count, n, n, seed=stream))

    k = torch.arange(1, n + 1, dtype=torch.float64)
    power_law = k ** -between(0.3, 2.0, count, 1)
    exponential = torch.exp(-k * between(0.05, 0.5, count, 1))
    families = torch.stack((power_law, exponential, between(0.0, 1.0, count, n)))
    chosen = integers(3, count, seed=stream)
    S = families[chosen, torch.arange(count)] * between(1.0, 1.2, count, n)
    S = S.sort(descending=True).values
    return (rotations() * S[:, None, :]) @ rotations().mT, S


def train(seed: int, steps: int = TRAINING_STEPS) -> FactorizationOperator:
    """Learn the roots from matrices drawn from ``seed``, 16×16 and 32×32 in turn, rank n/4.

    The loss is the mean log excess error; every step draws new matrices and a new first basis.
    Adam 0.03 with a rate falling linearly to 0, from small random roots, gradients clipped to norm 1.
    """
    stream = generator(seed, "training of an operator")
    start = 0.5 * uniform(BLOCKS, DEGREE, seed=stream)
    operator = FactorizationOperator(roots=start)
    optimizer = torch.optim.Adam(operator.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=steps)
    for step in trange(steps, desc=f"operator {seed}", delay=10, leave=False):
        n = SIZES[step % len(SIZES)]
        X, S = known_matrices(BATCH, n, seed=stream)
        loss = excess_error(operator, X, S, rank=n // 4, seed=stream).log().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(operator.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return operator


def run(seed: int) -> Float64[Tensor, "blocks degree"]:
    """The roots that training from ``seed`` ends with."""
    return train(seed).roots.detach()


EXPERIMENT = Experiment(
    name="svd_training",
    measure=run,
    jobs=[{"seed": seed} for seed in range(SEEDS)],
    settings={"steps": TRAINING_STEPS, "batch": BATCH, "sizes": SIZES},
)


def trained_operator(seed: int = 0, rank: int | None = None) -> FactorizationOperator:
    """The network of training seed ``seed``, 0 … 9."""
    seed = integer(seed, "seed", least=0, most=SEEDS - 1)
    roots = torch.tensor(EXPERIMENT.load()[seed][1], dtype=torch.float64)
    return FactorizationOperator(rank, roots=roots)
