"""Look inside any transformer: its attention matrices, what they are made of, and others in their place.

Works on the models of the ``transformers`` library. A model is run in evaluation mode and left as it was.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from helpers.maths.checks import is_true, own_precision

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Inputs = Int64[Tensor, "n"] | Int64[Tensor, "1 n"] | Float[Tensor, "1 channels height width"]
Rows = Float[Tensor, "layers heads n d"]
Shared = Float[Tensor, "layers key_heads n d"]
Transform = Callable[[int, Tensor], Tensor]
"""``transform(layer, A) -> A`` with A of shape (batch, heads, n, n); may return any such tensor."""

OURS = "attention_factorized"
"""What transformers calls the attention function below."""
BEYOND = ("position_bias", "softcap", "s_aux")
"""What some models add to the scores: T5's bias by distance, Gemma's cap, the sinks of gpt-oss."""


@own_precision
def attention_maps(
    model: "PreTrainedModel", input_ids: Inputs
) -> Float[Tensor, "layers heads n n"]:
    """Attention weights A of every layer and head, rows summing to one, in the model's precision.

    ``model`` is a ``transformers`` model that mixes by attention: an encoder, a decoder (grouped
    queries, too), or both in one, of which the encoder is taken. ``input_ids``, (n,) or (1, n), are
    what its tokenizer makes of a text; of images, a model takes their pixels (1, c, height, width).

    Raises TypeError for a text in place of ids and for what is no model; ValueError for ids outside
    the vocabulary, more of them than the model has positions, and a model without attention.
    """
    with _prepared(model, "eager") as body:
        output = _run(body, input_ids, output_attentions=True)
    weights = [part for part in output.get("attentions") or () if part is not None]
    if not weights:
        raise ValueError(f"model must have attention, but {type(model).__name__} returns none")
    return torch.cat(weights)


def queries_keys_values(model: "PreTrainedModel", input_ids: Inputs) -> tuple[Rows, Shared, Shared]:
    """Queries (layers, heads, n, d), keys and values (layers, key heads, n, d) as they meet.

    Positions have entered: RoPE turns queries and keys before. So softmax(QKᵀ/√d), under the causal
    mask if the model has one, is :func:`attention_maps`. With grouped queries each key head serves
    heads / key heads neighbouring heads.

    Raises as :func:`attention_maps`, and ValueError for a model that adds to QKᵀ, as T5 does.
    """
    layers: list[tuple[Tensor, ...]] = []

    def record(
        _: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ):
        queries = query * (scale * query.shape[-1] ** 0.5)
        layers.append((queries[0], key[0], value[0]))
        return weights_of(query, key, mask, scale) @ per_query_head(value, query)

    with attending_by(model, record) as body:
        _run(body, input_ids)
    if not layers:
        raise ValueError(f"model must have attention, but {type(model).__name__} shows none")
    return tuple(torch.stack(part) for part in zip(*layers, strict=True))


@contextmanager
def replaced_attention(model: "PreTrainedModel", transform: Transform) -> Iterator[None]:
    """Within, every layer of ``model`` mixes its values with ``transform(layer, A)`` in place of A.

    A is (batch, heads, n, n), layers count from 0; any tensor of A's shape may come back.
    """

    def changed(
        layer: int, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
    ):
        weights = transform(layer, weights_of(query, key, mask, scale))
        return weights @ per_query_head(value, query)

    with attending_by(model, changed):
        yield


Attend = Callable[[int, Tensor, Tensor, Tensor, Tensor | None, float], Tensor]
"""(layer, queries (batch, heads, m, d), keys and values (batch, key heads, n, d), mask to add to the
scores, scale s) → outputs (batch, heads, m, w)."""
_attends: list[tuple[Attend, dict[nn.Module, int]]] = []
"""Innermost last: what attends, and the layers in the order in which they came."""


@contextmanager
def attending_by(model: "PreTrainedModel", attend: Attend) -> Iterator["PreTrainedModel"]:
    """Within, ``attend`` does the attention of every layer of the ``model``; hands out the part that attends."""
    from transformers import AttentionInterface, AttentionMaskInterface
    from transformers.masking_utils import eager_mask

    AttentionInterface.register(OURS, _attend)
    AttentionMaskInterface.register(OURS, eager_mask)
    _attends.append((attend, {}))
    try:
        with _prepared(model, OURS) as body:
            yield body
    finally:
        _attends.pop()


def weights_of(query: Tensor, key: Tensor, mask: Tensor | None, scale: float) -> Tensor:
    """softmax(s·QKᵀ + mask), every key head serving its group of query heads."""
    logits = scale * query @ per_query_head(key, query).mT
    return torch.softmax(logits if mask is None else logits + mask, -1)


def per_query_head(rows: Tensor, query: Tensor) -> Tensor:
    """Keys or values (batch, key heads, n, d), repeated for each query head that they serve."""
    return rows.repeat_interleave(query.shape[1] // rows.shape[1], 1)


@own_precision
def _attend(module, query, key, value, attention_mask, scaling=None, dropout=0.0, **more):
    """Attention as transformers calls it: rows (1, heads, n, d) in, outputs (1, n, heads, d) out."""
    if beyond := [name for name in BEYOND if more.get(name) is not None]:
        raise ValueError(f"model must weigh by softmax(QKᵀ) alone, but it adds {beyond[0]}")
    attend, layers = _attends[-1]
    layer = layers.setdefault(module, len(layers))
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    outputs = attend(layer, query, key, value, attention_mask, scale)
    return outputs.transpose(1, 2).contiguous(), None


@contextmanager
def _prepared(model: "PreTrainedModel", implementation: str) -> Iterator["PreTrainedModel"]:
    """The part of ``model`` that attends, without dropout and with this attention; afterwards as it was."""
    from transformers import PreTrainedModel

    if not isinstance(model, PreTrainedModel):
        raise TypeError(f"model must be a transformers model, not {type(model).__name__}")
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    modes = [(module, module.training) for module in body.modules()]
    before = body.config._attn_implementation
    body.eval().set_attn_implementation(implementation)
    try:
        yield body
    finally:
        body.set_attn_implementation(before)
        for module, training in modes:
            module.training = training


@torch.no_grad()
def _run(body: "PreTrainedModel", inputs: Tensor, **options: bool) -> dict[str, object]:
    if body.main_input_name == "input_ids":
        most = getattr(body.config, "max_position_embeddings", None)
        inputs = _one_row(inputs, body.get_input_embeddings().num_embeddings, most)
    elif not isinstance(inputs, Tensor):
        raise TypeError(f"input_ids must be the tensor {body.main_input_name} for this model")
    return body(**{body.main_input_name: inputs.to(body.device)}, return_dict=True, **options)


def _one_row(input_ids: object, vocabulary: int, most: int | None) -> Int64[Tensor, "1 n"]:
    if isinstance(input_ids, str):
        raise TypeError(
            "input_ids must be token ids, not a text: tokenizer(text, return_tensors='pt').input_ids"
        )
    check_ids(input_ids, "input_ids", vocabulary, most)
    shape = tuple(input_ids.shape)
    if input_ids.numel() == 0 or shape not in ((input_ids.numel(),), (1, input_ids.numel())):
        raise ValueError(f"input_ids must have shape (n,) or (1, n) and not be empty, not {shape}")
    return input_ids.reshape(1, -1)


def check_ids(ids: object, name: str, vocabulary: int, most: int | None) -> None:
    """TypeError unless ``ids`` is an int64 tensor, ValueError for more than ``most`` or an unknown one."""
    if not isinstance(ids, Tensor) or ids.dtype != torch.int64:
        kind = ids.dtype if isinstance(ids, Tensor) else type(ids).__name__
        inner = "; pass its .input_ids" if hasattr(ids, "input_ids") else ""
        raise TypeError(f"{name} must be an int64 tensor, not {kind}{inner}")
    if most is not None and ids.size(-1) > most:
        raise ValueError(f"{name} must be at most {most} tokens, not {ids.size(-1)}")
    if is_true(((ids < 0) | (ids >= vocabulary)).any(), name):
        low, high = int(ids.min()), int(ids.max())
        raise ValueError(f"{name} must lie in 0 … {vocabulary - 1}, but run {low} … {high}")
