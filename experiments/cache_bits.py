"""Fewer dimensions or fewer bits in the cache of keys and values, at equal bytes (five minutes on one core).

A prefix is read once and its keys and values are kept in less space; what follows is then predicted
with them. The first token, on which most heads rest, is kept as it is.
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.store import Experiment
from helpers.data import TEXTS_PER_KIND, long_ids
from helpers.models import smollm

PREFIX, NEXT = 512, 256
GROUP = 32
"""Neighbouring numbers of a token's key or value that share one scale and offset in quantised storage."""
BITS = 16
"""Of a number in a cache as it usually is; a basis or a scale takes as many."""

Cached = Float[Tensor, "batch heads n d"]


def projected(rows: Cached, rank: int) -> Cached:
    """Every head's rows in the best ``rank`` dimensions for them (truncated SVD)."""
    U, S, Vh = torch.linalg.svd(rows, full_matrices=False)
    return (U[..., :rank] * S[..., None, :rank]) @ Vh[..., :rank, :]


def quantised(rows: Cached, bits: int) -> Cached:
    """Every group of numbers rounded to 2^bits equal steps between its smallest and its largest."""
    groups = rows.unflatten(-1, (-1, GROUP))
    low, high = groups.aminmax(dim=-1, keepdim=True)
    step = (high - low).clamp(min=1e-12) / (2**bits - 1)
    return (low + step * ((groups - low) / step).round()).flatten(-2)


def bytes_of(n: int, d: int, rank: int | None = None, bits: int = BITS) -> float:
    """Of one head's n keys or values of width d, with the basis of a projection and the scales of groups."""
    if rank is not None:
        return rank * (n + d) * BITS / 8
    scales = 2 * BITS / GROUP if bits < BITS else 0
    return n * d * (bits + scales) / 8


METHODS = {
    **{f"{rank} of 64 dimensions": ("rank", rank) for rank in (48, 32, 16)},
    **{f"{bits} bits": ("bits", bits) for bits in (8, 4, 3, 2)},
}
"""Name → what is less, and how much is left."""


def kept(rows: Cached, method: str) -> Cached:
    """Keys or values as a method keeps them; the first token's stay."""
    what, amount = METHODS[method]
    near = projected(rows, amount) if what == "rank" else quantised(rows, amount)
    return torch.cat([rows[..., :1, :], near[..., 1:, :]], -2)


@torch.no_grad()
def run(index: int) -> dict[str, float]:
    """Loss in nats per token on what follows the prefix of prose ``index``, for every method and without the prefix."""
    language = smollm()
    ids = long_ids("prose", index, PREFIX + NEXT, language.tokenizer)[None]
    targets = ids[0, PREFIX + 1 :]
    read = language.model(ids[:, :PREFIX], use_cache=True, logits_to_keep=1).past_key_values

    def loss(method: str | None) -> float:
        cache = copy.deepcopy(read)  # reading on makes it longer
        if method is not None:
            for layer in cache.layers:
                layer.keys, layer.values = kept(layer.keys, method), kept(layer.values, method)
        later = language.model(ids[:, PREFIX:], past_key_values=cache).logits[0, :-1]
        return float(torch.nn.functional.cross_entropy(later, targets))

    alone = language.model(ids[:, PREFIX:], use_cache=False).logits[0, :-1]
    none = float(torch.nn.functional.cross_entropy(alone, targets))
    return {"full": loss(None), "none": none} | {method: loss(method) for method in METHODS}


EXPERIMENT = Experiment(
    name="cache_bits",
    measure=run,
    jobs=[{"index": index} for index in range(TEXTS_PER_KIND)],
    settings={"prefix": PREFIX, "next": NEXT, "group": GROUP, "methods": METHODS},
)


def load_cache() -> dict[str, Float[Tensor, "texts"]]:
    """Loss by method, one entry per text."""
    rows = [row for _, row in EXPERIMENT.load()]
    return {name: torch.tensor([row[name] for row in rows]) for name in rows[0]}
