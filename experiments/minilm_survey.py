"""Chapter 1's survey: k₉₉ of every MiniLM head on forty texts, and of three nulls (20 minutes on one core).

The chapter reads the results and measures one text again, live.
"""

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float64, Int16
from torch import Tensor

from experiments.store import Experiment
from helpers.data import TEXT_KINDS, TEXTS_PER_KIND, text
from helpers.maths import Seed, gaussian, generator, shuffle_within_rows, spectrum
from helpers.models import (
    attention_maps,
    minilm,
    minilm_tokens,
    queries_keys_values,
)

if TYPE_CHECKING:
    from transformers import BertModel

LENGTHS = (64, 128, 256, 512)


def energy_ranks(weights: Float64[Tensor, "layers heads n n"]) -> Int16[Tensor, "layers heads"]:
    """k₉₉ of every head: the singular values that hold 99 % of Σσ²."""
    return spectrum(weights).energy_rank(0.99).to(torch.int16)


def trained(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """Attention of the trained encoder on text ``index`` of a kind, cut to ``n`` tokens."""
    return attention_maps(minilm(), minilm_tokens(text(kind, index), n))


def minilm_reinitialised(seed: Seed) -> "BertModel":
    """The same architecture with weights as before any training, drawn with ``seed``.

    BERT's own initialisation (Devlin et al. 2019): weights and embeddings N(0, 0.02²), biases 0,
    layer norms 1 and 0, the padding token's embedding 0.
    """
    stream = generator(seed, "reinitialised MiniLM")
    model = copy.deepcopy(minilm()).eval()
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            parameter.zero_()
        elif "LayerNorm" in name:
            parameter.fill_(1)
        else:
            normal = gaussian(*parameter.shape, seed=stream)
            parameter.copy_(model.config.initializer_range * normal)
    model.embeddings.word_embeddings.weight[model.config.pad_token_id] = 0
    return model


def reinitialised(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """The same with weights drawn anew (seed = ``index``): what the architecture does untrained."""
    return attention_maps(minilm_reinitialised(index), minilm_tokens(text(kind, index), n))


def rescaled(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """The reinitialised heads with their logits scaled to standard deviation one, head by head."""
    ids = minilm_tokens(text(kind, index), n)
    queries, keys, _ = queries_keys_values(minilm_reinitialised(index), ids)
    logits = queries @ keys.mT
    return (logits / logits.std(dim=(-2, -1), keepdim=True)).softmax(dim=-1)


def shuffled(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """Trained attention, every row shuffled by itself (seed = ``index``)."""
    return shuffle_within_rows(trained(kind, index, n), seed=index)


SOURCES: dict[str, Callable[[str, int, int], Tensor]] = {
    "trained": trained,
    "reinitialised": reinitialised,
    "rescaled": rescaled,
    "shuffled": shuffled,
}


def run(source: str, kind: str, index: int) -> Int16[Tensor, "lengths layers heads"]:
    """k₉₉ of every head on one text, at each of LENGTHS."""
    return torch.stack([energy_ranks(SOURCES[source](kind, index, n)) for n in LENGTHS])


EXPERIMENT = Experiment(
    name="minilm_survey",
    measure=run,
    jobs=[
        {"source": source, "kind": kind, "index": index}
        for source in SOURCES
        for kind in TEXT_KINDS
        for index in range(TEXTS_PER_KIND)
    ],
    settings={"lengths": LENGTHS, "fraction": 0.99},
)


def load_survey() -> dict[str, Int16[Tensor, "texts lengths layers heads"]]:
    """k₉₉ by "source/kind" (sources: the keys of SOURCES)."""
    tables: dict = {}
    for job, row in EXPERIMENT.load():
        tables.setdefault(f"{job['source']}/{job['kind']}", []).append(torch.tensor(row))
    return {name: torch.stack(rows).to(torch.int16) for name, rows in tables.items()}
