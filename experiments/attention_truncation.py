"""What SmolLM2 loses when its attention is cut to low rank: all heads at once, layer by layer, head by head (40 minutes on one core).

A truncated causal matrix isn't causal: above its diagonal stand small numbers, by which a token
sees those to come. They are set to zero again, except where a row says "leaking".
"""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from experiments.smollm_census import k99
from experiments.store import Experiment
from helpers.data import TEXTS_PER_KIND, long_ids
from helpers.maths import truncate
from helpers.models import attention_maps, replaced_attention, smollm

N, N_HEADS = 256, 128
"""Tokens: for all heads at once and by layer; head by head, which takes 270 runs a text."""
FRACTIONS = (0.5, 0.8, 0.9, 0.95, 0.99, 0.999)
LAYER_FRACTION = 0.9
HEAD_RANK = 8

Heads = Float[Tensor, "batch heads n n"]
Transform = Callable[[int, Heads], Heads]


def loss(ids: Int64[Tensor, "n"], transform: Transform | None = None) -> float:
    """Mean −ln of the probability that SmolLM2 gives to each next token, with ``transform``-ed attention."""
    model = smollm().model
    with torch.no_grad(), replaced_attention(model, transform or (lambda _, weights: weights)):
        logits = model(ids[None], use_cache=False).logits[0, :-1]
    return float(torch.nn.functional.cross_entropy(logits, ids[1:]))


def at_energy(weights: Heads, fraction: float) -> tuple[Heads, Int64[Tensor, "batch heads"]]:
    """Every head truncated to the least rank that holds ``fraction`` of its energy, and that rank."""
    U, S, Vh = torch.linalg.svd(weights)
    held = S.square().cumsum(-1) / S.square().sum(-1, keepdim=True)
    kept = held - S.square() / S.square().sum(-1, keepdim=True) < fraction
    return (U * (S * kept)[..., None, :]) @ Vh, kept.sum(-1)


def first_column(weights: Heads) -> Heads:
    """Only what goes to the first token."""
    return torch.nn.functional.pad(weights[..., :1], (0, weights.shape[-1] - 1))


def first_column_zero(weights: Heads) -> Heads:
    """Nothing to the first token but from itself."""
    rest = weights - first_column(weights)
    rest[..., 0, 0] = 1
    return rest


def without_first_column(weights: Heads) -> Heads:
    """The same, and the rows summing to one again."""
    rest = first_column_zero(weights)
    return rest / rest.sum(-1, keepdim=True)


def all_heads(ids: Int64[Tensor, "n"]) -> dict[str, object]:
    """Loss with every head of every layer changed, and the median rank that is left."""
    row: dict[str, object] = {
        "full": loss(ids),
        "no attention": loss(ids, lambda _, weights: 0 * weights),
        "first column only": loss(ids, lambda _, weights: first_column(weights)),
        "without first column": loss(ids, lambda _, weights: without_first_column(weights)),
        "first column zero": loss(ids, lambda _, weights: first_column_zero(weights)),
        "ranks": [],
        "cut": [],
        "leaking": [],
    }
    for fraction in FRACTIONS:
        ranks: list[Tensor] = []

        def cut(_: int, weights: Heads, fraction=fraction, ranks=ranks) -> Heads:
            near, rank = at_energy(weights, fraction)
            ranks.append(rank)
            return near.tril()

        row["cut"].append(loss(ids, cut))
        row["ranks"].append(torch.cat(ranks).median())
        row["leaking"].append(loss(ids, lambda _, weights, f=fraction: at_energy(weights, f)[0]))
    return row


def by_layer(ids: Int64[Tensor, "n"], change: Callable[[Heads], Heads]) -> list[float]:
    """Loss with the attention of one layer changed, for every layer."""
    layers = smollm().model.config.num_hidden_layers
    return [
        loss(ids, lambda layer, weights, here=here: change(weights) if layer == here else weights)
        for here in range(layers)
    ]


def by_head(ids: Int64[Tensor, "n"]) -> Float[Tensor, "layers heads"]:
    """Loss with one head cut to rank HEAD_RANK, for every head."""
    config = smollm().model.config
    shape = config.num_hidden_layers, config.num_attention_heads

    def one(here: int, head: int) -> float:
        def cut(layer: int, weights: Heads) -> Heads:
            if layer == here:
                weights = weights.clone()
                weights[:, head] = truncate(weights[:, head], HEAD_RANK).tril()
            return weights

        return loss(ids, cut)

    return torch.tensor(
        [[one(layer, head) for head in range(shape[1])] for layer in range(shape[0])]
    )


def run(index: int) -> dict[str, object]:
    """All of this on prose ``index``, and the k₉₉ of every head on what :func:`by_head` reads."""
    ids = long_ids("prose", index, N, smollm().tokenizer)
    few = ids[:N_HEADS]
    return {
        **all_heads(ids),
        "cut by layer": by_layer(ids, lambda weights: at_energy(weights, LAYER_FRACTION)[0].tril()),
        "dropped by layer": by_layer(ids, lambda weights: 0 * weights),
        "full, heads": loss(few),
        "cut by head": by_head(few),
        "k99": k99(attention_maps(smollm().model, few)),
    }


EXPERIMENT = Experiment(
    name="attention_truncation",
    measure=run,
    jobs=[{"index": index} for index in range(TEXTS_PER_KIND)],
    settings={
        "n": N,
        "n by head": N_HEADS,
        "fractions": FRACTIONS,
        "fraction by layer": LAYER_FRACTION,
        "rank by head": HEAD_RANK,
    },
)


def load_truncation() -> dict[str, Tensor]:
    """What :func:`run` measured by name, the texts along the first axis."""
    rows = [row for _, row in EXPERIMENT.load()]
    return {name: torch.stack([torch.tensor(row[name]) for row in rows]) for name in rows[0]}
