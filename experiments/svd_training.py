"""Ten networks that learn to factor: the roots of their polynomials (a minute on one core)."""

import torch
from jaxtyping import Float64
from torch import Tensor, nn
from tqdm import trange

from experiments.store import Experiment
from helpers.layers import BLOCKS, DEGREE, FactorizationOperator, excess_error
from helpers.maths import generator, known_matrices, uniform
from helpers.maths.checks import integer

TRAINING_STEPS, BATCH, SIZES, SEEDS = 400, 64, (16, 32), 10


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
