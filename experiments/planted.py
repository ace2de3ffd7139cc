"""Does the recipe find the classes that were planted? Tasks of every class, of two in both orders, and noise.

Random symbols, and for each token the sign of what one operator makes of the whole sequence, or of what a second one makes
of the positive part of the first: without something nonlinear between them, a convolution and a Fourier
transform are one operator. One stack of two layers for each of ten seeds; beside it, trained as long, one that has the true
classes from the start: where it fails, the task decides nothing. ::

    python -m experiments.planted --task "convolution > spectral" --seed 123
"""

import argparse
import json
from collections import Counter
from collections.abc import Sequence

import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from experiments import stacks
from experiments.stacks import CLASSES, Masks, Task, find_classes
from experiments.store import Experiment, Job, plain
from helpers.maths import gaussian, hartley, integers

SEEDS, LAYERS = range(30, 40), 2
N, SEQUENCES, HELD = 32, 5000, 1000
LEVELS, KEYS, FEW_KEYS = 9, 8, 4
"""Levels of a value (two beside keys), and kinds of keys for attention to tell apart.

With few keys a mean over all tokens and a gate do what attention does, so that two answers are right. With many, attention
after a convolution isn't learned in these steps, even by the oracle.
"""
SETTINGS: Job = {
    "tokens": N,
    "sequences": SEQUENCES,
    "held out": HELD,
    "levels": LEVELS,
    "keys": [KEYS, FEW_KEYS],
    **stacks.SETTINGS,
}
MIXED = (
    ("convolution", "spectral"),
    ("spectral", "convolution"),
    ("convolution", "attention"),
    ("attention", "convolution"),
)
TASKS = {
    **{name: (name,) for name in CLASSES},
    **{" > ".join(parts): parts for parts in MIXED},
    "noise": (),
}
"""What was planted, in its order."""


def operator(name: str, seed: int) -> Float64[Tensor, "n n"]:
    """A random matrix of a class that doesn't look at the tokens: of rank 3, with three taps, or spectral."""
    if name == "low rank":
        left, right = gaussian(2, N, 3, seed=seed, stream="planted factors")
        return left @ right.mT
    if name == "spectral":
        gain = gaussian(N, seed=seed, stream="planted gain")
        return (gain.sign() * (0.5 + gain.abs()))[:, None] * hartley(N)
    taps = gaussian(3, seed=seed, stream="planted kernel").sign() * torch.tensor([0.7, 1, 0.7])
    lags = torch.arange(N)[:, None] - torch.arange(N) + 1
    return torch.where((lags < 0) | (lags > 2), 0, taps[lags.clamp(0, 2)])


def applied(
    sums: Sequence[Sequence[str]], seed: int
) -> tuple[Int64[Tensor, "samples n"], Int64[Tensor, "samples n"], int, int]:
    """Random sequences, the sign of a sum of compositions at each token, sequences held out, and the number of symbols.

    Each of ``sums`` is a composition, first class first. Attention is the mean over the tokens with the same
    key; a symbol then says key and value. Signs are balanced for each place.
    """
    keyed = any("attention" in parts for parts in sums)
    levels = 2 if keyed else LEVELS
    values = integers(levels, SEQUENCES, N, seed=seed, stream="planted values")
    kinds = FEW_KEYS if tuple(sums[0]) == ("convolution", "attention") else KEYS
    keys = integers(kinds if keyed else 1, SEQUENCES, N, seed=seed, stream="planted keys")
    same = (keys[:, :, None] == keys[:, None]).double()
    total = torch.zeros(SEQUENCES, N, dtype=torch.float64)
    for parts in sums:
        y = values - (levels - 1) / 2
        for k, name in enumerate(parts):
            y = y.double() if k == 0 else y.clamp(min=0)
            if name == "attention":
                y = (same @ y[..., None] / same.sum(-1, keepdim=True))[..., 0]
            else:
                y = (y - (y.mean(0) if k else 0)) @ operator(name, seed).mT
        total += y / y.std()
    labels = (total > total.median(0).values).long()
    return keys * levels + values, labels, HELD, int(keys.max() + 1) * levels


def task_of(name: str, seeds: Sequence[int]) -> Task:
    """A planted task by its name, one draw for each seed. Raises ValueError for a name that isn't in TASKS."""
    if name not in TASKS:
        raise ValueError(f"no task {name!r}; there are {', '.join(map(repr, TASKS))}")
    draws = [applied([TASKS[name] or ("convolution",)], seed) for seed in seeds]
    tokens, labels = (torch.stack([draw[k] for draw in draws]) for k in (0, 1))
    if not TASKS[name]:
        coins = [integers(2, *labels.shape[1:], seed=seed, stream="noise") for seed in seeds]
        labels = torch.stack(coins)
    return Task(tokens, labels, *draws[0][2:], 2)


def planted_mask(name: str, count: int = 1) -> Masks:
    """The true classes, one layer each, for ``count`` stacks."""
    mask = torch.zeros(count, LAYERS, len(CLASSES), dtype=torch.bool)
    for layer, part in enumerate(TASKS[name]):
        mask[:, layer, CLASSES.index(part)] = True
    return mask


def found_in(names: Sequence[Sequence[str]]) -> str:
    """Open classes over depth as one word, such as "convolution > spectral"; a class that goes on is told once.

    Classes of one layer are joined by +; nothing is "nothing".
    """
    layers = [" + ".join(layer) for layer in names if layer]
    told = [name for k, name in enumerate(layers) if k == 0 or name != layers[k - 1]]
    return " > ".join(told) or "nothing"


def measure(task: str, seeds: Sequence[int]) -> list[Job]:
    """What :func:`experiments.stacks.find_classes` finds for every seed, with the oracle's test loss in bits."""
    truth = planted_mask(task, len(seeds))
    rows = find_classes(task_of(task, seeds), seeds, layers=LAYERS, truth=truth)
    return [{"found": found_in(row["open"]), **row} for row in rows]


EXPERIMENT = Experiment(
    name="planted",
    measure=measure,
    jobs=[{"task": name, "seeds": list(SEEDS)} for name in TASKS],
    settings={"layers": LAYERS, **SETTINGS},
)


def load_results() -> dict[str, list[dict]]:
    """Task → what :func:`measure` found, one entry for each seed."""
    return {job["task"]: row for job, row in EXPERIMENT.load()}


def found_at(row: Job, edge: float) -> str:
    """What a stack needs for at least ``edge`` bits: :func:`found_in` without the classes worth less."""
    kept = {(layer, name) for layer, name, worth in row["worth"] if worth >= edge}
    layers = enumerate(row["open"])
    return found_in([[name for name in names if (k, name) in kept] for k, names in layers])


def confusion(edge: float = 0.0) -> dict[str, dict[str, int]]:
    """Planted → found → number of seeds; with an ``edge``, less what is worth less than so many bits."""
    return {
        name: dict(Counter(found_at(row, edge) for row in rows).most_common())
        for name, rows in load_results().items()
    }


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.planted")
    parser.add_argument("--task", choices=TASKS, required=True)
    parser.add_argument("--seed", type=int, required=True)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    [row] = measure(options.task, [options.seed])
    print(json.dumps(plain({"planted": options.task, "seed": options.seed, **row})))


if __name__ == "__main__":
    main()
