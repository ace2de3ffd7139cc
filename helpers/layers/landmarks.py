"""Attention to n keys, compressed to e landmarks that serve queries it has never seen.

Nearly every method here ends in one form, softmax(s·qK̂ᵀ + b)V̂ with e keys K̂, e values V̂ and a
bias b per key, and differs in where these come from. The others need the queries beforehand.
Notation: queries Q (m×d), keys K (n×d), values V (n×w), A = softmax(s·QKᵀ), s = 1/√d by default.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np
import torch
from jaxtyping import Float, Int64
from scipy.cluster.vq import kmeans2
from torch import Tensor

from helpers.layers.fitting import matching, one_cycle, rms, with_gradients
from helpers.maths import (
    Part,
    attention_part,
    attention_weights,
    combine,
    gaussian,
    generator,
    integers,
    signed_qr,
)
from helpers.maths.checks import integer, one_of, own_precision, real_number, real_tensor
from helpers.maths.spectrum import truncate, unit_scale

RIDGE = 1e-8
"""Of the mean squared weight: what keeps the least-squares values finite."""
NEAR = 1e-3
"""The same for landmarks that go into a model, and towards the values that they had."""
HEAD = (-2, -1)  # the axes of one head
SINK = 4
"""First tokens that a selection always keeps."""
PURSUED = 1536
"""Queries that the choice of keys looks at."""
BATCH = 512
"""Queries that a step of learning sees."""
CUTOFF = torch.finfo(torch.float32).eps
"""Machine epsilon of single precision. Times the larger side of a matrix and its σ₁ it is the default rank
tolerance of ``torch.linalg.lstsq``."""


@dataclass(frozen=True)
class Landmarks:
    """softmax(s·qK̂ᵀ + b)V̂, or exp(s·qK̂ᵀ + b)V̂ if not ``normalised``. Serves any queries."""

    keys: Float[Tensor, "*batch e d"]
    values: Float[Tensor, "*batch e w"]
    bias: Float[Tensor, "*batch e"]
    scale: float
    normalised: bool = True

    @property
    def parameters(self) -> int:
        """Stored numbers for each head: e·(d + w + 1)."""
        e, d = self.keys.shape[-2:]
        return e * (d + self.values.shape[-1] + 1)

    @own_precision
    def attend(self, queries: Float[Tensor, "*batch m d"]) -> Part:
        """Outputs (…, m, w) and ln Z (…, m) for ``queries``, in time and memory proportional to m·e.

        Heads broadcast with those of the keys. ``combine`` joins them with attention to other keys.
        Raises ValueError for another width or dtype than theirs.
        """
        real_tensor(queries, "queries", least_dims=2)
        matching(queries, "queries", self.keys.dtype, (*queries.shape[:-1], self.keys.shape[-1]))
        bias = self.bias[..., None, :]
        part = attention_part(queries, self.keys, self.values, scale=self.scale, bias=bias)
        return part if self.normalised else Part(self.weights(queries) @ self.values, part.log_mass)

    def weights(self, queries: Float[Tensor, "*batch m d"]) -> Float[Tensor, "*batch m e"]:
        """softmax(s·qK̂ᵀ + b), or the exponential without the normalisation."""
        logits = self.scale * queries @ self.keys.mT + self.bias[..., None, :]
        return torch.softmax(logits, dim=-1) if self.normalised else logits.exp()


@dataclass(frozen=True)
class Seen:
    """Outputs for the queries that a method was given; it can't serve others."""

    queries: Float[Tensor, "*batch m d"]
    part: Part
    """Outputs, and the exact ln Z: one number for each query."""
    parameters: int
    """Stored numbers for each head, ln Z apart."""

    def attend(self, queries: Float[Tensor, "*batch m d"]) -> Part:
        """What is stored. Raises ValueError for any other queries than those it was given."""
        if queries.shape != self.queries.shape or not torch.equal(queries, self.queries):
            raise ValueError("queries must be those that the method was given")
        return self.part


Compression = Landmarks | Seen


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

    def random(self, *shape: int) -> Float[Tensor, "..."]:
        """Standard normal numbers, the same for every head."""
        return gaussian(*shape, seed=self.seed, stream="projections").to(self.keys)

    def landmarks(
        self, keys: Tensor, values: Tensor, bias: Tensor | None = None, normalised: bool = True
    ) -> Landmarks:
        bias = torch.zeros_like(keys[..., 0]) if bias is None else bias
        return Landmarks(keys, values, bias, self.scale, normalised)

    def seen(self, outputs: Tensor, parameters: int) -> Seen:
        return Seen(self.queries, self.exact._replace(outputs=outputs), parameters)


@own_precision
def compress(
    method: str,
    queries: Float[Tensor, "*batch m d"],
    keys: Float[Tensor, "*batch n d"],
    values: Float[Tensor, "*batch n w"],
    rank: int,
    *,
    seed: int = 0,
    scale: float | None = None,
    progress: bool = True,
    **options: object,
) -> Compression:
    """Replace n keys and values by ``rank`` = e of them, head by head.

    ``method`` is a key of METHODS. ``queries`` are examples of those that will come: some methods
    are fitted to them, the oracles of ORACLES serve no others, and the rest ignores them. Leading
    axes are heads, treated alike and independently. ``options`` go to the method ("learned" has
    some). The result has ``attend(queries)`` and ``parameters``.

    Raises ValueError for an unknown method, a rank outside 1 … n, different widths, batches or dtypes,
    and non-finite entries; TypeError for tensors that are not real floating point.
    """
    one_of(method, "method", METHODS)
    for name, tensor in (("keys", keys), ("queries", queries), ("values", values)):
        real_tensor(tensor, name, least_dims=2)
    *heads, n, d = keys.shape
    matching(queries, "queries", keys.dtype, (*heads, queries.shape[-2], d))
    matching(values, "values", keys.dtype, (*heads, n, values.shape[-1]))
    rank = integer(rank, "rank", least=1, most=n)
    seed = integer(seed, "seed", least=0)
    scale = 1 / math.sqrt(d) if scale is None else real_number(scale, "scale", above=0)
    problem = Problem(queries, keys, values, rank, seed, scale, progress)
    return METHODS[method](problem, **options)


def constant(problem: Problem) -> Landmarks:
    """The mean output for every query: the baseline that has to be beaten."""
    key = torch.zeros_like(problem.keys[..., :1, :])
    return problem.landmarks(key, problem.outputs.mean(-2, keepdim=True))


def heavy_keys(problem: Problem) -> Landmarks:
    """The e keys with the largest total weight over the given queries, and their values."""
    return _chosen(problem, problem.weights.sum(-2).topk(problem.rank).indices)


def segment_means(problem: Problem) -> Landmarks:
    """Means of e consecutive stretches of keys and of values, with the bias ln(their length)."""
    keys, sizes = _segments(problem.keys, problem.rank)
    bias = sizes.log().expand(keys.shape[:-1])
    return problem.landmarks(keys, _segments(problem.values, problem.rank)[0], bias)


def k_means(problem: Problem) -> Landmarks:
    """Centres of e clusters of keys, the means of their values, and the bias ln(cluster size)."""
    labels = _clusters(problem.keys, problem.rank, problem.seed)
    members = torch.nn.functional.one_hot(labels, problem.rank).to(problem.keys)
    sizes = members.sum(-2)
    means = members.mT / sizes.clamp(min=1)[..., None]
    # An empty cluster gets a bias that switches it off.
    bias = torch.where(sizes > 0, sizes.clamp(min=1).log(), float("-inf"))
    return problem.landmarks(means @ problem.keys, means @ problem.values, bias)


def linformer(problem: Problem) -> Landmarks:
    """K̂ = EK and V̂ = EV with a Gaussian E of variance 1/e, untrained (the form of Wang et al. 2020, Eq. 7)."""
    projection = problem.random(problem.rank, problem.keys.shape[-2]) / math.sqrt(problem.rank)
    return problem.landmarks(projection @ problem.keys, projection @ problem.values)


def nystrom(problem: Problem, inverse: Callable[[Tensor], Tensor]) -> Landmarks:
    """softmax(qK̃ᵀ) · Z · softmax(Q̃Kᵀ)V with segment means Q̃, K̃ (Xiong et al. 2021, Eq. 13).

    Z is the pseudo-inverse of softmax(Q̃K̃ᵀ); as published, six steps of an iteration towards it.
    """
    near_queries = _segments(problem.queries, problem.rank)[0]
    near_keys = _segments(problem.keys, problem.rank)[0]
    middle = attention_weights(near_queries, near_keys, scale=problem.scale)
    right = attention_weights(near_queries, problem.keys, scale=problem.scale) @ problem.values
    return problem.landmarks(near_keys, inverse(middle) @ right)


def iterated_inverse(matrix: Tensor, steps: int = 6) -> Tensor:
    """Razavi's iteration of third order for the pseudo-inverse (Xiong et al. 2021, Eq. 11)."""
    eye = torch.eye(matrix.shape[-1]).to(matrix)
    norms = matrix.sum(-2).amax(-1) * matrix.sum(-1).amax(-1)  # entries are positive
    Z = matrix.mT / norms[..., None, None]
    for _ in range(steps):
        product = matrix @ Z
        Z = Z @ (13 * eye - product @ (15 * eye - product @ (7 * eye - product))) / 4
    return Z


def performer(problem: Problem) -> Landmarks:
    """Positive orthogonal random features, exp(ω·x − ‖x‖²/2) (Choromanski et al. 2021, Lemma 1, FAVOR+).

    With features φ_r the output is Σ_r φ_r(q) Σ_j φ_r(k_j)v_j / Σ_r φ_r(q) Σ_j φ_r(k_j): landmarks ω_r
    with the bias ln Σ_jφ_r(k_j), and values that are means of the v_j. The factor exp(−‖q‖²/2) cancels.
    """
    rank, width = problem.rank, problem.keys.shape[-1]
    blocks = -(-rank // width)
    draws = problem.random(2 * blocks, width, width)
    lengths = torch.linalg.vector_norm(draws[:blocks], dim=-1, keepdim=True)
    omega = (lengths * signed_qr(draws[blocks:])).flatten(0, 1)[:rank]
    x = math.sqrt(problem.scale) * problem.keys
    logits = omega @ x.mT - x.square().sum(-1)[..., None, :] / 2
    means = torch.softmax(logits, dim=-1) @ problem.values
    # s·q·k̂ must be ω·(√s q), so k̂ = ω/√s.
    omega = (omega / math.sqrt(problem.scale)).expand(*problem.keys.shape[:-2], rank, width)
    return problem.landmarks(omega, means, logits.logsumexp(-1))


def note(problem: Problem, *, cutoff: float = CUTOFF) -> Landmarks:
    """The softmax-QK note's construction for new queries: M as the note has it, without its row scale.

    A ≈ U S D of rank e; US₊ = US + c > 0 with c = 1 − min US. M solves US₊M = US and K̂ solves
    s·QK̂ᵀ = ln US₊, both by least squares; then exp(s·QK̂ᵀ)·MDV ≈ AV, not normalised. The note's
    ``lstsq`` in single precision neglects what is below CUTOFF·max(m, e)·σ₁ of US₊. So does this,
    or with another ``cutoff``. c depends on the signs of the singular vectors, which an SVD leaves free:
    here the largest entry of every column of U is positive, so the first column is, as in the note's own run.
    """
    cutoff = real_number(cutoff, "cutoff", above=0)
    factors, right = _note_factors(problem)
    lifted = factors + 1 - factors.amin((-2, -1), keepdim=True)
    undo = torch.linalg.pinv(lifted, rtol=cutoff * max(lifted.shape[-2:])) @ factors
    solution = torch.linalg.pinv(problem.scale * problem.queries) @ lifted.log()
    return problem.landmarks(solution.mT, undo @ right @ problem.values, normalised=False)


def fitted_values(problem: Problem) -> Landmarks:
    """The keys of k-means with the values that fit the given queries' outputs best."""
    return _refit_values(problem, k_means(problem))


@with_gradients
def learned(problem: Problem, *, steps: int = 300, learning_rate: float = 0.1) -> Landmarks:
    """K̂, V̂ and b by gradient descent on the outputs for the given queries, then V̂ by least squares.

    Starts head by head from k-means or from the heavy keys, both with fitted values, whichever is
    better, and keeps the start where the fit doesn't improve on it. Adam with a one-cycle schedule on
    the mean squared error relative to each head's output; every step sees BATCH queries, drawn
    from the seed. Keys and values are learned in units of their own root mean square.
    """
    steps = integer(steps, "steps", least=1)
    learning_rate = real_number(learning_rate, "learning_rate", above=0)
    unit = unit_scale(problem.values)
    # Copies of the caller's tensors, which may come with gradients or out of inference mode.
    parts = {"queries": problem.queries, "keys": problem.keys, "values": problem.values / unit}
    problem = replace(problem, **{name: part.detach().clone() for name, part in parts.items()})
    starts = [_refit_values(problem, method(problem)) for method in (k_means, heavy_keys)]
    start = _better(problem, *starts)
    size = problem.outputs.square().mean(HEAD)
    size = torch.where(size > 0, size, 1)
    units = [rms(part) for part in (start.keys, start.values)]
    units = [torch.where(unit > 0, unit, 1) for unit in units]
    state = [start.keys / units[0], start.values / units[1], start.bias.clamp(min=-5)]
    state = [part.clone().requires_grad_() for part in state]

    def present() -> Landmarks:
        return problem.landmarks(state[0] * units[0], state[1] * units[1], state[2])

    m, stream = problem.queries.shape[-2], generator(problem.seed, "batches of queries")

    def loss(step: int) -> Tensor:
        rows = integers(m, min(BATCH, m), seed=stream).to(unit.device)
        answers = present().attend(problem.queries[..., rows, :]).outputs
        errors = answers - problem.outputs[..., rows, :]
        return (errors.square().mean(HEAD) / size).sum()

    rates, progress = [learning_rate], problem.progress
    one_cycle([state], rates, loss, steps=steps, name="landmarks", progress=progress)
    state = [part.detach() for part in state]
    answer = _better(problem, start, _refit_values(problem, present()))
    return replace(answer, values=unit * answer.values)


def window(problem: Problem) -> Landmarks:
    """The first SINK keys and the last e − SINK: attention sinks with a window (Xiao et al. 2024, StreamingLLM)."""
    first = min(SINK, problem.rank)
    last = problem.keys.shape[-2] - (problem.rank - first)
    ends = (
        torch.cat([x[..., :first, :], x[..., last:, :]], -2) for x in (problem.keys, problem.values)
    )
    return problem.landmarks(*ends)


def expected_attention(problem: Problem, *, groups: int = 1) -> Landmarks:
    """The e keys with the largest expected weight × ‖value‖ for Gaussian queries (after Devoto et al. 2025).

    With the given queries' mean μ and covariance Σ, E exp(s·q·k) = exp(s·μ·k + ½s²·kᵀΣk). The first SINK
    keys always stay. ``groups``: of that many stretches of queries each has a μ and Σ of its own.
    """
    queries = problem.queries.unflatten(-2, (integer(groups, "groups", least=1), -1))
    mean = queries.mean(-2, keepdim=True)
    keys, s = problem.keys[..., None, :, :], problem.scale
    spread = ((queries - mean) @ keys.mT).square().mean(-2)  # kᵀΣk
    weights = torch.softmax(s * (mean @ keys.mT)[..., 0, :] + s * s * spread / 2, -1).mean(-2)
    values = problem.values / unit_scale(problem.values)
    importance = weights * torch.linalg.vector_norm(values, dim=-1)
    importance[..., : min(SINK, problem.rank)] = float("inf")
    return _chosen(problem, importance.topk(problem.rank).indices)


@with_gradients
def landmarks(
    problem: Problem,
    *,
    later: Part | None = None,
    mass: bool = True,
    steps: int = 100,
    learning_rate: float = 0.03,
    start: str = "matching pursuit",
) -> Landmarks:
    """Keys, values and biases that stand for all n keys *beside others*: outputs and mass fitted together.

    What a query of a longer text receives is (Zo + Z′o′)/(Z + Z′) with the part ``later`` = (o′, ln Z′) from
    the other keys, so its squared error is what is made small: where Z is a small share, an error counts
    little. Without ``later`` as much mass is put beside with the output zero. From the heaviest keys
    (or those that ``choose`` takes from A and e), with values by least squares and a bias that evens the mean ln Z, Adam takes
    ``steps`` steps with a one-cycle rate, each on BATCH queries drawn from the seed; then the values are
    fitted again. ``mass=False`` fits the outputs alone, with biases of zero.
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
    one_of(start, "start", ("matching pursuit", "heavy keys"))
    first = heavy_keys(problem) if start == "heavy keys" else _pursued(problem)
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
        return _refit_values(problem, answer, share, wanted, ridge=NEAR, towards=answer.values)

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
        best = _by_head(problem, answers, errors.argmin(0))
        return replace(best, values=unit * best.values)


def truncated_svd(problem: Problem) -> Seen:
    """A_e V with the best A_e of rank e: a bound for every method of that rank, on A."""
    m, w = problem.outputs.shape[-2:]
    rank = min(problem.rank, *problem.weights.shape[-2:])
    return problem.seen(truncate(problem.weights, rank) @ problem.values, problem.rank * (m + w))


def output_rank(problem: Problem) -> Seen:
    """The outputs themselves, truncated to rank e; exact for e ≥ w."""
    m, w = problem.outputs.shape[-2:]
    rank = min(problem.rank, m, w)
    return problem.seen(truncate(problem.outputs, rank), rank * (m + w))


def sparse_low_rank(problem: Problem) -> Seen:
    """The largest ½e(m + n) entries of A, plus the best rank e/2 of what is left (after Chen et al. 2021)."""
    weights, rank = problem.weights, max(1, problem.rank // 2)
    m, n = weights.shape[-2:]
    kept = min(m * n, rank * (m + n))
    least = weights.flatten(-2).topk(kept).values[..., -1:, None]
    sparse = torch.where(weights >= least, weights, 0)
    rest = truncate(weights - sparse, min(rank, m, n))
    return problem.seen((sparse + rest) @ problem.values, kept + rank * (m + n))


METHODS: dict[str, Callable[..., Compression]] = {
    "constant": constant,
    "heavy keys": heavy_keys,
    "segment means": segment_means,
    "k-means": k_means,
    "linformer": linformer,
    "nystrom": partial(nystrom, inverse=iterated_inverse),
    "nystrom, exact": partial(nystrom, inverse=torch.linalg.pinv),
    "performer": performer,
    "note": note,
    "fitted values": fitted_values,
    "learned": learned,
    "window": window,
    "expected attention": expected_attention,
    "landmarks": landmarks,
    "truncated svd": truncated_svd,
    "output rank": output_rank,
    "sparse + low rank": sparse_low_rank,
}
ORACLES = ("truncated svd", "output rank", "sparse + low rank")
"""Methods that are given the queries and serve no others."""


def _segments(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Means of ``count`` consecutive stretches of rows, as equal in length as possible, and their lengths."""
    places = torch.arange(rows.shape[-2], device=rows.device) * count // rows.shape[-2]
    members = torch.nn.functional.one_hot(places, count).to(rows)
    sizes = members.sum(0).clamp(min=1)
    return (members / sizes).mT @ rows, sizes


def _clusters(keys: Tensor, count: int, seed: int) -> Tensor:
    """Cluster labels 0 … count − 1 of the rows, head by head."""
    heads = keys.detach().cpu().double().reshape(-1, *keys.shape[-2:]).numpy()
    labels = [kmeans2(rows, count, minit="++", rng=generator(seed, "k-means"))[1] for rows in heads]
    return torch.as_tensor(np.stack(labels)).long().reshape(keys.shape[:-1]).to(keys.device)


def _note_factors(problem: Problem) -> tuple[Tensor, Tensor]:
    """US (…, m, e) and D (…, e, n) of the truncated SVD of A, the largest entry of each column of U positive."""
    U, S, Vh = torch.linalg.svd(problem.weights, full_matrices=False)
    factors, right = (U * S[..., None, :])[..., : problem.rank], Vh[..., : problem.rank, :]
    largest = factors.take_along_dim(factors.abs().argmax(-2, keepdim=True), -2)
    signs = torch.where(largest < 0, -1.0, 1.0).to(factors)
    return factors * signs, right * signs.mT


def _pursued(problem: Problem) -> Landmarks:
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
    return _chosen(problem, chosen)


def _chosen(problem: Problem, places: Int64[Tensor, "*batch e"]) -> Landmarks:
    """Some of the keys with their values."""
    rows = (x.take_along_dim(places[..., None], -2) for x in (problem.keys, problem.values))
    return problem.landmarks(*rows)


def _better(problem: Problem, first: Landmarks, second: Landmarks) -> Landmarks:
    """Head by head, the landmarks with the smaller error on the given queries; the first where the second fail."""
    first_error, second_error = (
        (answer.attend(problem.queries).outputs - problem.outputs).square().sum(HEAD)
        for answer in (first, second)
    )
    return _by_head(problem, (first, second), (second_error <= first_error).long())


def _by_head(
    problem: Problem, answers: Sequence[Landmarks], which: Int64[Tensor, "*batch"]
) -> Landmarks:
    """For every head the answer of this number."""

    def pick(name: str) -> Tensor:
        parts = torch.stack([getattr(answer, name) for answer in answers])
        places = which.reshape(1, *which.shape, *[1] * (parts.ndim - 1 - which.ndim))
        return parts.take_along_dim(places, 0)[0]

    return problem.landmarks(pick("keys"), pick("values"), pick("bias"))


def _refit_values(
    problem: Problem,
    landmarks: Landmarks,
    share: Float[Tensor, "*batch m 1"] | float = 1.0,
    wanted: Float[Tensor, "*batch m w"] | None = None,
    ridge: float = RIDGE,
    towards: Float[Tensor, "*batch e w"] | float = 0.0,
) -> Landmarks:
    """The same keys and bias with V̂ from ridge regression: ``share`` times their outputs near what is ``wanted``.

    By default the given queries' outputs, and values as small as they may be; else near ``towards``.
    """
    wanted = problem.outputs if wanted is None else wanted
    weights = (share * landmarks.weights(problem.queries)).double()
    gram = weights.mT @ weights
    ridge = ridge * gram.diagonal(dim1=-2, dim2=-1).mean(-1)[..., None, None]
    regular = gram + ridge * torch.eye(gram.shape[-1]).to(gram)
    values = torch.linalg.solve(regular, weights.mT @ wanted.double() + ridge * towards)
    return problem.landmarks(landmarks.keys, values.to(problem.keys), landmarks.bias)
