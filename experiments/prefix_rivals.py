"""Other ways to keep a prefix than those of ``helpers.models.prefix``, and ablations of its landmarks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property, partial

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from experiments import rivals
from helpers.layers import HalfPrecision, Landmarks
from helpers.layers.landmarks import heavy_keys
from helpers.maths import Part
from helpers.models import Prefix, ReadPrefix
from helpers.models.prefix import Kept, Layer, landmarks


@dataclass(frozen=True)
class Ragged(Kept):
    """Heads with different numbers of rows, which stand one behind the other."""

    lengths: tuple[int, ...]

    @classmethod
    def of(cls, landmarks: Landmarks, bits: int = 16) -> Kept:
        """Without the rows that no query sees, those with a bias of −∞."""
        seen = torch.isfinite(landmarks.bias)
        parts = (landmarks.keys, landmarks.values, landmarks.bias)
        rows = Kept.of(Landmarks(*(part[seen][None] for part in parts), landmarks.scale), bits)
        lengths = tuple(seen.sum(-1).tolist())
        return cls(rows.keys, rows.values, rows.bias, rows.scale, lengths)

    @cached_property
    def landmarks(self) -> Landmarks:
        """Short heads are filled up by rows that no query sees."""
        rows = super().landmarks
        parts = (part[0].split(self.lengths) for part in (rows.keys, rows.values, rows.bias))
        return Landmarks(*_side_by_side(*parts), self.scale)


@dataclass(frozen=True)
class Factored(HalfPrecision):
    """Rows as the product of two factors in float16."""

    right: Tensor

    @classmethod
    def cut(cls, rows: Float[Tensor, "heads n d"], rank: int) -> "Factored":
        """The nearest of this rank."""
        U, S, Vh = torch.linalg.svd(rows, full_matrices=False)
        return cls((U[..., :rank] * S[..., None, :rank]).half(), Vh[..., :rank, :].half())

    @property
    def bytes(self) -> int:
        return self.halves.nbytes + self.right.nbytes

    def rows(self) -> Float[Tensor, "heads n d"]:
        return self.halves.float() @ self.right.float()


def fewer_dimensions(reading: ReadPrefix, tokens: int) -> Prefix:
    """All n keys and values in so few dimensions that they take the bytes of ``tokens`` rows."""

    def kept(keys: Tensor, values: Tensor, scale: float) -> Kept:
        n, d = keys.shape[-2:]
        rank = max(1, min(d, tokens * d // (n + d)))  # rank·(n + d) numbers in place of tokens·d
        return Kept(Factored.cut(keys, rank), Factored.cut(values, rank), None, scale)

    layers = [kept(*layer) for layer in reading.layers]
    return replace(reading.compact(method="none"), layers=layers)


def window(reading: ReadPrefix, tokens: int, sinks: int = rivals.SINK) -> Prefix:
    """The first ``sinks`` keys and the last ones (Xiao et al. 2024, StreamingLLM)."""
    n, sinks = len(reading.ids), min(sinks, tokens)
    places = torch.cat([torch.arange(sinks), torch.arange(n - tokens + sinks, n)])
    layers = [(keys[:, places], values[:, places], s) for keys, values, s in reading.layers]
    kept = replace(reading, ids=reading.ids[places], layers=layers).compact(method="full")
    return replace(kept, length=n)


def k_means(reading: ReadPrefix, tokens: int) -> Prefix:
    """Centres of clusters of keys. A cluster may stay empty, and is left out then."""
    return reading.fitted(
        lambda place, layer: Ragged.of(layer.by(rivals.k_means, tokens)), on_policy=False
    )


def expected_attention(reading: ReadPrefix, tokens: int) -> Prefix:
    """Keys by the weight to expect from the queries of each query head (Devoto et al. 2025).

    It knows no passage, so it looks at those queries that come without the prefix.
    """
    blind = reading.passages[1]

    def fit(place: int, layer: Layer) -> Kept:
        heads = reading.questions[place][0].shape[1] // len(layer.keys)
        queries = layer.queries.unflatten(1, (heads, len(blind), -1))[:, :, blind].flatten(1, 3)
        method = partial(rivals.expected_attention, groups=heads)
        return Kept.of(replace(layer, queries=queries).by(method, tokens))

    return reading.fitted(fit, on_policy=False)


def as_the_full_model_asks(reading: ReadPrefix, tokens: int) -> Prefix:
    """Landmarks for the queries of the whole model, not of the compacted one."""
    return reading.fitted(lambda place, layer: Kept.of(landmarks(layer, tokens)), on_policy=False)


def from_heavy_keys(reading: ReadPrefix, tokens: int) -> Prefix:
    """Landmarks that start from the heaviest keys."""
    return reading.compact(tokens, start=heavy_keys, progress=False)


class AskedAgain(ReadPrefix):
    """Passages are read behind the prefix only."""

    @cached_property
    def passages(self) -> tuple[Int64[Tensor, "rows t"], Bool[Tensor, "rows"]]:
        rows, blind = super().passages
        return rows[~blind], blind[~blind]


def asked_for_passages_only(reading: ReadPrefix, tokens: int) -> Prefix:
    """Landmarks without the reading of the passages that doesn't look back."""
    parts = (getattr(reading, field.name) for field in fields(reading))
    return AskedAgain(*parts).compact(tokens, progress=False)


def with_budgets(
    reading: ReadPrefix,
    budgets: Int64[Tensor, "layers heads"],
    method: Callable[..., Landmarks] = landmarks,
) -> Prefix:
    """Every head with so many keys, fitted alone."""

    def fit(place: int, layer: Layer) -> Kept:
        heads = [method(_head(layer, k), count) for k, count in enumerate(budgets[place].tolist())]
        parts = ([getattr(head, name)[0] for head in heads] for name in ("keys", "values", "bias"))
        return Ragged.of(Landmarks(*_side_by_side(*parts), layer.scale))

    return reading.fitted(fit, on_policy=method is landmarks)


def _head(layer: Layer, k: int) -> Layer:
    """Of one key head."""
    rows = {name: getattr(layer, name)[k : k + 1] for name in ("keys", "values", "queries")}
    return replace(layer, **rows, later=Part(*(part[k : k + 1] for part in layer.later)))


def _side_by_side(*parts: Sequence[Tensor]) -> Iterator[Tensor]:
    """Keys, values and biases of heads as one tensor each; what is short is filled up by rows that no query sees."""
    for heads, filling in zip(parts, (0.0, 0.0, float("-inf")), strict=True):
        yield pad_sequence(list(heads), batch_first=True, padding_value=filling)
