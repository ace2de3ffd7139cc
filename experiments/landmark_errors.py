"""Chapter 4's bench: seventeen methods on held-out queries (three quarters of an hour on one core).

Its evidence reads the results and repeats a smaller instance live.
"""

from functools import cache

import torch
from jaxtyping import Float, Float32
from torch import Tensor

from experiments.decoder import load_decoder, windows
from experiments.rivals import ORACLES, compress
from experiments.store import Experiment
from helpers.data import TEXTS_PER_KIND, heldout_text, text
from helpers.maths import attention, gaussian
from helpers.models import minilm, minilm_tokens, queries_keys_values

RANKS = {"MiniLM": (16, 32, 64, 128), "decoder": (4, 8, 16, 32), "Gaussian": (16, 32, 64, 128)}
DOCUMENTS = (0, 1)
SHARPNESS = (0.5, 1.0, 2.0, 4.0)
WEIGHTS_RANK = 32
FITTING = (128, 512, 1536, 3584)
BENCHED = (
    *("constant", "heavy keys", "window", "expected attention", "segment means", "k-means"),
    *("linformer", "nystrom", "nystrom, exact", "performer", "note", "fitted values"),
    *("learned", "landmarks", *ORACLES),
)
"""Methods of the bench, in the order of its tables."""

Heads = tuple[Float32[Tensor, "heads m d"], ...]


def minilm_document(index: int) -> dict[str, Float32[Tensor, "heads rows d"]]:
    """Keys and values of prose text ``index`` in all 72 heads, and two sets of queries for them.

    "fit" are those of seven other texts, "held-out" of two more.
    """
    heads = [
        [part.flatten(0, 1).float() for part in queries_keys_values(minilm(), ids)]
        for ids in (minilm_tokens(text("prose", i), 512) for i in range(TEXTS_PER_KIND))
    ]
    _, keys, values = heads[index]
    others = [queries for i, (queries, _, _) in enumerate(heads) if i != index]
    fit, held_out = torch.cat(others[:7], -2), torch.cat(others[7:], -2)
    return {"keys": keys, "values": values, "fit": fit, "held-out": held_out}


def decoder_prefix(prefix: int = 128) -> dict[str, Float32[Tensor, "heads rows d"]]:
    """The trained decoder: keys and values of a prefix, queries of the places after it.

    The prefix is that of one window of held-out text; the queries come from the second halves of
    forty others. A causal mask lets all of them see the whole prefix.
    """
    tokens = windows(heldout_text(), 256, 41)[:, :-1]
    queries, keys, values = (part.flatten(1, 2).float() for part in load_decoder().heads(tokens))
    later = queries[1:, :, prefix:].transpose(0, 1).flatten(1, 2)
    return {
        "keys": keys[0, :, :prefix],
        "values": values[0, :, :prefix],
        "fit": later[:, : 32 * prefix],
        "held-out": later[:, 32 * prefix :],
    }


def gaussian_heads(sharpness: float) -> dict[str, Float32[Tensor, "heads rows d"]]:
    """Ten heads of Gaussian queries, keys and values (n = 512, d = 32), logits of that deviation."""
    queries, keys, values = (
        torch.stack([gaussian(rows, 32, seed=seed, stream=name) for seed in range(10)]).float()
        for name, rows in (("queries", 4608), ("keys", 512), ("values", 512))
    )
    queries = sharpness * queries
    return {
        "keys": keys,
        "values": values,
        "fit": queries[:, :3584],
        "held-out": queries[:, 3584:],
    }


def relative_error(
    outputs: Float[Tensor, "*batch m w"], exact: Float[Tensor, "*batch m w"]
) -> Float[Tensor, "*batch"]:
    """‖Ô − O‖_F/‖O‖_F of each head."""
    return torch.linalg.matrix_norm(outputs - exact) / torch.linalg.matrix_norm(exact)


def errors(data: dict[str, Tensor], method: str, rank: int) -> Float[Tensor, "heads"]:
    """Relative output error on the held-out queries; an oracle is given the very queries."""
    queries, keys, values = (data[name] for name in ("held-out", "keys", "values"))
    given = queries if method in ORACLES else data["fit"]
    if method == "note":
        # It needs an SVD of A for all given queries: a quarter of them is enough. In single precision
        # its rank, and with it its error, hangs on rounding.
        queries, keys, values, given = (x.double() for x in (queries, keys, values, given[:, ::4]))
    answer = compress(method, given, keys, values, rank, progress=False)
    return relative_error(answer.attend(queries).outputs, attention(queries, keys, values))


def weight_errors(
    data: dict[str, Tensor], method: str, rank: int, heads_at_once: int = 12
) -> Float[Tensor, "heads"]:
    """Relative error of A itself on the held-out queries: that of the outputs for V = I."""
    found = []
    for part in zip(*(rows.split(heads_at_once) for rows in data.values()), strict=True):
        some = dict(zip(data, part, strict=True))
        heads, n = some["keys"].shape[:2]
        some["values"] = torch.eye(n).to(some["keys"]).expand(heads, n, n)
        found.append(errors(some, method, rank))
    return torch.cat(found)


@cache
def data_of(source: str) -> dict[str, Float32[Tensor, "heads rows d"]]:
    """The data of a source: "MiniLM/0", "decoder" or "Gaussian/0.5", say."""
    kind, _, which = source.partition("/")
    if kind == "MiniLM":
        return minilm_document(int(which))
    return decoder_prefix() if kind == "decoder" else gaussian_heads(float(which))


def run(
    source: str, method: str, rank: int, of: str, fitting: int | None
) -> Float[Tensor, "heads"]:
    """Errors of the "outputs" or the "weights", fitted to the first ``fitting`` queries or to all."""
    torch.set_flush_denormal(True)  # sharp heads have weights so small that they slow the CPU down
    data = data_of(source)
    if fitting is not None:
        data = {**data, "fit": data["fit"][:, :fitting]}
    return {"outputs": errors, "weights": weight_errors}[of](data, method, rank)


_SOURCES = (
    *(f"MiniLM/{i}" for i in DOCUMENTS),
    "decoder",
    *(f"Gaussian/{t:g}" for t in SHARPNESS),
)
_JOBS = [
    (source, method, rank, "outputs", None)
    for source in _SOURCES
    for rank in RANKS[source.split("/")[0]]
    for method in BENCHED
]
_JOBS += [("MiniLM/0", method, WEIGHTS_RANK, "weights", None) for method in BENCHED]
_JOBS += [
    ("MiniLM/0", "learned", rank, "outputs", count) for rank in RANKS["MiniLM"] for count in FITTING
]
EXPERIMENT = Experiment(
    name="landmark_errors",
    measure=run,
    jobs=[
        dict(zip(("source", "method", "rank", "of", "fitting"), job, strict=True)) for job in _JOBS
    ],
    settings={"documents": DOCUMENTS},
)


def load_bench() -> dict[str, Float[Tensor, "..."]]:
    """Errors by source, (ranks, methods, heads) in the order of RANKS and BENCHED.

    "weights" holds the errors of A, (methods, heads); "fitting queries" those of learned landmarks
    by the number of queries in the fit, (ranks, FITTING, heads).
    """
    found = {tuple(job.values()): torch.tensor(row) for job, row in EXPERIMENT.load()}
    rows = [found[job] for job in _JOBS]
    tables, at = {}, 0
    for source in _SOURCES:
        ranks = len(RANKS[source.split("/")[0]])
        part = torch.stack(rows[at : at + ranks * len(BENCHED)])
        tables[source] = part.unflatten(0, (ranks, len(BENCHED)))
        at += len(part)
    tables["weights"] = torch.stack(rows[at : at + len(BENCHED)])
    tables["fitting queries"] = torch.stack(rows[at + len(BENCHED) :]).unflatten(
        0, (len(RANKS["MiniLM"]), len(FITTING))
    )
    return tables
