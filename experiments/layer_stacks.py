"""A stack of universal layers on a real task: which class of operators does each depth choose?

For both tasks and their permuted nulls the gates, losses and ablations of ten stacks, for both tasks the losses
of ten stacks of each class alone, and the same for a control that a Fourier transform solves (36 minutes on one core).
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor, nn
from tqdm import tqdm

from experiments.store import Experiment
from helpers.data import encode, heldout_text, training_text
from helpers.layers import CLASSES, SETTLED, UniversalLayer
from helpers.maths import gaussian, generator, hartley, integers, orders
from helpers.models import BYTES

SEEDS = 10
PRICE = 0.02
"""Bits of loss for an open class of 1000 free parameters."""
TOKENS, WIDTH, LAYERS = 64, 16, 4
SIZES = {"rank": 8, "taps": 63, "depthwise": True, "heads": 4}
"""About a thousand free parameters for each class at 64 tokens of width 16."""


@dataclass(frozen=True)
class Task:
    """Token sequences with labels; a label per sequence, or one per token (−1: none)."""

    name: str
    tokens: Int64[Tensor, "samples n"]
    labels: Int64[Tensor, "samples"] | Int64[Tensor, "samples n"]
    test_tokens: Int64[Tensor, "tests n"]
    test_labels: Int64[Tensor, "tests"] | Int64[Tensor, "tests n"]
    symbols: int
    classes: int

    def permuted(self, seed: int) -> "Task":
        """The same with all tokens of a sequence in one random order: the null for anything about places."""
        order = orders(self.tokens.shape[1], seed=seed, stream="permuted places")

        def moved(part: Tensor) -> Tensor:
            return part[:, order] if part.ndim == 2 else part

        parts = map(moved, (self.tokens, self.labels, self.test_tokens, self.test_labels))
        return Task(f"{self.name}, permuted", *parts, self.symbols, self.classes)


def digits(seed: int) -> Task:
    """scikit-learn's 8×8 digits (Alpaydin & Kaynak 1998), read row by row as 64 tokens of 17 grey levels.

    1397 images to train on and 400 to test, split at random from ``seed``.
    """
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    order = orders(len(labels), seed=seed, stream="split of the digits")
    tokens, labels = torch.tensor(images).long()[order], torch.tensor(labels).long()[order]
    return Task("digits", tokens[400:], labels[400:], tokens[:400], labels[:400], 17, 10)


def characters(seed: int) -> Task:
    """Windows of 64 bytes of documentation text in which 10 bytes are hidden and have to be guessed.

    4000 windows of the decoder's training text, 500 of its held-out text; windows and hidden places
    are drawn from ``seed``. A hidden byte is the symbol 256.
    """
    stream = generator(seed, "windows of characters")

    def draw(text: str, count: int) -> tuple[Tensor, Tensor]:
        tokens = encode(text)
        starts = integers(len(tokens) - TOKENS, count, 1, seed=stream)
        windows = tokens[starts + torch.arange(TOKENS)]
        hidden = orders(TOKENS, count, seed=stream) < 10
        return windows.masked_fill(hidden, BYTES), windows.masked_fill(~hidden, -1)

    return Task(
        "characters",
        *draw(training_text(), 4000),
        *draw(heldout_text(), 500),
        BYTES + 1,
        BYTES,
    )


TASKS: dict[str, Callable[[int], Task]] = {"digits": digits, "characters": characters}


def transform(seed: int) -> Task:
    """The control: 64 random grey levels, and at each place the sign of their Hartley transform.

    A butterfly can compute that transform, and the readout its sign. 4000 sequences to
    train on and 500 to test, drawn from ``seed``.
    """
    tokens = integers(17, 4500, TOKENS, seed=seed, stream="grey levels")
    labels = ((tokens - 8.0) @ hartley(TOKENS).float() > 0).long()
    return Task("transform", tokens[500:], labels[500:], tokens[:500], labels[:500], 17, 2)


CONTROLS = {"transform": transform}


class NoisyLayer(UniversalLayer):
    """A layer whose undecided gates are noise, for training inside a network.

    To the mean it adds Gaussian noise of the coins' variance Σπ_k(1 − π_k)T_k(x)² (fast dropout, Wang &
    Manning 2013; Kingma et al. 2015).
    """

    def forward(self, x: Tensor, noise: np.random.Generator | None = None) -> Tensor:
        """As without noise if there is no stream ``noise`` to draw it from, and in evaluation mode."""
        if noise is None or not self.training:
            return super().forward(x)
        p, parts = self.probabilities, self.parts(x)
        mean = torch.tensordot(p, parts, 1)
        variance = torch.tensordot(p * (1 - p), parts.square(), 1)
        draws = gaussian(*mean.shape, seed=noise).to(mean)
        return mean + draws * (variance + 1e-12).sqrt()


class Stack(nn.Module):
    """Blocks of x + mix(LN x) and x + MLP(LN x), where mix is a :class:`NoisyLayer` over the tokens."""

    def __init__(
        self, task: Task, *, classes: tuple[str, ...] = CLASSES, layers: int = LAYERS, seed: int = 0
    ) -> None:
        super().__init__()
        n = task.tokens.shape[1]
        with torch.random.fork_rng(devices=[]):
            # torch's own layers draw their start from its global generator
            torch.manual_seed(int(generator(seed, "stack").integers(2**32)))
            self.symbols = nn.Embedding(task.symbols, WIDTH)
            self.places = nn.Parameter(torch.randn(n, WIDTH))
            self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(2 * layers))
            self.mlps = nn.ModuleList(
                nn.Sequential(nn.Linear(WIDTH, 2 * WIDTH), nn.GELU(), nn.Linear(2 * WIDTH, WIDTH))
                for _ in range(layers)
            )
            self.readout = nn.Sequential(nn.LayerNorm(WIDTH), nn.Linear(WIDTH, task.classes))
        self.mixers = nn.ModuleList(
            NoisyLayer(
                n,
                WIDTH,
                classes=classes,
                seed=generator(seed, f"mixer {layer}"),
                **SIZES,
            ).float()
            for layer in range(layers)
        )

    def forward(
        self, tokens: Tensor, noise: np.random.Generator | None = None, without: int | None = None
    ) -> Tensor:
        """Logits per sequence and token; layer ``without`` mixes nothing."""
        x = self.symbols(tokens) + self.places
        for layer, (mixer, mlp) in enumerate(zip(self.mixers, self.mlps, strict=True)):
            if layer != without:
                x = x + mixer(self.norms[2 * layer](x), noise)
            x = x + mlp(self.norms[2 * layer + 1](x))
        return self.readout(x)


def loss_of(logits: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy in bits; per-sequence labels are read from the mean over the tokens."""
    if labels.ndim == 1:
        logits = logits.mean(1)
    flat = logits.flatten(0, -2), labels.flatten()
    return nn.functional.cross_entropy(*flat, ignore_index=-1) / math.log(2)


def train(
    stack: Stack,
    task: Task,
    *,
    price: float = PRICE,
    steps: int = 300,
    batch: int = 32,
    learning_rate: float = 1e-2,
    gate_rate: float = 0.05,
    seed: int = 0,
    progress: bool = True,
) -> None:
    """Train ``stack`` in place by Adam, one-cycle; leaves it in evaluation mode.

    An open class of 1000 free parameters costs ``price`` bits of loss; the price rises over the first
    half. ``seed`` draws batches and noise.
    """
    gates = [mixer.gate_logits for mixer in stack.mixers]
    held = {id(gate) for gate in gates}
    others = [p for p in stack.parameters() if id(p) not in held]
    optimizer = torch.optim.Adam([{"params": others}, {"params": gates}])
    rates = [learning_rate, gate_rate]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=steps)
    stream = generator(seed, "batches and noise")
    stack.train()
    for step in tqdm(range(steps), "stack", disable=not progress, delay=5, leave=False):
        rows = integers(len(task.tokens), batch, seed=stream)
        optimizer.zero_grad()
        loss = loss_of(stack(task.tokens[rows], stream), task.labels[rows])
        cost = sum((mixer.probabilities * mixer.free).sum() for mixer in stack.mixers) / 1000
        (loss + price * min(1.0, 2 * step / steps) * cost).backward()
        nn.utils.clip_grad_norm_(others, 1.0)
        optimizer.step()
        schedule.step()
    stack.eval()


@torch.no_grad()
def measure(stack: Stack, task: Task, without: int | None = None) -> tuple[float, float]:
    """Test loss in bits per label and the share of labels that are right, with open gates only."""
    logits = torch.cat([stack(part, without=without) for part in task.test_tokens.split(100)])
    guesses = (logits.mean(1) if task.test_labels.ndim == 1 else logits).argmax(-1)
    asked = task.test_labels >= 0
    right = (guesses == task.test_labels)[asked].float().mean()
    return float(loss_of(logits, task.test_labels)), float(right)


@cache
def task_of(name: str, seed: int) -> Task:
    """A task by name; "…, permuted" for its null, in an order drawn from the same seed."""
    base, _, permuted = name.partition(", ")
    task = {**TASKS, **CONTROLS}[base](seed)
    return task.permuted(seed) if permuted else task


def run(task_name: str, classes: tuple[str, ...], seed: int) -> dict[str, object]:
    """Train one stack of the given classes; a single class is always open and free of charge.

    "gates" π by layer and class; "loss" and "right" on the test data; "ablation": the rise of the
    loss when a layer mixes nothing.
    """
    task = task_of(task_name, seed)
    stack = Stack(task, classes=classes, seed=seed)
    alone = len(classes) == 1
    if alone:
        for mixer in stack.mixers:
            mixer.gate_logits.data.fill_(SETTLED)
            mixer.gate_logits.requires_grad_(False)
    train(stack, task, price=0 if alone else PRICE, seed=seed, progress=False)
    loss, right = measure(stack, task)
    return {
        "gates": [mixer.probabilities.tolist() for mixer in stack.mixers],
        "loss": loss,
        "right": right,
        "ablation": [measure(stack, task, without=k)[0] - loss for k in range(LAYERS)],
    }


_PERMUTED = [name for task in TASKS for name in (task, f"{task}, permuted")]
EXPERIMENT = Experiment(
    name="layer_stacks",
    measure=run,
    jobs=[
        {"task_name": name, "classes": classes, "seed": seed}
        for names, choices in (
            (_PERMUTED, [CLASSES]),
            (TASKS, [(name,) for name in CLASSES]),
            (CONTROLS, [CLASSES, ("butterfly",)]),
        )
        for name in names
        for classes in choices
        for seed in range(SEEDS)
    ],
    settings={
        "price": PRICE,
        "tokens": TOKENS,
        "width": WIDTH,
        "layers": LAYERS,
        **SIZES,
    },
)


def load_results() -> dict[str, list[dict]]:
    """ "task/all" or "task/class" → what :func:`run` measured, one entry per seed."""
    results: dict = {}
    for job, row in EXPERIMENT.load():
        classes = job["classes"]
        label = f"{job['task_name']}/{'all' if len(classes) > 1 else classes[0]}"
        results.setdefault(label, []).append(row)
    return results
