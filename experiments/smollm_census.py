"""Chapter 1's census: how many singular values each of SmolLM2's 270 heads needs (an hour and a half on one core).

The chapter reads the results and measures one text again, live.
"""

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from experiments.store import Experiment
from helpers.data import LONG_KINDS, TEXTS_PER_KIND, long_ids
from helpers.maths import spectrum
from helpers.models import replaced_attention, smollm

LENGTHS = (64, 128, 256, 512, 1024)
DOUBLE_TO = 512
"""Up to this length singular values come from an SVD in double precision. Beyond it their squares are the
eigenvalues of AᵀA in single precision, four times as fast: k₉₉ differs by at most one."""
OTHERS_TO = 256
"""Longest texts on which the other measures are taken."""
MEASURES = ("nuclear_rank", "effective_rank", "stable_rank", "participation_ratio")


def without_first(weights: Float[Tensor, "*batch n n"]) -> Float[Tensor, "*batch m m"]:
    """Attention without the first token, neither as query nor as key; the rows sum to one again."""
    rest = weights[..., 1:, 1:]
    return rest / rest.sum(-1, keepdim=True)


def k99(weights: Float[Tensor, "*batch n n"]) -> Int64[Tensor, "*batch"]:
    """Least number of singular values that hold 99 % of Σσ²."""
    if weights.shape[-1] <= DOUBLE_TO:
        return spectrum(weights.double()).energy_rank(0.99)
    squares = torch.linalg.eigvalsh(weights.mT @ weights).flip(-1).clamp(min=0)
    held = squares.cumsum(-1)
    return (held < 0.99 * held[..., -1:]).sum(-1) + 1


def census(ids: Int64[Tensor, "n"]) -> dict[str, Tensor]:
    """k₉₉ of every head (layers, heads), with and without the first token, its share of the weight, and the median of other measures."""
    found: dict[str, list[Tensor]] = {name: [] for name in ("k99", "k99 without first", "sink")}
    others: dict[str, list[Tensor]] = {name: [] for name in MEASURES}

    def look(_: int, weights: Tensor) -> Tensor:
        heads = weights[0]
        found["k99"].append(k99(heads))
        found["k99 without first"].append(k99(without_first(heads)))
        found["sink"].append((1000 * heads[:, :, 0].mean(-1)).round().int())
        if len(ids) <= OTHERS_TO:
            values = spectrum(heads.double())
            for name in MEASURES:
                measure = getattr(values, name)
                others[name].append(measure() if callable(measure) else measure)
        return weights

    model = smollm().model
    with torch.no_grad(), replaced_attention(model, look):
        model.model(ids[None], use_cache=False)
    row = {name: torch.stack(layers) for name, layers in found.items()}
    medians = {name: torch.stack(layers).median() for name, layers in others.items() if layers}
    return row | medians


def run(kind: str, index: int, n: int) -> dict[str, Tensor]:
    """:func:`census` of one text; "sink" is in thousandths."""
    return census(long_ids(kind, index, n, smollm().tokenizer))


EXPERIMENT = Experiment(
    name="smollm_census",
    measure=run,
    jobs=[
        {"kind": kind, "index": index, "n": n}
        for n in LENGTHS
        for index in range(TEXTS_PER_KIND)
        for kind in LONG_KINDS
    ],
    settings={"fraction": 0.99, "double precision up to": DOUBLE_TO},
)


def load_census() -> dict[str, dict[tuple[str, int], Tensor]]:
    """Measure → (kind, n) → (texts, layers, heads), or (texts,) for the medians of other measures."""
    tables: dict = {}
    for job, row in EXPERIMENT.load():
        for name, values in row.items():
            place = tables.setdefault(name, {}).setdefault((job["kind"], job["n"]), [])
            place.append(torch.tensor(values))
    return {
        name: {place: torch.stack(rows) for place, rows in table.items()}
        for name, table in tables.items()
    }
