"""Does it help to prune small singular values of the weights early in training?

``python -m helpers.pruning`` (about ten minutes on two cores) writes ``helpers/data/pruning.json``: held-out losses
along the training of a small decoder, ten seeds for each of ARMS, and the seconds of a step of each arm.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import tqdm

from helpers.data import encode, heldout_text, training_text, windows
from helpers.maths import integer, one_of
from helpers.models import Decoder, bits_per_byte

RESULTS = Path(__file__).parent / "results" / "early_pruning.json"
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
    generator = torch.Generator().manual_seed(seed)
    return lambda S: torch.randperm(len(S), generator=generator)[:RANK]


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


def run(job: tuple[str, int], steps: int = STEPS) -> dict[str, object]:
    """Train one decoder; "losses" held-out bits per byte every EVERY steps, and "parameters".

    Adam, learning rate rising over 50 steps and falling linearly to 0; a new optimizer after the
    pruning, which has new parameters. Raises ValueError for an arm that is not in ARMS, a negative
    seed and steps below 1.
    """
    arm, seed = job
    one_of(arm, "arm", ARMS)
    steps = integer(steps, "steps", least=1)
    torch.set_num_threads(1)
    shape, prune_at, keep = ARMS[arm]
    decoder, (stream, held_out) = Decoder(seed=seed, **shape), texts()
    generator = torch.Generator().manual_seed(integer(seed, "seed", least=0))
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
        train_step(decoder, optimizer, stream, generator)
    losses.append(_held_out_loss(decoder, held_out))
    count = sum(parameter.numel() for parameter in decoder.parameters())
    return {"losses": losses, "parameters": count}


def train_step(
    decoder: Decoder,
    optimizer: torch.optim.Optimizer,
    stream: Int64[Tensor, "bytes"],
    generator: torch.Generator,
) -> None:
    """One step on BATCH windows of ``stream``, drawn by ``generator``."""
    starts = torch.randint(len(stream) - 64, (BATCH, 1), generator=generator)
    batch = stream[starts + torch.arange(65)]
    logits = decoder(batch[:, :-1])
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
    optimizer.step()


def step_times(rounds: int = 40, steps: int = 5) -> dict[str, list[float]]:
    """Seconds of one training step: for every arm, after its pruning, the median of each round's ``steps``.

    The arms take turns, so that what else the machine does hits all of them. Raises ValueError for
    rounds or steps below 1.
    """
    rounds, steps = integer(rounds, "rounds", least=1), integer(steps, "steps", least=1)
    trained, (stream, _) = {}, texts()
    for arm, (shape, _, keep) in ARMS.items():
        decoder = Decoder(seed=0, **shape)
        if keep is not None:
            prune(decoder, keep(0))
        optimizer = torch.optim.Adam(decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
        trained[arm] = decoder, optimizer, stream, torch.Generator().manual_seed(0)
    seconds: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for number in range(rounds + 1):
        for arm, parts in trained.items():
            durations = []
            for _ in range(steps):
                start = time.perf_counter()
                train_step(*parts)
                durations.append(time.perf_counter() - start)
            if number > 0:  # the first round warms up
                seconds[arm].append(statistics.median(durations))
    return seconds


@torch.no_grad()
def _held_out_loss(decoder: Decoder, batch: Tensor) -> float:
    return bits_per_byte(decoder, batch)


def load_results() -> dict[str, list[dict]]:
    """The committed results of :func:`run`: arm → one entry per seed."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["results"]


def load_step_times() -> dict[str, list[float]]:
    """The committed result of :func:`step_times`."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["step seconds"]


def _rounded(measured: object) -> Any:
    """The same with four significant digits."""
    return json.loads(json.dumps(measured), parse_float=lambda text: float(f"{float(text):.4g}"))


if __name__ == "__main__":
    # All arms of a seed in turn, so that a machine's changing load hits them alike.
    jobs = [(arm, seed) for seed in range(SEEDS) for arm in ARMS]
    with ProcessPoolExecutor(2) as processes:
        done = list(tqdm(processes.map(run, jobs), "decoders", total=len(jobs)))
    results: dict = {}
    for (arm, _), found in zip(jobs, done, strict=True):
        results.setdefault(arm, []).append(_rounded(found))
    torch.set_num_threads(1)
    head = {"command": "python -m helpers.pruning", "torch": torch.__version__.split("+")[0]}
    stored = {**head, "step seconds": _rounded(step_times()), "results": results}
    RESULTS.write_text(json.dumps(stored, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.exit(0)
