"""Time and memory of exact attention and of landmarks for 1024 queries, and what a fit of 72 heads takes."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn.functional import scaled_dot_product_attention

from benchmarks.memory import peak_memory
from experiments.landmark_errors import minilm_document
from experiments.rivals import compress
from helpers.layers import Landmarks
from helpers.maths import attention, gaussian

SIZES = (512, 1024, 2048, 4096, 8192, 16384)
QUERIES, HEADS, WIDTH, RANK, ROUNDS = 1024, 4, 64, 64, 7


@pytest.mark.parametrize("method", ["exact", "unfused", "landmarks"])
@pytest.mark.parametrize("size", SIZES)
def test_serving(measure, benchmark, size, method):
    """Gaussian heads; "unfused" is exact too, but forms all of A. "bytes": what is kept, and the peak."""
    # torch's fused attention, the fast one, needs four axes; with three it would form all of A.
    queries = gaussian(1, HEADS, QUERIES, WIDTH, seed=0, stream="queries").float()
    keys, values = gaussian(2, 1, HEADS, size, WIDTH, seed=0, stream="keys, values").float()
    few = keys[..., :RANK, :], values[..., :RANK, :], torch.zeros(1, HEADS, RANK)
    kept = few if method == "landmarks" else (keys, values)
    run = {
        "exact": lambda queries: scaled_dot_product_attention(queries, keys, values),
        "unfused": lambda queries: attention(queries, keys, values),
        "landmarks": Landmarks(*few, WIDTH**-0.5).attend,
    }[method]
    with torch.no_grad():
        measure("serving", method, size, run, [(queries,)] * ROUNDS)
        peak = peak_memory(lambda: run(queries))
    benchmark.extra_info["bytes"] = peak + sum(part.numel() * part.itemsize for part in kept)


@pytest.mark.parametrize("method", ["fit", "exact"])
def test_72_heads(measure, method):
    """All heads of MiniLM on one text: learned landmarks fitted to 3584 queries, or exact attention to them."""
    data = minilm_document(0)
    parts = tuple(data[name] for name in ("fit", "keys", "values"))
    if method == "fit":
        run = partial(compress, "learned", rank=RANK, progress=False)
    else:
        parts, run = tuple(part[None] for part in parts), scaled_dot_product_attention
    measure("72 heads", method, data["keys"].shape[1], run, [parts] * (1 if method == "fit" else 5))
