"""Chapter 4's rivals: published ways to compress attention, the note's own, baselines and oracles.

All go through the door of ``helpers.layers.landmarks``, which see for the notation.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from jaxtyping import Float
from scipy.cluster.vq import kmeans2
from torch import Tensor

from helpers import layers
from helpers.layers.fitting import one_cycle, rms, with_gradients
from helpers.layers.landmarks import (
    BATCH,
    HEAD,
    Landmarks,
    Problem,
    best_by_head,
    heavy_keys,
    keep_keys,
    refit_values,
)
from helpers.maths import (
    Part,
    attention_weights,
    gaussian,
    generator,
    integer,
    integers,
    one_of,
    own_precision,
    real_number,
    signed_qr,
    truncate,
    unit_scale,
)

RIDGE = 1e-8
"""Of the mean squared weight: what keeps the least-squares values finite."""
SINK = 4
"""First tokens that a selection always keeps."""
CUTOFF = torch.finfo(torch.float32).eps
"""Machine epsilon of single precision. Times the larger side of a matrix and its σ₁ it is the default rank
tolerance of ``torch.linalg.lstsq``."""


@dataclass(frozen=True)
class Unnormalised(Landmarks):
    """exp(s·qK̂ᵀ + b)V̂, without the division by the mass."""

    @own_precision
    def attend(self, queries: Float[Tensor, "*batch m d"]) -> Part:
        """Outputs and ln Z, as those of landmarks."""
        log_mass = super().attend(queries).log_mass
        logits = self.scale * queries @ self.keys.mT + self.bias[..., None, :]
        return Part(logits.exp() @ self.values, log_mass)


@dataclass(frozen=True)
class Seen:
    """Outputs for the queries that a method was given; it can't serve others."""

    queries: Float[Tensor, "*batch m d"]
    part: Part
    """Outputs, and the exact ln Z: one number for each query."""

    def attend(self, queries: Float[Tensor, "*batch m d"]) -> Part:
        """What is stored. Raises ValueError for any other queries than those it was given."""
        if queries.shape != self.queries.shape or not torch.equal(queries, self.queries):
            raise ValueError("queries must be those that the method was given")
        return self.part


def compress(
    method: str,
    queries: Float[Tensor, "*batch m d"],
    keys: Float[Tensor, "*batch n d"],
    values: Float[Tensor, "*batch n w"],
    rank: int,
    **options: object,
) -> Landmarks | Seen:
    """:func:`helpers.layers.landmarks.compress` by a key of METHODS; those of ORACLES serve the given queries only."""
    rival = METHODS[one_of(method, "method", METHODS)]
    return layers.compress(rival, queries, keys, values, rank, **options)


def constant(problem: Problem) -> Landmarks:
    """The mean output for every query: the baseline that has to be beaten."""
    key = torch.zeros_like(problem.keys[..., :1, :])
    return problem.landmarks(key, problem.outputs.mean(-2, keepdim=True))


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
    projection = _normal(problem, problem.rank, problem.keys.shape[-2]) / math.sqrt(problem.rank)
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
    draws = _normal(problem, 2 * blocks, width, width)
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
    bias = torch.zeros_like(solution[..., 0, :])
    return Unnormalised(solution.mT, undo @ right @ problem.values, bias, problem.scale)


def fitted_values(problem: Problem) -> Landmarks:
    """The keys of k-means with the values that fit the given queries' outputs best."""
    return _with_values(problem, k_means(problem))


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
    starts = [_with_values(problem, method(problem)) for method in (k_means, heavy_keys)]
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
    answer = _better(problem, start, _with_values(problem, present()))
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
    return keep_keys(problem, importance.topk(problem.rank).indices)


def truncated_svd(problem: Problem) -> Seen:
    """A_e V with the best A_e of rank e: a bound for every method of that rank, on A."""
    rank = min(problem.rank, *problem.weights.shape[-2:])
    return _seen(problem, truncate(problem.weights, rank) @ problem.values)


def output_rank(problem: Problem) -> Seen:
    """The outputs themselves, truncated to rank e; exact for e ≥ w."""
    rank = min(problem.rank, *problem.outputs.shape[-2:])
    return _seen(problem, truncate(problem.outputs, rank))


def sparse_low_rank(problem: Problem) -> Seen:
    """The largest ½e(m + n) entries of A, plus the best rank e/2 of what is left (after Chen et al. 2021)."""
    weights, rank = problem.weights, max(1, problem.rank // 2)
    m, n = weights.shape[-2:]
    kept = min(m * n, rank * (m + n))
    least = weights.flatten(-2).topk(kept).values[..., -1:, None]
    sparse = torch.where(weights >= least, weights, 0)
    rest = truncate(weights - sparse, min(rank, m, n))
    return _seen(problem, (sparse + rest) @ problem.values)


METHODS: dict[str, Callable[..., Landmarks | Seen]] = {
    "constant": constant,
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
    "truncated svd": truncated_svd,
    "output rank": output_rank,
    "sparse + low rank": sparse_low_rank,
    **layers.METHODS,
}
ORACLES = ("truncated svd", "output rank", "sparse + low rank")
"""Methods that are given the queries and serve no others."""


def _normal(problem: Problem, *shape: int) -> Float[Tensor, "..."]:
    """Standard normal numbers, the same for every head."""
    return gaussian(*shape, seed=problem.seed, stream="projections").to(problem.keys)


def _seen(problem: Problem, outputs: Tensor) -> Seen:
    return Seen(problem.queries, problem.exact._replace(outputs=outputs))


def _with_values(problem: Problem, landmarks: Landmarks) -> Landmarks:
    """The same keys and bias with the values that fit the given queries' outputs best."""
    return refit_values(problem, landmarks, 1.0, problem.outputs, RIDGE, 0.0)


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


def _better(problem: Problem, first: Landmarks, second: Landmarks) -> Landmarks:
    """Head by head, the landmarks with the smaller error on the given queries; the first where the second fail."""
    first_error, second_error = (
        (answer.attend(problem.queries).outputs - problem.outputs).square().sum(HEAD)
        for answer in (first, second)
    )
    return best_by_head(problem, (first, second), (second_error <= first_error).long())
