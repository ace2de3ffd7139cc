"""Does it help to prune small singular values of the weights early in training?

Held-out losses along the training of a small decoder, ten seeds for each of ARMS (20 minutes on one core).
"""

from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from experiments.decoder import Decoder, encode, windows
from experiments.decoder_measures import bits_per_byte
from experiments.store import Experiment
from helpers.data import heldout_text, training_text
from helpers.maths import generator, integers, orders

SEEDS = 10
SHAPE = {"width": 48, "layers": 2, "heads": 2, "context": 64}
NARROW = {**SHAPE, "width": 32}
"""Dense, with nearly the parameters that SHAPE has after pruning."""
RANK, STEPS, PRUNE_AT, EVERY = 12, 800, 200, 50
LEARNING_RATE, BATCH = 4e-3, 8

Keep = Callable[[Float[Tensor, "values"]], Int64[Tensor, "rank"]]
"""From the singular values, descending, to the places of those to keep."""


class Product(nn.Module):
    """A matrix L·R of rank r in place of W: r(m + n) numbers, and x @ product costs as many multiplications."""

    def __init__(self, matrix: Float[Tensor, "m n"], keep: Keep) -> None:
        super().__init__()
        U, S, Vh = torch.linalg.svd(matrix, full_matrices=False)
        kept = keep(S)
        root = S[kept].sqrt()
        self.left, self.right = (
            nn.Parameter(U[:, kept] * root),
            nn.Parameter(root[:, None] * Vh[kept]),
        )

    def __rmatmul__(self, x: Tensor) -> Tensor:
        return x @ self.left @ self.right


class ProductLinear(nn.Module):
    """An ``nn.Linear`` whose weight is a :class:`Product`."""

    def __init__(self, linear: nn.Linear, keep: Keep) -> None:
        super().__init__()
        self.product, self.bias = Product(linear.weight.detach().mT, keep), linear.bias

    def forward(self, x: Tensor) -> Tensor:
        """``(…, inputs)`` → ``(…, outputs)``."""
        return x @ self.product + self.bias


@torch.no_grad()
def prune(decoder: Decoder, keep: Keep) -> None:
    """Replace every matrix of every block of ``decoder`` by the singular triples that ``keep`` chooses."""
    for block in decoder.blocks:
        for name in ("W_Q", "W_K", "W_V", "W_O"):
            product = Product(getattr(block, name).detach(), keep)
            delattr(block, name)
            setattr(block, name, product)
        block.mlp[0], block.mlp[2] = (ProductLinear(block.mlp[k], keep) for k in (0, 2))


def largest(S: Float[Tensor, "values"]) -> Int64[Tensor, "rank"]:
    """The RANK largest: small singular values are pruned."""
    return torch.arange(RANK)


def leading(rank: int) -> Keep:
    """The ``rank`` largest."""
    return lambda S: torch.arange(rank)


def smallest(S: Float[Tensor, "values"]) -> Int64[Tensor, "rank"]:
    """The RANK smallest."""
    return torch.arange(len(S) - RANK, len(S))


def at_random(seed: int) -> Keep:
    """RANK of them at random, other ones for every matrix."""
    stream = generator(seed, "random singular values")
    return lambda S: orders(len(S), seed=stream)[:RANK]


ARMS: dict[str, tuple[dict[str, int], int | None, Callable[[int], Keep] | None]] = {
    "full": (SHAPE, None, None),
    "full, new optimizer": (SHAPE, PRUNE_AT, None),
    "small σ pruned": (SHAPE, PRUNE_AT, lambda seed: largest),
    "random σ pruned": (SHAPE, PRUNE_AT, at_random),
    "large σ pruned": (SHAPE, PRUNE_AT, lambda seed: smallest),
    "low rank from the start": (SHAPE, 0, lambda seed: largest),
    "narrower": (NARROW, None, None),
    "24 of 48 kept": (SHAPE, PRUNE_AT, lambda seed: leading(24)),
    "36 of 48 kept": (SHAPE, PRUNE_AT, lambda seed: leading(36)),
    "44 of 48 kept": (SHAPE, PRUNE_AT, lambda seed: leading(44)),
    "all 48 kept": (SHAPE, PRUNE_AT, lambda seed: leading(48)),
}
"""Name → shape of the decoder, the step at which it is pruned, and what is kept (None: everything).

"full, new optimizer" only starts the optimizer anew, as every pruned arm must.
"low rank from the start" begins with the truncated SVD of the same random start (the spectral
initialisation of Khodak et al. 2021). "all 48 kept" prunes nothing: it trains the two factors of every
matrix in place of their product, as all pruned arms do.
"""


@cache
def texts() -> tuple[Int64[Tensor, "bytes"], Int64[Tensor, "windows n_plus_1"]]:
    """The training text, and held-out windows."""
    return encode(training_text()), windows(heldout_text(), SHAPE["context"], 200)


def run(arm: str, seed: int, steps: int = STEPS) -> dict[str, object]:
    """Train one decoder; "losses" held-out bits per byte every EVERY steps, and "parameters".

    Adam, learning rate rising over 50 steps and falling linearly to 0; a new optimizer after the
    pruning, which has new parameters.
    """
    shape, prune_at, keep = ARMS[arm]
    decoder, (tokens, held_out) = Decoder(seed=seed, **shape), texts()
    stream = generator(seed, "batches")
    losses = []
    for step in range(steps):
        if step == prune_at and keep is not None:
            prune(decoder, keep(seed))
        if step in (0, prune_at):
            optimizer = torch.optim.Adam(decoder.parameters(), betas=(0.9, 0.95))
        if step % EVERY == 0:
            losses.append(_held_out_loss(decoder, held_out))
        rate = LEARNING_RATE * min((step + 1) / 50, 1) * (1 - step / steps)
        for group in optimizer.param_groups:
            group["lr"] = rate
        train_step(decoder, optimizer, tokens, stream)
    losses.append(_held_out_loss(decoder, held_out))
    count = sum(parameter.numel() for parameter in decoder.parameters())
    return {"losses": losses, "parameters": count}


def train_step(
    decoder: Decoder,
    optimizer: torch.optim.Optimizer,
    tokens: Int64[Tensor, "bytes"],
    stream: np.random.Generator,
) -> None:
    """One step on BATCH windows of ``tokens``, drawn from ``stream``."""
    starts = integers(len(tokens) - 64, BATCH, 1, seed=stream)
    batch = tokens[starts + torch.arange(65)]
    logits = decoder(batch[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
    optimizer.step()


@torch.no_grad()
def _held_out_loss(decoder: Decoder, batch: Tensor) -> float:
    return bits_per_byte(decoder, batch)


EXPERIMENT = Experiment(
    name="early_pruning",
    measure=run,
    # All arms of a seed in turn, so that an interrupted run has whole comparisons.
    jobs=[{"arm": arm, "seed": seed} for seed in range(SEEDS) for arm in ARMS],
    settings={
        "shape": SHAPE,
        "rank": RANK,
        "steps": STEPS,
        "prune at": PRUNE_AT,
        "learning rate": LEARNING_RATE,
        "batch": BATCH,
    },
)


def load_results() -> dict[str, list[dict]]:
    """Arm → what :func:`run` measured, one entry per seed."""
    results: dict = {}
    for job, row in EXPERIMENT.load():
        results.setdefault(job["arm"], []).append(row)
    return results
