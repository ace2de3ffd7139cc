"""The bench of chapter 4: whose queries are whose, errors by hand, bytes and seconds, the stored tables."""

import itertools
import json
import statistics
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from experiments import landmark_errors as compression
from experiments.landmark_errors import (
    FITTING,
    RANKS,
    bench,
    decoder_prefix,
    errors,
    fitting_time,
    gaussian_heads,
    load_bench,
    minilm_document,
    peak_memory,
    relative_error,
    timings,
    weight_errors,
)
from helpers.data import TEXTS_PER_KIND, heldout_text, text, windows
from helpers.layers import METHODS, ORACLES, compress
from helpers.maths import attention, attention_weights, gaussian
from helpers.models import load_decoder


def small(heads=3, n=12, d=4):
    """A problem of a few heads in the form of the bench."""
    rows = {"keys": n, "values": n, "fit": 40, "held-out": 10}
    return {
        name: gaussian(heads, count, d, seed=seed).float()
        for seed, (name, count) in enumerate(rows.items())
    }


# Data


def test_a_documents_queries_come_from_the_other_texts(monkeypatch):
    asked = []

    def heads_of(string, tokens):
        asked.append(string)
        assert tokens == 512
        # Rows of text i hold i, plus 100 for keys and 200 for values; head (l, h) adds .01·(12l + h).
        head = torch.arange(72.0).reshape(6, 12, 1, 1) / 100
        rows = torch.ones(5, 2) * float(len(asked) - 1)
        return rows + head, 100 + rows + head, 200 + rows + head

    monkeypatch.setattr(compression, "minilm_heads", heads_of)
    data = minilm_document(3)
    assert asked == [text("prose", i) for i in range(TEXTS_PER_KIND)]
    heads = torch.arange(72.0)[:, None] / 100

    def numbers(name):
        assert data[name].dtype == torch.float32
        assert (data[name] == data[name][..., :1]).all()
        return data[name][..., 0] - heads

    torch.testing.assert_close(numbers("keys"), torch.full((72, 5), 103.0), atol=1e-4, rtol=0)
    torch.testing.assert_close(numbers("values"), torch.full((72, 5), 203.0), atol=1e-4, rtol=0)
    others = [i for i in range(TEXTS_PER_KIND) if i != 3]
    for name, texts in (("fit", others[:7]), ("held-out", others[7:])):
        expected = torch.tensor(texts).repeat_interleave(5).expand(72, -1).float()
        torch.testing.assert_close(numbers(name), expected, atol=1e-4, rtol=0)


def test_the_queries_after_a_prefix_come_from_other_windows():
    data, decoder = decoder_prefix(), load_decoder()
    tokens = windows(heldout_text(), 256, 41)[:, :-1]
    with torch.no_grad():
        queries, keys, values = decoder.heads(tokens[[0, 1, 33]])
    layers, heads, d = queries.shape[1], queries.shape[2], queries.shape[-1]
    assert {part.dtype for part in data.values()} == {torch.float32}
    assert data["fit"].shape == (layers * heads, 32 * 128, d)
    assert data["held-out"].shape == (layers * heads, 8 * 128, d)
    last = heads - 1
    for layer in range(layers):
        head = layer * heads + last
        near = {"atol": 1e-4, "rtol": 1e-4}
        torch.testing.assert_close(data["keys"][head], keys[0, layer, last, :128].float(), **near)
        torch.testing.assert_close(
            data["values"][head], values[0, layer, last, :128].float(), **near
        )
        later = queries[:, layer, last, 128:].float()
        torch.testing.assert_close(data["fit"][head, :128], later[1], **near)
        torch.testing.assert_close(data["held-out"][head, :128], later[2], **near)


@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_gaussian_logits_have_the_stated_deviation(sharpness):
    data = gaussian_heads(sharpness)
    sizes = {name: tuple(part.shape) for name, part in data.items()}
    assert sizes == {
        "keys": (10, 512, 32),
        "values": (10, 512, 32),
        "fit": (10, 3584, 32),
        "held-out": (10, 1024, 32),
    }
    assert {part.dtype for part in data.values()} == {torch.float32}
    for head in (0, 9):
        queries = sharpness * gaussian(4608, 32, seed=100 * head).float()
        assert torch.equal(torch.cat([data["fit"][head], data["held-out"][head]]), queries)
        assert torch.equal(data["keys"][head], gaussian(512, 32, seed=100 * head + 1).float())
        assert torch.equal(data["values"][head], gaussian(512, 32, seed=100 * head + 2).float())
    logits = data["held-out"] @ data["keys"].mT / 32**0.5
    assert float(logits.std()) == pytest.approx(sharpness, rel=0.02)


# Errors


def test_relative_error_is_numpys():
    outputs, exact = gaussian(2, 3, 5, 4, seed=0), gaussian(2, 3, 5, 4, seed=1)
    size = np.linalg.norm(exact.numpy(), axis=(-2, -1))
    expected = np.linalg.norm((outputs - exact).numpy(), axis=(-2, -1)) / size
    np.testing.assert_allclose(relative_error(outputs, exact), expected, rtol=1e-12)


@pytest.mark.parametrize("method", [method for method in METHODS if method != "learned"])
def test_errors_are_those_on_held_out_queries(method):
    data = small()
    keys, values, queries = data["keys"], data["values"], data["held-out"]
    exact = attention_weights(queries, keys) @ values
    given = queries if method in ORACLES else data["fit"]
    given = given[:, ::4] if method == "note" else given
    answer = compress(method, given, keys, values, 3).attend(queries)
    expected = (answer - exact).norm(dim=(-2, -1)) / exact.norm(dim=(-2, -1))
    torch.testing.assert_close(errors(data, method, 3), expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("heads_at_once", [1, 2, 12])
def test_errors_of_the_weights_are_those_of_outputs_with_values_that_are_the_identity(
    heads_at_once,
):
    data = small(heads=5)
    found = weight_errors(data, "k-means", 3, heads_at_once)
    expected = errors({**data, "values": torch.eye(12).expand(5, 12, 12)}, "k-means", 3)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)
    # The best A_e of rank e has an error that the singular values give.
    best = weight_errors(data, "truncated svd", 3)
    sigma = torch.linalg.svdvals(attention_weights(data["held-out"], data["keys"]))
    expected = sigma[:, 3:].norm(dim=-1) / sigma.norm(dim=-1)
    torch.testing.assert_close(best, expected, atol=1e-5, rtol=1e-4)


def test_the_bench_measures_every_method_rank_and_source(monkeypatch):
    def document(index):
        return {name: part + index / 10 for name, part in small().items()}

    def briefly(method, *arguments, **options):
        return compress(
            method, *arguments, **options, **({"steps": 2} if method == "learned" else {})
        )

    monkeypatch.setattr(compression, "compress", briefly)
    monkeypatch.setattr(compression, "minilm_document", document)
    monkeypatch.setattr(compression, "decoder_prefix", lambda: small(2))
    monkeypatch.setattr(
        compression, "gaussian_heads", lambda sharpness: small(1, d=int(2 * sharpness))
    )
    ranks = {"MiniLM": (2, 5), "decoder": (3,), "Gaussian": (1, 4)}
    methods = ("constant", "k-means", "truncated svd")
    for name, value in (
        ("RANKS", ranks),
        ("METHODS", {name: METHODS[name] for name in methods}),
        ("FITTING", (5, 40)),
        ("WEIGHTS_RANK", 4),
    ):
        monkeypatch.setattr(compression, name, value)
    tables = bench()
    shapes = {name: tuple(table.shape) for name, table in tables.items()}
    assert shapes == {
        "MiniLM/0": (2, 3, 3),
        "MiniLM/1": (2, 3, 3),
        "decoder": (1, 3, 2),
        **{f"Gaussian/{t}": (2, 3, 1) for t in ("0.5", "1", "2", "4")},
        "weights": (3, 3),
        "fitting queries": (2, 2, 3),
    }
    for source, data in (
        ("MiniLM/1", document(1)),
        ("decoder", small(2)),
        ("Gaussian/2", small(1, d=4)),
    ):
        for i, rank in enumerate(ranks[source.split("/")[0]]):
            for j, method in enumerate(methods):
                assert torch.equal(tables[source][i, j], errors(data, method, rank))
    assert torch.equal(tables["weights"][1], weight_errors(document(0), "k-means", 4))
    few = {**document(0), "fit": document(0)["fit"][:, :5]}
    assert torch.equal(tables["fitting queries"][1, 0], errors(few, "learned", 5))
    assert torch.equal(tables["fitting queries"][0, 1], errors(document(0), "learned", 2))


# Bytes and seconds


def test_the_peak_counts_what_is_held_at_once():
    kept = torch.ones(1000)

    def two_at_once():
        first = torch.ones(1000)  # 4000 bytes
        second = torch.ones(3000)  # 12000 more
        del first, second
        return torch.ones(2000)

    assert peak_memory(two_at_once) == 16000
    assert peak_memory(lambda: kept) == 0
    assert peak_memory(lambda: torch.ones(500, dtype=torch.float64)) == 4000


def test_timings_of_short_sequences(monkeypatch):
    monkeypatch.setattr(compression, "LENGTHS", (16, 48))
    squares = (
        k * k for k in itertools.count()
    )  # two readings in turn, k and k + 1, differ by 2k + 1
    clock = SimpleNamespace(perf_counter=lambda: next(squares))
    monkeypatch.setattr(compression, "time", clock)
    table = timings(rank=4, repeats=3, heads=2, width=8)
    assert table["n"] == [16, 48]
    for k, n in enumerate((16, 48)):
        for place, name in enumerate(("exact", "unfused", "landmarks")):
            # All run in turn. Five rounds warm up, one reading each; then three count, with two.
            readings = [33 * k + 15 + 2 * (3 * repeat + place) for repeat in range(3)]
            rounds = [2 * reading + 1 for reading in readings]
            expected = [statistics.median(rounds), min(rounds), max(rounds)]
            assert table[name][k] == expected
        assert table["exact kept"][k] == table["unfused kept"][k] == 4 * 2 * n * 8 * 2
        assert table["landmarks kept"][k] == 4 * 2 * 4 * (8 + 8 + 1)
        # All of A, in single precision, is part of what the unfused form holds.
        assert table["unfused peak"][k] >= 4 * 2 * 1024 * n
        assert table["landmarks peak"][k] < table["unfused peak"][k] + 4 * 2 * 1024 * (4 + 8) * 2
    assert table["landmarks peak"][0] == table["landmarks peak"][1]


def test_the_time_of_a_fit_and_of_exact_attention(monkeypatch):
    monkeypatch.setattr(compression, "minilm_document", {0: small()}.get)
    ticks = iter((10.0, 12.5, 13.0))
    seen = {}

    def fit(*arguments):
        seen["arguments"] = arguments
        return compress(*arguments, steps=1)

    monkeypatch.setattr(compression, "compress", fit)
    clock = SimpleNamespace(perf_counter=lambda: next(ticks))
    monkeypatch.setattr(compression, "time", clock)
    assert fitting_time(3) == {"fit": 2.5, "exact": 0.5}
    method, *parts, rank = seen["arguments"]
    assert (method, rank) == ("learned", 3)
    for part, name in zip(parts, ("fit", "keys", "values"), strict=True):
        assert torch.equal(part, small()[name])


# What is stored


def test_the_stored_tables_are_complete():
    tables, measured = load_bench()
    heads = {"MiniLM": 72, "decoder": tables["decoder"].shape[-1], "Gaussian": 10}
    names = ["MiniLM/0", "MiniLM/1", "decoder", *(f"Gaussian/{t}" for t in ("0.5", "1", "2", "4"))]
    assert sorted(tables) == sorted([*names, "weights", "fitting queries"])
    for name in names:
        source = name.split("/")[0]
        assert tables[name].shape == (len(RANKS[source]), len(METHODS), heads[source])
    assert tables["weights"].shape == (len(METHODS), 72)
    assert tables["fitting queries"].shape == (len(RANKS["MiniLM"]), len(FITTING), 72)
    assert all(table.dtype == torch.float32 for table in tables.values())
    assert measured["command"] == "python -m helpers.compression"
    assert measured["timings"]["n"] == list(compression.LENGTHS)
    assert sorted(measured["fitting"]) == ["16", "64"]
    assert json.loads(json.dumps(measured)) == measured


@pytest.mark.parametrize("sharpness", [0.5, 2.0])
def test_stored_errors_measured_again(sharpness):
    # Methods whose answer leaves rounding no choice: no cluster and no descent.
    stored = load_bench()[0][f"Gaussian/{sharpness:g}"]
    data = {name: part[:3] for name, part in gaussian_heads(sharpness).items()}
    for method in ("constant", "heavy keys", "segment means", "linformer", "output rank"):
        again = errors(data, method, RANKS["Gaussian"][1])
        place = list(METHODS).index(method)
        torch.testing.assert_close(again, stored[1, place, :3], atol=1e-3, rtol=1e-3)


def test_exact_attention_is_what_errors_are_relative_to():
    data = small()
    everything = errors(data, "segment means", 12)  # every key its own stretch
    assert everything.max() < 1e-5
    outputs = attention(data["held-out"], data["keys"], data["values"])
    nothing = relative_error(torch.zeros_like(outputs), outputs)
    torch.testing.assert_close(nothing, torch.ones(3))
