"""Attention to n keys, compressed to e landmarks that serve queries it has never seen.

Landmarks are softmax(s·qK̂ᵀ + b)V̂ with e keys K̂, e values V̂ and a bias b per key; methods differ in where
these come from. Chapter 4 compares them with those of ``experiments.rivals``.
Notation: queries Q (m×d), keys K (n×d), values V (n×w), A = softmax(s·QKᵀ), s = 1/√d by default.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from helpers.layers.fitting import matching, one_cycle, rms, with_gradients
from helpers.maths import (
    Part,
    attention_part,
    attention_weights,
    combine,
    generator,
    integer,
    integers,
    one_of,
    own_precision,
    real_number,
    real_tensor,
    unit_scale,
)

NEAR = 1e-3
"""Of the mean squared weight: how strongly least squares keep the values near those that they had."""
HEAD = (-2, -1)  # the axes of one head
PURSUED = 1536
"""Queries that the choice of keys looks at."""
BATCH = 512
"""Queries that a step of learning sees."""


@dataclass(frozen=True)
class Landmarks:
    """softmax(s·qK̂ᵀ + b)V̂. Serves any queries."""

    keys: Float[Tensor, "*batch e d"]
    values: Float[Tensor, "*batch e w"]
    bias: Float[Tensor, "*batch e"]
    scale: float

    @own_precision
    def attend(self, queries: Float[Tensor, "*batch m d"]) -> Part:
        """Outputs (…, m, w) and ln Z (…, m) for ``queries``, in time and memory proportional to m·e.

        Heads broadcast with those of the keys. ``combine`` joins them with attention to other keys.
        Raises ValueError for another width or dtype than theirs.
        """
        real_tensor(queries, "queries", least_dims=2)
        matching(queries, "queries", self.keys.dtype, (*queries.shape[:-1], self.keys.shape[-1]))
        bias = self.bias[..., None, :]
        return attention_part(queries, self.keys, self.values, scale=self.scale, bias=bias)

    def weights(self, queries: Float[Tensor, "*batch m d"]) -> Float[Tensor, "*batch m e"]:
        """softmax(s·qK̂ᵀ + b)."""
        logits = self.scale * queries @ self.keys.mT + self.bias[..., None, :]
        return torch.softmax(logits, dim=-1)


@dataclass(frozen=True)
class Problem:
    """What a method gets: checked tensors, and what follows from them."""

    queries: Float[Tensor, "*batch m d"]
    keys: Float[Tensor, "*batch n d"]
    values: Float[Tensor, "*batch n w"]
    rank: int
    seed: int
    scale: float
    progress: bool

    @cached_property
    def weights(self) -> Float[Tensor, "*batch m n"]:
        """A."""
        return attention_weights(self.queries, self.keys, scale=self.scale)

    @cached_property
    def exact(self) -> Part:
        """AV and ln Z."""
        return attention_part(self.queries, self.keys, self.values, scale=self.scale)

    @property
    def outputs(self) -> Float[Tensor, "*batch m w"]:
        """AV."""
        return self.exact.outputs

    def landmarks(self, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Landmarks:
        bias = torch.zeros_like(keys[..., 0]) if bias is None else bias
        return Landmarks(keys, values, bias, self.scale)


@own_precision
def compress(
    method: str | Callable[..., Any],
    queries: Float[Tensor, "*batch m d"],
    keys: Float[Tensor, "*batch n d"],
    values: Float[Tensor, "*batch n w"],
    rank: int,
    *,
    seed: int = 0,
    scale: float | None = None,
    progress: bool = True,
    **options: object,
) -> Any:
    """Replace n keys and values by ``rank`` = e of them, head by head.

    ``method`` is a key of METHODS, which gives :class:`Landmarks`, or a function of a :class:`Problem`
    whose answer is handed back.
    ``queries`` are examples of those that will come. Leading axes are heads, treated alike and
    independently. ``options`` go to the method (see :func:`landmarks`).

    Raises ValueError for an unknown method, a rank outside 1 … n, different widths, batches or dtypes,
    and non-finite entries; TypeError for tensors that are not real floating point.
    """
    if not callable(method):
        method = METHODS[one_of(method, "method", METHODS)]
    for name, tensor in (("keys", keys), ("queries", queries), ("values", values)):
        real_tensor(tensor, name, least_dims=2)
    *heads, n, d = keys.shape
    matching(queries, "queries", keys.dtype, (*heads, queries.shape[-2], d))
    matching(values, "values", keys.dtype, (*heads, n, values.shape[-1]))
    rank = integer(rank, "rank", least=1, most=n)
    seed = integer(seed, "seed", least=0)
    scale = 1 / math.sqrt(d) if scale is None else real_number(scale, "scale", above=0)
    return method(Problem(queries, keys, values, rank, seed, scale, progress), **options)


def heavy_keys(problem: Problem) -> Landmarks:
    """The e keys with the largest total weight over the given queries, and their values."""
    return keep_keys(problem, problem.weights.sum(-2).topk(problem.rank).indices)


def matching_pursuit(problem: Problem) -> Landmarks:
    """Keys whose weights add up best to every query's mass: orthogonal matching pursuit for A·1 = 1.

    After Zweiger et al. 2026; here on at most PURSUED queries, evenly spread.
    """
    weights = problem.weights[..., :: -(-problem.weights.shape[-2] // PURSUED), :]
    gram, wanted = weights.mT @ weights, weights.sum(-2)
    tiny = 1e-6 * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    chosen = wanted.argmax(-1, keepdim=True)
    while chosen.shape[-1] < problem.rank:
        rows = gram.take_along_dim(chosen[..., None], -2)
        among = rows.take_along_dim(chosen[..., None, :], -1)
        among = among + tiny * torch.eye(chosen.shape[-1]).to(among)
        part = torch.linalg.solve(among, wanted.take_along_dim(chosen, -1))
        missed = wanted - (part[..., None, :] @ rows)[..., 0, :]
        missed = missed.scatter(-1, chosen, float("-inf"))
        chosen = torch.cat([chosen, missed.argmax(-1, keepdim=True)], -1)
    return keep_keys(problem, chosen)


@with_gradients
def landmarks(
    problem: Problem,
    *,
    later: Part | None = None,
    mass: bool = True,
    steps: int = 100,
    learning_rate: float = 0.03,
    start: Callable[[Problem], Landmarks] = matching_pursuit,
) -> Landmarks:
    """Keys, values and biases that stand for all n keys *beside others*: outputs and mass fitted together.

    What a query of a longer text receives is (Zo + Z′o′)/(Z + Z′) with the part ``later`` = (o′, ln Z′) from
    the other keys, so its squared error is what is made small: where Z is a small share, an error counts
    little. Without ``later`` as much mass is put beside with the output zero. From the keys of ``start``,
    with values by least squares and a bias that evens the mean ln Z, Adam takes ``steps`` steps with a
    one-cycle rate, each on BATCH queries drawn from the seed; then the values are fitted again.
    ``mass=False`` fits the outputs alone, with biases of zero.
    """
    steps = integer(steps, "steps", least=0)
    learning_rate = real_number(learning_rate, "learning_rate", above=0)
    unit = unit_scale(problem.values)
    problem = replace(problem, values=problem.values / unit)
    exact = problem.exact
    if later is None:
        later = Part(torch.zeros_like(exact.outputs), exact.log_mass)
    later = Part(later.outputs / unit, later.log_mass)
    target = combine(exact, later).outputs
    first = start(problem)
    if mass:
        short = exact.log_mass - first.attend(problem.queries).log_mass
        first = replace(first, bias=first.bias + short.mean(-1, keepdim=True))
    size = (target - target.mean(-2, keepdim=True)).square().mean(HEAD)
    size = torch.where(size > 0, size, 1)

    def error(answer: Landmarks, rows: Tensor | slice) -> Float[Tensor, "*batch"]:
        part, known = answer.attend(problem.queries[..., rows, :]), exact.log_mass[..., rows]
        part = part if mass else part._replace(log_mass=known)
        others = Part(later.outputs[..., rows, :], later.log_mass[..., rows])
        missed = combine(part, others).outputs - target[..., rows, :]
        return missed.square().mean(HEAD) / size

    def with_values(answer: Landmarks) -> Landmarks:
        known = exact.log_mass if not mass else answer.attend(problem.queries).log_mass
        share = torch.sigmoid(known - later.log_mass)[..., None]
        wanted = target - (1 - share) * later.outputs
        return refit_values(problem, answer, share, wanted, NEAR, answer.values)

    first = with_values(first)
    units = [rms(part).clamp(min=1e-12) for part in (first.keys, first.values)]
    state = [first.keys / units[0], first.values / units[1], first.bias]
    state = [part.detach().clone().requires_grad_() for part in state]
    stream, m = generator(problem.seed, "batches of queries"), problem.queries.shape[-2]

    def present() -> Landmarks:
        bias = state[2] if mass else torch.zeros_like(state[2])
        return problem.landmarks(state[0] * units[0], state[1] * units[1], bias)

    def loss(step: int) -> Tensor:
        return error(present(), integers(m, min(BATCH, m), seed=stream)).sum()

    if steps:
        one_cycle(
            [state], [learning_rate], loss, steps=steps, name="landmarks", progress=problem.progress
        )
    with torch.no_grad():
        answers = first, present(), with_values(present())
        errors = torch.stack([error(answer, slice(None)) for answer in answers])
        best = best_by_head(problem, answers, errors.argmin(0))
        return replace(best, values=unit * best.values)


METHODS: dict[str, Callable[..., Landmarks]] = {"heavy keys": heavy_keys, "landmarks": landmarks}


def keep_keys(problem: Problem, places: Int64[Tensor, "*batch e"]) -> Landmarks:
    """Some of the keys with their values."""
    rows = (x.take_along_dim(places[..., None], -2) for x in (problem.keys, problem.values))
    return problem.landmarks(*rows)


def best_by_head(
    problem: Problem, answers: Sequence[Landmarks], which: Int64[Tensor, "*batch"]
) -> Landmarks:
    """For every head the answer of this number."""

    def pick(name: str) -> Tensor:
        parts = torch.stack([getattr(answer, name) for answer in answers])
        places = which.reshape(1, *which.shape, *[1] * (parts.ndim - 1 - which.ndim))
        return parts.take_along_dim(places, 0)[0]

    return problem.landmarks(pick("keys"), pick("values"), pick("bias"))


def refit_values(
    problem: Problem,
    landmarks: Landmarks,
    share: Float[Tensor, "*batch m 1"] | float,
    wanted: Float[Tensor, "*batch m w"],
    ridge: float,
    towards: Float[Tensor, "*batch e w"] | float,
) -> Landmarks:
    """The same keys and bias with V̂ from ridge regression: ``share`` times their outputs near what is ``wanted``.

    Of values that do so nearly as well it takes those near ``towards``; ``ridge`` is in units of the mean squared weight.
    """
    weights = (share * landmarks.weights(problem.queries)).double()
    gram = weights.mT @ weights
    ridge = ridge * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    regular = gram + ridge * torch.eye(gram.shape[-1]).to(gram)
    values = torch.linalg.solve(regular, weights.mT @ wanted.double() + ridge * towards)
    return problem.landmarks(landmarks.keys, values.to(problem.keys), landmarks.bias)
