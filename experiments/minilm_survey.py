"""Chapter 1's survey: k₉₉ of every MiniLM head on forty texts, and of three nulls.

``python -m helpers.survey`` (about 20 minutes on one core) writes ``helpers/data/minilm_survey.safetensors``.
The chapter reads that file and measures one text again, live.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float64, Int16
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm.auto import tqdm

from helpers.data import TEXT_KINDS, TEXTS_PER_KIND, text
from helpers.maths import shuffle_within_rows, spectrum
from helpers.models import minilm_attention, minilm_queries_keys, minilm_reinitialised

LENGTHS = (64, 128, 256, 512)
SURVEY = Path(__file__).parent / "results" / "minilm_survey.safetensors"


def energy_ranks(weights: Float64[Tensor, "layers heads n n"]) -> Int16[Tensor, "layers heads"]:
    """k₉₉ of every head: the singular values that hold 99 % of Σσ²."""
    return spectrum(weights).energy_rank(0.99).to(torch.int16)


def trained(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """Attention of the trained encoder on text ``index`` of a kind, cut to ``n`` tokens."""
    return minilm_attention(text(kind, index), n)


def reinitialised(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """The same with weights drawn anew (seed = ``index``): what the architecture does untrained."""
    return minilm_attention(text(kind, index), n, model=minilm_reinitialised(index))


def rescaled(kind: str, index: int, n: int) -> Float64[Tensor, "layers heads n n"]:
    """The reinitialised heads with their logits scaled to standard deviation one, head by head."""
    model = minilm_reinitialised(index)
    queries, keys = minilm_queries_keys(text(kind, index), n, model=model)
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


def survey(kinds: tuple[str, ...] = TEXT_KINDS, texts: int = TEXTS_PER_KIND) -> dict[str, Tensor]:
    """k₉₉ by "source/kind": int16 tensors (texts, lengths, layers, heads), lengths as LENGTHS."""
    tables = {}
    for source, measure in SOURCES.items():
        for kind in kinds:
            rows = [
                torch.stack([energy_ranks(measure(kind, index, n)) for n in LENGTHS])
                for index in tqdm(range(texts), desc=f"{source}/{kind}")
            ]
            tables[f"{source}/{kind}"] = torch.stack(rows)
    return tables


def load_survey() -> dict[str, Int16[Tensor, "texts lengths layers heads"]]:
    """The committed survey: k₉₉ by "source/kind" (sources: the keys of SOURCES)."""
    with safe_open(SURVEY, framework="pt") as file:
        return {name: file.get_tensor(name) for name in sorted(file.keys())}


if __name__ == "__main__":
    metadata = {"command": "python -m helpers.survey", "torch": torch.__version__.split("+")[0]}
    save_file(survey(), SURVEY, metadata=metadata)
    sys.exit(0)
