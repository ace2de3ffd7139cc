"""Why SmolLM2's heads have the rank they have: nulls, no training, and what a head does (ten minutes on one core)."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from experiments.smollm_census import k99, without_first
from experiments.store import Experiment
from helpers.data import TEXTS_PER_KIND, long_ids
from helpers.maths import causal_mask, gaussian, generator, integers, shuffle_within_rows
from helpers.models import attention_maps, queries_keys_values, smollm

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM

N = 256
COPY = 128
"""Random tokens that a text for induction repeats once."""

Rows = Float[Tensor, "layers _ n d"]
Matrices = Float[Tensor, "layers heads n n"]


def logits_of(queries: Rows, keys: Rows) -> Matrices:
    """QKᵀ/√d of every head, each key head shared by as many queries' heads as in the model."""
    keys = keys.repeat_interleave(queries.shape[1] // keys.shape[1], 1)
    return queries @ keys.mT / queries.shape[-1] ** 0.5


def causal_softmax(logits: Matrices) -> Matrices:
    """Attention weights: the softmax of every row up to the diagonal."""
    return logits.masked_fill(~causal_mask(logits.shape[-1]), -torch.inf).softmax(-1)


def spread(logits: Matrices) -> Float[Tensor, "layers heads 1 1"]:
    """Standard deviation of a head's logits about their row's mean, over the keys that a row may see."""
    seen = causal_mask(logits.shape[-1])
    means = (logits * seen).sum(-1, keepdim=True) / seen.sum(-1, keepdim=True)
    squares = (logits - means).square() * seen
    return (squares.sum((-2, -1), keepdim=True) / seen.sum()).sqrt()


def untrained(seed: int) -> "LlamaForCausalLM":
    """SmolLM2 as before its training: matrices N(0, .02²), drawn with ``seed``, and norms of one."""
    from transformers import LlamaForCausalLM

    trained = smollm().model
    with torch.device("meta"):
        model = LlamaForCausalLM(trained.config)
    model = model.to_empty(device="cpu").eval().requires_grad_(False)
    model.model.rotary_emb = trained.model.rotary_emb  # its buffers are no parameters
    stream = generator(seed, "untrained SmolLM2")
    for weight in model.parameters():
        deviation = trained.config.initializer_range
        drawn = deviation * gaussian(*weight.shape, seed=stream) if weight.ndim == 2 else 1
        weight.copy_(torch.as_tensor(drawn))
    return model


def before_rotation(ids: Int64[Tensor, "n"]) -> tuple[Rows, Rows]:
    """Queries and keys of every layer as their projections make them, before RoPE turns them."""
    body, seen = smollm().model.model, []
    layers = [layer.self_attn for layer in body.layers]
    hooks = [
        projection.register_forward_hook(lambda _, __, rows: seen.append(rows[0]))
        for layer in layers
        for projection in (layer.q_proj, layer.k_proj)
    ]
    with torch.no_grad():
        body(ids[None], use_cache=False)
    for hook in hooks:
        hook.remove()
    # (n, heads·d) → (heads, n, d)
    rows = [part.unflatten(-1, (-1, body.config.head_dim)).transpose(0, 1) for part in seen]
    return torch.stack(rows[::2]), torch.stack(rows[1::2])


def habits(ids: Int64[Tensor, "n"], seed: int) -> dict[str, Float[Tensor, "layers heads"]]:
    """How much of its weight a head gives, in the mean over the places, to what.

    "induction" is measured on 128 random tokens that come twice: the weight of a token of the second copy
    on the one that followed it in the first (Olsson et al. 2022).
    """
    model = smollm().model
    weights = attention_maps(model, ids)
    tokens = integers(model.config.vocab_size, COPY, seed=seed, stream="tokens to repeat")
    twice = attention_maps(model, torch.cat([tokens, tokens]))
    return {
        "the first token": weights[..., 0].mean(-1),
        "itself": weights.diagonal(dim1=-2, dim2=-1).mean(-1),
        "the previous token": weights.diagonal(-1, -2, -1).mean(-1),
        "induction": twice.diagonal(1 - COPY, -2, -1)[..., 1:].mean(-1),
    }


def versions(index: int, ids: Int64[Tensor, "n"]) -> dict[str, Matrices]:
    """The attention of every head on one text, its nulls, and what it is without one of its parts."""
    logits = logits_of(*queries_keys_values(smollm().model, ids)[:2])
    drawn = logits_of(*queries_keys_values(untrained(index), ids)[:2])
    trained = causal_softmax(logits)
    rest = without_first(trained)
    return {
        "trained": trained,
        "without the first token": rest,
        "rows shuffled": shuffle_within_rows(trained, seed=index, causal=True),
        "without it, rows shuffled": shuffle_within_rows(rest, seed=index, causal=True),
        "before RoPE": causal_softmax(logits_of(*before_rotation(ids))),
        "untrained": causal_softmax(drawn),
        "untrained, logits as spread": causal_softmax(drawn * (spread(logits) / spread(drawn))),
    }


def run(index: int) -> dict[str, dict[str, Tensor]]:
    """k₉₉ of every head in every version of prose ``index``, and its habits in thousandths."""
    ids = long_ids("prose", index, N, smollm().tokenizer)
    return {
        "k99": {name: k99(matrices) for name, matrices in versions(index, ids).items()},
        "habits": {
            name: (1000 * share).round().int() for name, share in habits(ids, index).items()
        },
    }


EXPERIMENT = Experiment(
    name="smollm_causes",
    measure=run,
    jobs=[{"index": index} for index in range(TEXTS_PER_KIND)],
    settings={"n": N, "repeated tokens": COPY},
)


def load_causes() -> dict[str, dict[str, Tensor]]:
    """k₉₉ by version and habits (in thousandths) by name, each (texts, layers, heads)."""
    rows = [row for _, row in EXPERIMENT.load()]
    return {
        part: {
            name: torch.stack([torch.tensor(row[part][name]) for row in rows])
            for name in rows[0][part]
        }
        for part in ("k99", "habits")
    }
