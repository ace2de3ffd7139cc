"""Many small stacks trained side by side, and the recipe that finds which class of operators each depth needs.

A block is x + mix(LN x), then x + MLP(LN x). Its mix is a sum over the open ones of four classes, each of
which mixes the tokens: a matrix of low rank, a convolution, attention, and a spectral class (Hartley's
transform times a gain for each frequency and column). Stacks of different seeds and with different classes
open share every step: all their arrays have one more axis in front. No stack feels another.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from experiments.store import Job
from helpers.maths import gaussian, generator, hartley, integers

CLASSES = ("low rank", "convolution", "attention", "spectral")
WIDTH, RANK, TAPS, BATCH = 16, 4, 9, 16
STEPS, REFIT_STEPS, CYCLES = 1500, 300, 2
"""Steps of learning with every class open, of a refit, and how often learning may start again."""
RATE, REFIT_RATE = 1e-2, 5e-3
PRICE = 0.08
"""Bits of validation loss by which one class in one layer has to pay for itself."""
PEEK = 125
"""Validation sequences that the order of the closings is read from."""
LEFT = 0.05
"""Bits below chance that the training loss must reach before anything is closed."""
SETTINGS: Job = {
    "width": WIDTH,
    "rank": RANK,
    "taps": TAPS,
    "batch": BATCH,
    "steps": STEPS,
    "steps of a refit": REFIT_STEPS,
    "cycles": CYCLES,
    "rates": [RATE, REFIT_RATE],
    "price": PRICE,
    "peek": PEEK,
    "left": LEFT,
}

Masks = Bool[Tensor, "stacks layers classes"]
Gate = tuple[int, int]
"""A layer and the number of a class."""


@dataclass(frozen=True)
class Task:
    """Sequences of symbols with a label for each token (−1: none) or one for each sequence.

    The first axis of each tensor holds one draw for each seed.
    """

    tokens: Int64[Tensor, "seeds samples n"]
    labels: Int64[Tensor, "seeds samples *n"]
    held: int
    """So many sequences at the end are for validation, and as many before them for the test."""
    symbols: int
    answers: int

    def part(self, name: str) -> tuple[Tensor, Tensor]:
        """Tokens and labels to "train", to "validate" or to "test" with."""
        count = self.tokens.shape[1]
        ends = {
            "train": (0, count - 2 * self.held),
            "test": (count - 2 * self.held, count - self.held),
            "validate": (count - self.held, count),
        }[name]
        return self.tokens[:, slice(*ends)], self.labels[:, slice(*ends)]

    def chance(self) -> Float[Tensor, "seeds"]:
        """Bits per label for who knows the labels' frequencies only."""
        labels = self.part("train")[1].flatten(1)
        counts = torch.stack([row[row >= 0].bincount(minlength=self.answers) for row in labels])
        shares = counts / counts.sum(1, keepdim=True)
        return -(shares * shares.clamp(min=1e-12).log2()).sum(1)

    def __getitem__(self, rows: Sequence[int]) -> "Task":
        """Of some seeds only, or of some more than once."""
        rows = list(rows)
        return Task(self.tokens[rows], self.labels[rows], self.held, self.symbols, self.answers)


class Stacks(nn.Module):
    """``len(seeds)`` stacks of ``layers`` blocks for a task's sequences.

    ``masks`` says which classes are open. A stack's start is drawn from its seed.
    """

    def __init__(self, task: Task, seeds: Sequence[int], masks: Masks) -> None:
        super().__init__()
        n, layers = task.tokens.shape[-1], masks.shape[1]
        sizes = {
            "symbols": (1.0, task.symbols, WIDTH),
            "places": (0.3, WIDTH, n),
            "readout": (WIDTH**-0.5, task.answers, WIDTH),
            "bias": (0.0, task.answers, 1),
        }
        for k in range(layers):
            sizes |= {
                f"left {k}": (n**-0.5, n, RANK),
                f"right {k}": (n**-0.5, n, RANK),
                f"kernel {k}": (TAPS**-0.5, WIDTH, TAPS),
                f"query key {k}": (0.5 / WIDTH, WIDTH, WIDTH),
                f"head gain {k}": (0.5, WIDTH, 1, 1),
                f"gain {k}": (0.5, WIDTH, n, 1),
                f"up {k}": (WIDTH**-0.5, 2 * WIDTH, WIDTH),
                f"up bias {k}": (0.0, 2 * WIDTH, 1),
                f"down {k}": ((2 * WIDTH) ** -0.5, WIDTH, 2 * WIDTH),
                f"down bias {k}": (0.0, WIDTH, 1),
            }
        starts = [_start(sizes, seed) for seed in seeds]
        self.numbers = nn.ParameterDict(
            {name: nn.Parameter(torch.stack([start[name] for start in starts])) for name in sizes}
        )
        self.register_buffer("masks", masks.clone())
        self.register_buffer("hartley", hartley(n).float())
        lags = torch.arange(n)[:, None] - torch.arange(n) + TAPS // 2
        self.register_buffer("lags", torch.where((lags < 0) | (lags >= TAPS), TAPS, lags))

    def forward(
        self, tokens: Int64[Tensor, "stacks batch n"]
    ) -> Float[Tensor, "stacks answers n batch"]:
        """Logits for every token."""
        p, count = self.numbers, len(tokens)
        offsets = torch.arange(count)[:, None, None] * p["symbols"].shape[1]
        x = nn.functional.embedding(tokens + offsets, p["symbols"].flatten(0, 1))
        x = x.permute(0, 3, 2, 1) + p["places"][..., None]
        for k in range(self.masks.shape[1]):
            x = x + self._mix(_normed(x), k)
            h = _normed(x).flatten(2)
            h = nn.functional.gelu(torch.baddbmm(p[f"up bias {k}"], p[f"up {k}"], h))
            x = x + torch.baddbmm(p[f"down bias {k}"], p[f"down {k}"], h).view_as(x)
        logits = torch.baddbmm(p["bias"], p["readout"], _normed(x).flatten(2))
        return logits.unflatten(2, x.shape[2:])

    def _mix(self, x: Tensor, layer: int) -> Tensor:
        """The sum of the open classes; a closed one costs no time."""
        out = torch.zeros_like(x)
        for name, is_open in zip(CLASSES, self.masks[:, layer].unbind(1), strict=True):
            if is_open.all():
                out = out + self._part(name, x, layer, slice(None))
            elif is_open.any():
                rows = is_open.nonzero()[:, 0]
                out = out.index_add(0, rows, self._part(name, x[rows], layer, rows))
        return out

    def _part(self, name: str, x: Tensor, k: int, rows: Tensor | slice) -> Tensor:
        """One class of layer k on the stacks ``rows``; x: (rows, width, n, batch)."""
        p = self.numbers
        if name == "low rank":
            inner = p[f"right {k}"][rows].mT[:, None] @ x
            return p[f"left {k}"][rows][:, None] @ inner
        if name == "convolution":
            toeplitz = nn.functional.pad(p[f"kernel {k}"][rows], (0, 1))[..., self.lags]
            return toeplitz @ x
        if name == "spectral":
            return p[f"gain {k}"][rows] * (self.hartley @ x)
        tokens = x.permute(0, 3, 2, 1).contiguous()
        queries = tokens @ p[f"query key {k}"][rows][:, None]
        weights = (queries @ tokens.mT).softmax(-1)
        return p[f"head gain {k}"][rows] * (weights @ tokens).permute(0, 3, 2, 1)

    def some(self, rows: Sequence[int]) -> "Stacks":
        """Copies of some of the stacks."""
        rows = torch.tensor(rows, dtype=torch.long)
        copy = Stacks.__new__(Stacks)
        nn.Module.__init__(copy)
        copy.numbers = nn.ParameterDict(
            {
                name: nn.Parameter(value.detach()[rows].clone())
                for name, value in self.numbers.items()
            }
        )
        copy.register_buffer("masks", self.masks[rows].clone())
        copy.register_buffer("hartley", self.hartley)
        copy.register_buffer("lags", self.lags)
        return copy

    @torch.no_grad()
    def put(self, rows: Sequence[int], others: "Stacks") -> None:
        """Overwrite the stacks ``rows`` by ``others``."""
        rows = torch.tensor(rows, dtype=torch.long)
        for name, value in self.numbers.items():
            value[rows] = others.numbers[name]
        self.masks[rows] = others.masks


def _start(sizes: dict[str, tuple], seed: int) -> dict[str, Tensor]:
    stream = generator(seed, "stack")
    start = {
        name: deviation * gaussian(*shape, seed=stream).float()
        for name, (deviation, *shape) in sizes.items()
    }
    for name in (name for name in sizes if name.startswith("query key")):
        start[name] += torch.eye(WIDTH) / WIDTH**0.5
    return start


def _normed(x: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the columns."""
    x = x - x.mean(1, keepdim=True)
    return x * (x.square().mean(1, keepdim=True) + 1e-5).rsqrt()


def losses(logits: Tensor, labels: Tensor) -> Float[Tensor, "stacks batch"]:
    """Bits per label of each sequence; one label for all its tokens is read from their mean."""
    if labels.ndim == 2:
        logits, labels = logits.mean(2, keepdim=True), labels[..., None]
    labels = labels.mT
    asked = labels >= 0
    bits = nn.functional.cross_entropy(logits, labels.clamp(min=0), reduction="none") / math.log(2)
    return (bits * asked).sum(1) / asked.sum(1).clamp(min=1)


def train(
    stacks: Stacks,
    task: Task,
    seeds: Sequence[int],
    *,
    steps: int,
    rate: float,
    stream: str = "batches",
) -> Tensor:
    """Train in place by Adam with one cycle; the training loss of each stack over the last tenth.

    Batches are drawn from a stack's own seed and the name ``stream``. Each stack's gradient is clipped alone.
    """
    tokens, labels = task.part("train")
    count = tokens.shape[1]
    rows = torch.stack(
        [integers(count, steps, BATCH, seed=seed, stream=stream) for seed in seeds], 1
    )
    everyone = torch.arange(len(seeds))[:, None]
    numbers = list(stacks.parameters())
    optimizer = torch.optim.Adam(numbers, lr=rate, fused=True)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    last = torch.zeros(len(seeds))
    for step in range(steps):
        optimizer.zero_grad()
        loss = losses(stacks(tokens[everyone, rows[step]]), labels[everyone, rows[step]]).mean(1)
        loss.sum().backward()
        used = [number.grad for number in numbers if number.grad is not None]
        norms = sum(grad.flatten(1).square().sum(1) for grad in used).sqrt()
        shrink = (1 / norms.clamp(min=1e-12)).clamp(max=1)
        for grad in used:
            grad.mul_(shrink.view(-1, *[1] * (grad.ndim - 1)))
        optimizer.step()
        schedule.step()
        if step >= steps - steps // 10:
            last += loss.detach() / (steps // 10)
    return last


@torch.no_grad()
def bits(stacks: Stacks, task: Task, part: str) -> Float[Tensor, "stacks sequences"]:
    """Loss of every held-out sequence."""
    pieces = zip(*(data.split(125, 1) for data in task.part(part)), strict=True)
    return torch.cat([losses(stacks(tokens), labels) for tokens, labels in pieces], 1)


def cost_of_closing(
    task: Task, closed: Bool[Tensor, "trials layers classes"]
) -> Float[Tensor, "trials"]:
    """Validation bits that a stack loses without the classes of each mask ``closed``.

    One stack learns with everything open, from seed 0; each trial is a copy of it that adapts.
    """
    stack = Stacks(task, [0], torch.ones_like(closed[:1]))
    train(stack, task, [0], steps=1000, rate=RATE)
    loss = bits(stack, task, "validate").mean()
    copies = [0] * len(closed)
    trials = stack.some(copies)
    trials.masks = ~closed
    train(trials, task[copies], copies, steps=REFIT_STEPS, rate=REFIT_RATE)
    return bits(trials, task[copies], "validate").mean(1) - loss


@dataclass
class Search:
    """Where the recipe stands with one stack."""

    row: int
    loss: Float[Tensor, "sequences"]
    """Validation bits with the classes that are open now."""
    worth: dict[Gate, float] = field(default_factory=dict)
    """Bits that the loss rose by when closing a gate alone was refused."""
    stale: set[Gate] = field(default_factory=set)
    """Those of them that something else was closed after."""
    most: int = 1000
    """So many gates may be closed at once: half as many after each refusal."""

    def judge(self, gates: list[Gate], after: Float[Tensor, "sequences"]) -> bool:
        """Whether ``gates`` stay closed, given the bits after the refit."""
        rise = after - self.loss
        mean, error = rise.mean().item(), rise.std().item() / len(rise) ** 0.5
        if mean < max(PRICE, 2 * error):
            self.worth = {gate: bits for gate, bits in self.worth.items() if gate not in gates}
            self.loss, self.stale = after, set(self.worth)
            return True
        if len(gates) == 1:
            self.worth[gates[0]] = mean
            self.stale.discard(gates[0])
        self.most = max(1, len(gates) // 2)
        return False


def find_classes(
    task: Task, seeds: Sequence[int], *, layers: int = 2, truth: Masks | None = None
) -> list[Job]:
    """The recipe, on one stack for each seed of ``task``.

    1. Learn with every class open in every layer, at no price, for STEPS steps; where the training loss
       hasn't left chance by LEFT bits, again, CYCLES times in all.
    2. Close what validation data miss least, refit for REFIT_STEPS steps, and take it back if the loss rose by
       PRICE or more, or by more than two standard errors where that is larger. At first all classes that cost less than
       PRICE unrefitted are closed at once, for one price together; then one by one, until each has been
       refused with the others as they are.
    3. Train afresh what was found; the same with its layers in reversed order, if there is an order; and the
       classes of ``truth``, the "oracle".
    """
    count = len(seeds)
    masks = torch.ones(count, layers, len(CLASSES), dtype=torch.bool)
    stacks, chance = Stacks(task, seeds, masks), task.chance()
    learned, todo = torch.zeros(count), list(range(count))
    for cycle in range(CYCLES):
        some = stacks.some(todo)
        names = [seeds[row] for row in todo]
        learned[todo] = train(
            some, task[todo], names, steps=STEPS, rate=RATE, stream=f"cycle {cycle}"
        )
        stacks.put(todo, some)
        todo = [row for row in todo if learned[row] > chance[row] - LEFT]
        if not todo:
            break
    start, rises = bits(stacks, task, "validate"), _rises(stacks, task)
    searches = [Search(row, start[row]) for row in range(count)]
    rounds = 0
    while active := [(s, gates) for s in searches if (gates := _next(s, stacks, task))]:
        rows = [search.row for search, _ in active]
        trial = stacks.some(rows)
        for place, (_, gates) in enumerate(active):
            for layer, k in gates:
                trial.masks[place, layer, k] = False
        names, stream = [seeds[row] for row in rows], f"refit {rounds}"
        train(trial, task[rows], names, steps=REFIT_STEPS, rate=REFIT_RATE, stream=stream)
        after = bits(trial, task[rows], "validate")
        accepted = [k for k, (s, gates) in enumerate(active) if s.judge(gates, after[k])]
        stacks.put([rows[k] for k in accepted], trial.some(accepted))
        rounds += 1
    found, test = stacks.masks, bits(stacks, task, "test").mean(1)
    ordered = found.any(2).sum(1) > 1
    back = torch.where(ordered[:, None, None], found.flip(1), found)
    again, back, oracle = afresh(task, seeds, [found, back, found if truth is None else truth])
    return [
        {
            "open": names_of(found[row]),
            "worth": [[layer, CLASSES[k], rise] for (layer, k), rise in search.worth.items()],
            "chance": chance[row].item(),
            "learned": learned[row].item(),
            "all open": start[row].mean().item(),
            "rises": rises[row],
            "validation": search.loss.mean().item(),
            "test": test[row].item(),
            "afresh": again[row].item(),
            "reversed": back[row].item() if ordered[row] else None,
            "oracle": None if truth is None else oracle[row].item(),
        }
        for row, search in enumerate(searches)
    ]


def afresh(
    task: Task, seeds: Sequence[int], choices: Sequence[Masks]
) -> Float[Tensor, "choices stacks"]:
    """Test bits of stacks that had only the classes of a mask from the start, for several masks of each."""
    keys = [[(row, mask.numpy().tobytes()) for row, mask in enumerate(masks)] for masks in choices]
    masks = {
        key: mask
        for named, choice in zip(keys, choices, strict=True)
        for key, mask in zip(named, choice, strict=True)
    }
    rows = [row for row, _ in masks]
    names, part = [seeds[row] for row in rows], task[rows]
    stacks = Stacks(part, names, torch.stack(list(masks.values())))
    train(stacks, part, names, steps=STEPS, rate=RATE, stream="afresh")
    found = dict(zip(masks, bits(stacks, part, "test").mean(1).tolist(), strict=True))
    return torch.tensor([[found[key] for key in named] for named in keys])


def names_of(mask: Bool[Tensor, "layers classes"]) -> list[list[str]]:
    """The open classes of every layer."""
    return [[CLASSES[k] for k, is_open in enumerate(layer) if is_open] for layer in mask.tolist()]


def mask_of(names: Sequence[Sequence[str]]) -> Bool[Tensor, "layers classes"]:
    """The inverse of :func:`names_of`."""
    return torch.tensor([[name in layer for name in CLASSES] for layer in names])


@torch.no_grad()
def _rises(stacks: Stacks, task: Task) -> Float[Tensor, "stacks layers classes"]:
    """By how many validation bits the loss rises when one class in one layer is closed and nothing refitted."""
    masks, rises = stacks.masks, torch.zeros(stacks.masks.shape)
    base = bits(stacks, task, "validate").mean(1)
    for layer, k in masks.any(0).nonzero().tolist():
        stacks.masks = masks.clone()
        stacks.masks[:, layer, k] = False
        rises[:, layer, k] = bits(stacks, task, "validate").mean(1) - base
    stacks.masks = masks
    return rises


def _next(search: Search, stacks: Stacks, task: Task) -> list[Gate]:
    """The gates to close next: those that validation data miss least; none if all have been refused."""
    gates = [tuple(gate) for gate in stacks.masks[search.row].nonzero().tolist()]
    gates = [gate for gate in gates if gate not in search.worth or gate in search.stale]
    if len(gates) < 2:
        return gates
    tokens, labels = (part[[search.row], -PEEK:] for part in task.part("validate"))
    few = Task(tokens, labels, PEEK, task.symbols, task.answers)
    rises = _rises(stacks.some([search.row]), few)[0]
    order = sorted(gates, key=lambda gate: float(rises[gate]))
    cheap = [gate for gate in order if rises[gate] < PRICE]
    return cheap[: search.most] or order[:1]
