"""Ten networks that learn to factor: the roots of their polynomials."""

import sys
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn
from tqdm import trange

from helpers.layers import BLOCKS, DEGREE, FactorizationOperator, excess_error
from helpers.maths import known_matrices
from helpers.maths.checks import integer

OPERATORS = Path(__file__).parent / "results" / "svd_training.safetensors"


TRAINING_STEPS, BATCH, SIZES, SEEDS = 400, 64, (16, 32), 10


def train(seed: int, steps: int = TRAINING_STEPS) -> FactorizationOperator:
    """Learn the roots from matrices drawn from ``seed``, 16×16 and 32×32 in turn, rank n/4.

    The loss is the mean log excess error; every step draws new matrices and a new first basis.
    Adam 0.03 with a rate falling linearly to 0, from small random roots, gradients clipped to norm 1.
    """
    steps = integer(steps, "steps", least=1)
    generator = torch.Generator().manual_seed(integer(seed, "seed", least=0))
    start = 0.5 * torch.rand(BLOCKS, DEGREE, generator=generator, dtype=torch.float64)
    operator = FactorizationOperator(roots=start)
    optimizer = torch.optim.Adam(operator.parameters(), lr=0.03)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 1 / steps, total_iters=steps)
    for step in trange(steps, desc=f"operator {seed}", delay=10, leave=False):
        n = SIZES[step % len(SIZES)]
        X, S = known_matrices(BATCH, n, generator=generator)
        basis = int(torch.randint(2**31, (), generator=generator))
        loss = excess_error(operator, X, S, rank=n // 4, seed=basis).log().mean()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(operator.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return operator


def trained_operator(seed: int = 0, rank: int | None = None) -> FactorizationOperator:
    """The committed network of training seed ``seed``, 0 … 9."""
    seed = integer(seed, "seed", least=0, most=SEEDS - 1)
    with safe_open(OPERATORS, framework="pt") as file:
        return FactorizationOperator(rank, roots=file.get_tensor("roots")[seed])


if __name__ == "__main__":
    torch.set_num_threads(1)
    roots = torch.stack([train(seed).roots.detach() for seed in range(SEEDS)])
    metadata = {"command": "python -m helpers.operator", "torch": torch.__version__.split("+")[0]}
    save_file({"roots": roots}, OPERATORS, metadata=metadata)
    sys.exit(0)
