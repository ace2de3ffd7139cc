"""Chapter 4's methods against performer-pytorch, nystrom-attention, linformer and exact attention.

Six heads of MiniLM, one from each layer. Their tokens are up to 32 texts of 512 tokens in a row,
each seen through the model by itself; every token attends to all of them. The learned landmarks
are fitted to queries of four other texts and serve all of these. The other methods need no fit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import pytest
import torch
from torch import Tensor, nn

from experiments.rivals import compress
from helpers.data import TEXT_KINDS, TEXTS_PER_KIND, text
from helpers.layers import Landmarks
from helpers.models import minilm, minilm_tokens, queries_keys_values

SIZES = (512, 1024, 2048, 4096, 8192, 16384)
RANK, WIDTH, HEADS, ROUNDS = 64, 32, 6, 5


@cache
def rows() -> list[Tensor]:
    """Queries, keys and values of 36 texts (6, 36·512, 32): head l of layer l, in float32."""
    names = [(kind, i) for i in range(TEXTS_PER_KIND) for kind in TEXT_KINDS][:36]
    parts = [queries_keys_values(minilm(), minilm_tokens(text(kind, i), 512)) for kind, i in names]
    diagonal = torch.arange(HEADS)
    return [torch.cat([part[k][diagonal, diagonal] for part in parts], 1).float() for k in range(3)]


def tokens(size: int) -> tuple[Tensor, ...]:
    return tuple(part[:, :size].contiguous() for part in rows())


@cache
def fitted(size: int) -> Landmarks:
    _, keys, values = tokens(size)
    queries = rows()[0][:, 32 * 512 :]
    return compress("learned", queries, keys, values, RANK, progress=False)


@cache
def exact_outputs(size: int) -> Tensor:
    return exact(*tokens(size))


def exact(queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
    """torch's fused attention, which never forms A; it wants four axes."""
    return nn.functional.scaled_dot_product_attention(queries[None], keys[None], values[None])[0]


def ours(name: str) -> Callable[..., Tensor]:
    """Compress and serve, since these methods cost next to nothing to set up."""
    return lambda queries, keys, values: (
        compress(name, queries, keys, values, RANK, progress=False).attend(queries).outputs
    )


def learned(size: int) -> Callable[..., Tensor]:
    small = fitted(size)
    return lambda queries, keys, values: small.attend(queries).outputs


def performer(size: int) -> Callable[..., Tensor]:
    from performer_pytorch import FastAttention

    torch.manual_seed(0)
    layer = FastAttention(WIDTH, nb_features=RANK)
    return lambda *parts: layer(*(part[None] for part in parts))[0]


def nystrom(size: int) -> Callable[..., Tensor]:
    """The package's module between identity weights, without its convolution."""
    from nystrom_attention import NystromAttention

    layer = NystromAttention(
        3 * HEADS * WIDTH, dim_head=WIDTH, heads=HEADS, num_landmarks=RANK, residual=False
    )
    layer.to_qkv.weight.data = torch.eye(3 * HEADS * WIDTH)
    layer.to_out = nn.Identity()
    return lambda *parts: _heads(layer(_joined(*parts)))


def linformer(size: int) -> Callable[..., Tensor]:
    """The package's module with its own random projections, between weights that pick Q, K and V."""
    from linformer import LinformerSelfAttention

    torch.manual_seed(0)
    layer = LinformerSelfAttention(2 * HEADS * WIDTH, size, k=RANK, heads=HEADS, dim_head=WIDTH)
    first, second = torch.eye(2 * HEADS * WIDTH).split(HEADS * WIDTH)
    layer.to_q.weight.data, layer.to_k.weight.data, layer.to_v.weight.data = first, first, second
    layer.to_out = nn.Identity()
    return lambda queries, keys, values: _heads(
        layer(_joined(queries, 0 * queries), _joined(keys, values))
    )


def _joined(*parts: Tensor) -> Tensor:
    """(heads, n, d) each → (1, n, parts · heads · d), as a layer's input."""
    return torch.cat([part.transpose(0, 1).flatten(1) for part in parts], -1)[None]


def _heads(outputs: Tensor) -> Tensor:
    return outputs[0].unflatten(-1, (HEADS, WIDTH)).transpose(0, 1)


METHODS: dict[str, Callable[[int], Callable[..., Tensor]]] = {
    "exact": lambda size: exact,
    "learned landmarks": learned,
    "segment means": lambda size: ours("segment means"),
    "our nystrom": lambda size: ours("nystrom, exact"),
    "nystrom-attention": nystrom,
    "our performer": lambda size: ours("performer"),
    "performer-pytorch": performer,
    "our linformer": lambda size: ours("linformer"),
    "linformer package": linformer,
}


def head_error(found: Tensor, *parts: Tensor) -> float:
    """‖Ô − O‖_F/‖O‖_F, the median of the six heads."""
    reference = exact_outputs(parts[0].shape[1])
    errors = torch.linalg.matrix_norm(found - reference) / torch.linalg.matrix_norm(reference)
    return float(errors.median())


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_attention(measure, size, method):
    """Outputs of all n tokens at rank 64; a fit is made beforehand."""
    with torch.inference_mode():
        run = METHODS[method](size)
        error = None if method == "exact" else head_error
        measure("attention", method, size, run, [tokens(size)] * ROUNDS, error)


@pytest.mark.parametrize("size", SIZES)
def test_fitting(measure, size):
    """What the landmarks cost before they serve."""
    _, keys, values = tokens(size)
    queries = rows()[0][:, 32 * 512 :]
    run = partial(compress, "learned", progress=False)
    measure("fitting", "learned landmarks", size, run, [(queries, keys, values, RANK)] * 3)
