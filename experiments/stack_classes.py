"""Which class of operators does each depth of a stack choose on tasks without a planted order?

Digits read as sequences and characters of real text; a task whose labels need near, alike and far tokens at once; each
beside its null with the tokens in one random order. And what an untrained stack says, which has every class in every layer.
"""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Int64
from scipy.stats import binom, binomtest
from torch import Tensor

from experiments.planted import HELD, LEVELS, SEQUENCES, SETTINGS, N, applied, found_in
from experiments.stacks import CLASSES, Stacks, Task, find_classes, mask_of
from experiments.store import Experiment, Job
from helpers.data import heldout_text, training_text
from helpers.maths import generator, integers, orders

SEEDS = 10
LEVEL, POWER = 0.05, 0.8
LETTERS = "abcdefghijklmnopqrstuvwxyz "
HIDDEN = 5

Draw = tuple[Tensor, Tensor, int, int, int]


def digits(seed: int) -> Draw:
    """scikit-learn's 8×8 digits (Alpaydin & Kaynak 1998), row by row, as the means of 32 pairs of pixels."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = orders(len(labels), seed=seed, stream="split of the digits")
    pairs = torch.tensor(images).long().unflatten(1, (N, 2)).sum(2) // 2
    return pairs[order], torch.tensor(labels).long()[order], 300, 17, 10


def characters(seed: int) -> Draw:
    """Windows of 32 letters in which 5 are hidden and have to be guessed; what is no letter is a space.

    Held-out windows come from the text that no decoder of this book was trained on.
    """
    stream = generator(seed, "windows of letters")

    def windows(text: str, count: int) -> Tensor:
        squeezed = " ".join("".join(c if c in LETTERS else " " for c in text.lower()).split())
        letters = torch.tensor([LETTERS.index(c) for c in squeezed])
        return letters[integers(len(letters) - N, count, 1, seed=stream) + torch.arange(N)]

    tokens = torch.cat([windows(training_text(), 6000), windows(heldout_text(), 3000)])
    hidden = orders(N, len(tokens), seed=stream) < HIDDEN
    labels = tokens.masked_fill(~hidden, -1)
    return tokens.masked_fill(hidden, len(LETTERS)), labels, 1500, len(LETTERS) + 1, len(LETTERS)


def three_scales(seed: int) -> Draw:
    """The sign of a sum of three equal parts: a convolution, attention and a spectral part of the same values."""
    return (*applied([("convolution",), ("attention",), ("spectral",)], seed), 2)


@torch.no_grad()
def random_teacher(seed: int) -> Draw:
    """Random symbols, and the sign of what an untrained stack of two layers says of them, balanced for each place."""
    tokens = integers(LEVELS, SEQUENCES, N, seed=seed, stream="tokens of the teacher")
    task = Task(tokens[None], tokens[None], HELD, LEVELS, 2)
    # A student starts from its seed, too; its teacher is another stack.
    teacher = Stacks(task, [seed + 1000], torch.ones(1, 2, len(CLASSES), dtype=torch.bool))
    logits = torch.cat([teacher(part[None])[0] for part in tokens.split(500)], -1)
    says = (logits[1] - logits[0]).mT
    return tokens, (says > says.median(0).values).long(), HELD, LEVELS, 2


TASKS = {
    "digits": digits,
    "characters": characters,
    "three scales": three_scales,
    "random teacher": random_teacher,
}
RUNS = [
    ("digits", 2),
    ("digits, shuffled", 2),
    ("characters", 2),
    ("characters, shuffled", 2),
    ("three scales", 2),
    ("digits", 4),
    ("characters", 4),
    ("three scales, shuffled", 2),
    ("random teacher", 2),
    ("three scales", 4),
    ("digits", 6),
    ("characters", 6),
]
"""Tasks and the number of layers of their stacks."""


def task_of(name: str, seeds: list[int]) -> Task:
    """A task by name, one draw for each seed; "…, shuffled" for its null."""
    base, _, shuffled = name.partition(", ")
    draws = [TASKS[base](seed) for seed in seeds]
    tokens, labels = (torch.stack([draw[k] for draw in draws]) for k in (0, 1))
    if shuffled:
        order = torch.stack([orders(N, seed=seed, stream="shuffled places") for seed in seeds])
        tokens = tokens.gather(2, order[:, None].expand_as(tokens))
        if labels.ndim == 3:
            labels = labels.gather(2, order[:, None].expand_as(labels))
    return Task(tokens, labels, *draws[0][2:])


def measure(task: str, layers: int, seeds: list[int]) -> list[Job]:
    """What :func:`experiments.stacks.find_classes` finds for every seed."""
    rows = find_classes(task_of(task, seeds), seeds, layers=layers)
    return [{"found": found_in(row["open"]), **row} for row in rows]


EXPERIMENT = Experiment(
    name="stack_classes",
    measure=measure,
    jobs=[{"task": name, "layers": layers, "seeds": list(range(SEEDS))} for name, layers in RUNS],
    settings={"hidden": HIDDEN, **SETTINGS},
)


def is_null(task: str) -> bool:
    """Whether nothing is to be found in its order: the tokens' places are shuffled, or the teacher is random."""
    return task.endswith("shuffled") or task == "random teacher"


def load_results() -> dict[tuple[str, int], list[dict]]:
    """(task, layers) → what :func:`measure` found, one entry for each seed."""
    return {(job["task"], job["layers"]): row for job, row in EXPERIMENT.load()}


def counts(rows: list[dict]) -> Int64[Tensor, "layers classes"]:
    """How many stacks keep each class open in each layer."""
    return sum(mask_of(row["open"]).long() for row in rows)


def contrast(names: list[list[str]], name: str) -> float | None:
    """What a claim says of a stack, above 0 if it is as claimed; None if the stack can't say.

    "convolution" (early): mean depth of the other open classes minus its own; "spectral" (deep): the same with
    the other sign; "attention" (middle): how much nearer to the middle it is than the others. Depths go
    from 0 to 1. A stack can say something if it keeps the class and another one, not all in one layer.
    """
    depth = torch.linspace(0, 1, len(names))[:, None].expand(-1, len(CLASSES))
    if name == "attention":
        depth = (depth - 0.5).abs()
    is_open, chosen = mask_of(names), CLASSES.index(name)
    own = is_open.clone()
    own[:, [k for k in range(len(CLASSES)) if k != chosen]] = False
    others = is_open & ~own
    if not (own.any() and others.any()) or is_open.any(1).sum() < 2:
        return None
    later = float(depth[others].mean() - depth[own].mean())
    return -later if name == "spectral" else later


def trend(rows: list[dict], name: str) -> dict[str, float]:
    """A claim's contrasts over stacks: how many can say something, their mean, and an exact sign test's p.

    One-sided, in the claim's favour; a contrast of 0 counts for neither side.
    """
    told = [value for row in rows if (value := contrast(row["open"], name)) is not None]
    up, down = sum(value > 1e-6 for value in told), sum(value < -1e-6 for value in told)
    return {
        "stacks": len(told),
        "as claimed": up,
        "against": down,
        "mean": float(np.mean(told)) if told else float("nan"),
        "p": _sign_test(up, up + down),
    }


def _sign_test(up: int, signs: int) -> float:
    return float(binomtest(up, signs, alternative="greater").pvalue) if signs else 1.0


def corrected(p_values: Sequence[float]) -> list[float]:
    """Holm's (1979) step-down correction, in the order given."""
    order, least = sorted(range(len(p_values)), key=p_values.__getitem__), 0.0
    result = [0.0] * len(p_values)
    for rank, k in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p_values[k]))
        result[k] = least
    return result


def detectable(
    as_planted: list[dict], reversed_: list[dict], name: str, *, stacks: int, tests: int
) -> float:
    """The least share of stacks in the claimed order that ``trend`` sees with a probability of POWER.

    Stacks are drawn from those that found a planted order and those that found its reverse, in shares of q and
    1 − q; "seen" is p ≤ LEVEL/``tests``. NaN if no share is seen, as with too few stacks.
    """
    rates = [
        np.mean([(contrast(row["open"], name) or 0) > 0 for row in rows])
        for rows in (as_planted, reversed_)
    ]
    critical = [up for up in range(stacks + 1) if _sign_test(up, stacks) <= LEVEL / tests]
    for share in np.linspace(0, 1, 101):
        rate = share * rates[0] + (1 - share) * rates[1]
        if critical and binom.sf(critical[0] - 1, stacks, rate) >= POWER:
            return float(share)
    return float("nan")
