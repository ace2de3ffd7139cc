"""Chapter 4's bench: every method of ``helpers.low_rank`` on held-out queries, and the time it takes.

``python -m helpers.compression`` (about half an hour on two cores) writes ``helpers/data/landmark_errors.safetensors``
and ``helpers/data/landmark_times.json``. The chapter reads them and repeats a smaller instance live.
"""

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from jaxtyping import Float, Float32
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from tqdm.auto import tqdm

from helpers.data import TEXTS_PER_KIND, heldout_text, text, windows
from helpers.layers import METHODS, ORACLES, Landmarks, compress
from helpers.maths import attention, gaussian
from helpers.models import load_decoder, minilm_heads

RANKS = {"MiniLM": (16, 32, 64, 128), "decoder": (4, 8, 16, 32), "Gaussian": (16, 32, 64, 128)}
DOCUMENTS = (0, 1)
SHARPNESS = (0.5, 1.0, 2.0, 4.0)
WEIGHTS_RANK = 32
FITTING = (128, 512, 1536, 3584)
LENGTHS = (512, 1024, 2048, 4096, 8192, 16384)
WARM_UP = 5
FOLDER = Path(__file__).parent / "results"

Heads = tuple[Float32[Tensor, "heads m d"], ...]


def minilm_document(index: int) -> dict[str, Float32[Tensor, "heads rows d"]]:
    """Keys and values of prose text ``index`` in all 72 heads, and two sets of queries for them.

    "fit" are those of seven other texts, "held-out" of two more.
    """
    heads = [
        [part.flatten(0, 1).float() for part in minilm_heads(text("prose", i), 512)]
        for i in range(TEXTS_PER_KIND)
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
        torch.stack([gaussian(rows, 32, seed=100 * seed + i) for seed in range(10)]).float()
        for i, rows in enumerate((4608, 512, 512))
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
    if method == "note":  # needs an SVD of A for all given queries; a quarter of them is enough
        given = given[:, ::4]
    answer = compress(method, given, keys, values, rank, progress=False)
    return relative_error(answer.attend(queries), attention(queries, keys, values))


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


def bench() -> dict[str, Tensor]:
    """Errors by source, (ranks, methods, heads) in the order of RANKS and METHODS.

    "weights" holds the errors of A, (methods, heads); "fitting queries" those of learned landmarks
    by the number of queries in the fit, (ranks, FITTING, heads).
    """
    sources: dict[str, Callable[[], dict[str, Tensor]]] = {
        f"MiniLM/{i}": partial(minilm_document, i) for i in DOCUMENTS
    }
    sources["decoder"] = decoder_prefix
    sources |= {f"Gaussian/{t:g}": partial(gaussian_heads, t) for t in SHARPNESS}
    tables = {}
    for source, make in sources.items():
        data = make()
        rows = [
            torch.stack([errors(data, method, rank) for method in METHODS])
            for rank in tqdm(RANKS[source.split("/")[0]], desc=source)
        ]
        tables[source] = torch.stack(rows)
    data = minilm_document(0)
    tables["weights"] = torch.stack(
        [weight_errors(data, method, WEIGHTS_RANK) for method in tqdm(METHODS, desc="weights")]
    )
    tables["fitting queries"] = torch.stack(
        [
            torch.stack(
                [
                    errors({**data, "fit": data["fit"][:, :count]}, "learned", rank)
                    for count in FITTING
                ]
            )
            for rank in RANKS["MiniLM"]
        ]
    )
    return tables


def peak_memory(run: Callable[[], Tensor]) -> int:
    """Most bytes that ``run`` holds at once beyond what existed before, its result included."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profile:
        result = run()  # kept alive until the profile ends
    with tempfile.TemporaryDirectory() as folder:
        profile.export_chrome_trace(path := f"{folder}/trace.json")
        events = json.loads(Path(path).read_text(encoding="utf-8"))["traceEvents"]
    del result
    changes = [(e["ts"], e["args"]["Bytes"]) for e in events if e.get("name") == "[memory]"]
    held = peak = 0
    for _, change in sorted(changes, key=lambda pair: pair[0]):
        held += change
        peak = max(peak, held)
    return peak


def timings(rank: int = 64, repeats: int = 7, heads: int = 4, width: int = 64) -> dict[str, list]:
    """Seconds and bytes of exact and of compressed attention for 1024 queries, by the number of keys n.

    "unfused" is exact too, but forms all of A. Seconds: median, smallest and largest of ``repeats``
    runs; all run in turn, so that a busy machine hits all. Bytes: of the keys, values and biases that
    must be kept, and the peak while attending.
    """
    names = ("exact", "unfused", "landmarks")
    table: dict[str, list] = {name + what: [] for name in names for what in ("", " kept", " peak")}
    table["n"] = list(LENGTHS)
    # torch's fused attention, the fast one, needs four axes; with three it would form all of A.
    queries = gaussian(1, heads, 1024, width, seed=0).float()
    for n in LENGTHS:
        keys, values = gaussian(2, 1, heads, n, width, seed=1).float()
        bias = torch.zeros(1, heads, rank)
        small = Landmarks("timing", keys[..., :rank, :], values[..., :rank, :], bias, width**-0.5)
        runs = {
            "exact": partial(nn.functional.scaled_dot_product_attention, queries, keys, values),
            "unfused": partial(attention, queries, keys, values),
            "landmarks": partial(small.attend, queries),
        }
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for repeat in range(WARM_UP + repeats):
            for name, run in runs.items():
                start = time.perf_counter()
                run()
                if repeat >= WARM_UP:
                    seconds[name].append(time.perf_counter() - start)
        kept = dict.fromkeys(runs, (keys, values))
        kept["landmarks"] = (small.keys, small.values, small.bias)
        for name, measured in seconds.items():
            table[name].append([statistics.median(measured), min(measured), max(measured)])
            table[f"{name} kept"].append(sum(part.numel() * part.itemsize for part in kept[name]))
            table[f"{name} peak"].append(peak_memory(runs[name]))
    return table


def fitting_time(rank: int) -> dict[str, float]:
    """Seconds to fit learned landmarks for the 72 heads of a document, and to attend exactly once."""
    data = minilm_document(0)
    start = time.perf_counter()
    compress("learned", data["fit"], data["keys"], data["values"], rank)
    fitted = time.perf_counter()
    nn.functional.scaled_dot_product_attention(
        *(data[name][None] for name in ("fit", "keys", "values"))
    )
    return {"fit": fitted - start, "exact": time.perf_counter() - fitted}


def load_bench() -> tuple[dict[str, Float32[Tensor, "..."]], dict]:
    """The committed errors (see :func:`bench`) and timings."""
    measured = json.loads((FOLDER / "landmark_times.json").read_text(encoding="utf-8"))
    return load_file(FOLDER / "landmark_errors.safetensors"), measured


if __name__ == "__main__":
    torch.set_flush_denormal(True)  # sharp heads have weights so small that they slow the CPU down
    measured = {
        "command": "python -m helpers.compression",
        "timings": timings(),
        "fitting": {str(rank): fitting_time(rank) for rank in (16, 64)},
    }
    save_file(
        {k: v.contiguous().float() for k, v in bench().items()},
        FOLDER / "landmark_errors.safetensors",
    )
    rounded = json.loads(json.dumps(measured), parse_float=lambda t: float(f"{float(t):.3g}"))
    (FOLDER / "landmark_times.json").write_text(json.dumps(rounded) + "\n", encoding="utf-8")
