"""The bench of chapter 4: whose queries are whose, errors against numpy, the stored tables."""

import numpy as np
import pytest
import torch

from experiments import landmark_errors
from experiments.decoder import load_decoder, windows
from experiments.landmark_errors import (
    BENCHED,
    RANKS,
    decoder_prefix,
    errors,
    gaussian_heads,
    load_bench,
    minilm_document,
    relative_error,
    run,
    weight_errors,
)
from experiments.rivals import ORACLES
from helpers.data import TEXTS_PER_KIND, heldout_text, text
from helpers.maths import attention_weights, gaussian
from helpers.models import minilm_tokens


def small(heads=3, n=12, d=4):
    """A problem of a few heads in the form of the bench."""
    rows = {"keys": n, "values": n, "fit": 40, "held-out": 10}
    return {
        name: gaussian(heads, count, d, seed=0, stream=name).float() for name, count in rows.items()
    }


def test_a_documents_queries_come_from_other_texts(monkeypatch):
    asked = []

    def heads_of(_, ids):
        """Rows of the text asked for as number i hold i, plus 100 for keys and 200 for values."""
        asked.append(ids)
        rows = torch.full((6, 12, 5, 2), float(len(asked) - 1))
        return rows, 100 + rows, 200 + rows

    monkeypatch.setattr(landmark_errors, "queries_keys_values", heads_of)
    data = minilm_document(3)
    expected = [minilm_tokens(text("prose", i), 512) for i in range(TEXTS_PER_KIND)]
    assert len(asked) == len(expected)
    assert all(map(torch.equal, asked, expected))
    found = {name: set(part.unique().tolist()) for name, part in data.items()}
    assert found == {
        "keys": {103},
        "values": {203},
        "fit": {0, 1, 2, 4, 5, 6, 7},
        "held-out": {8, 9},
    }
    assert {part.shape[0] for part in data.values()} == {72}


def test_the_queries_after_a_prefix_come_from_other_windows():
    data, decoder = decoder_prefix(), load_decoder()
    tokens = windows(heldout_text(), 256, 41)[:, :-1]
    with torch.no_grad():
        queries, keys, values = decoder.heads(tokens[[0, 1, 33]])
    near = {"atol": 1e-4, "rtol": 1e-4}
    for head in (0, 15):
        place = divmod(head, queries.shape[2])
        torch.testing.assert_close(data["keys"][head], keys[0][place][:128].float(), **near)
        torch.testing.assert_close(data["values"][head], values[0][place][:128].float(), **near)
        for name, window in (("fit", 1), ("held-out", 2)):
            later = queries[window][place][128:].float()
            torch.testing.assert_close(data[name][head, :128], later, **near)


@pytest.mark.parametrize("sharpness", [0.5, 4.0])
def test_gaussian_logits_have_the_stated_deviation(sharpness):
    data = gaussian_heads(sharpness)
    logits = data["held-out"] @ data["keys"].mT / 32**0.5
    assert float(logits.std()) == pytest.approx(sharpness, rel=0.02)
    assert not torch.equal(data["fit"][:, :1024], data["held-out"])


def test_relative_error_is_numpys():
    outputs, exact = gaussian(2, 3, 5, 4, seed=0).unbind()
    expected = np.linalg.norm((outputs - exact).numpy(), axis=(-2, -1))
    expected /= np.linalg.norm(exact.numpy(), axis=(-2, -1))
    np.testing.assert_allclose(relative_error(outputs, exact), expected, rtol=1e-12)


def test_errors_of_the_weights_are_those_of_the_best_low_rank_matrix():
    data = small(heads=5)
    sigma = torch.linalg.svdvals(attention_weights(data["held-out"], data["keys"]))
    expected = sigma[:, 3:].norm(dim=-1) / sigma.norm(dim=-1)
    for heads_at_once in (2, 12):
        found = weight_errors(data, "truncated svd", 3, heads_at_once)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4, check_dtype=False)


@pytest.mark.parametrize("method", [name for name in BENCHED if name != "learned"])
def test_a_method_knows_the_held_out_queries_only_if_it_is_an_oracle(method):
    data = small()
    other = {**data, "held-out": gaussian(3, 10, 4, seed=1).float()}
    both = {
        name: torch.cat([data[name], other[name]], 1) if name == "held-out" else part
        for name, part in data.items()
    }
    apart = [errors(part, method, 3) for part in (data, other)]
    together = errors(both, method, 3)
    between = (together >= torch.minimum(*apart) - 1e-5) & (
        together <= torch.maximum(*apart) + 1e-5
    )
    assert between.all() or method in ORACLES


def test_a_run_on_a_tiny_source(monkeypatch):
    monkeypatch.setattr(landmark_errors, "data_of", {"tiny": small()}.get)
    found = run("tiny", "fitted values", 3, "outputs", 20)
    few = {**small(), "fit": small()["fit"][:, :20]}
    torch.testing.assert_close(found, errors(few, "fitted values", 3))
    assert not torch.allclose(found, run("tiny", "fitted values", 3, "outputs", None))
    of_weights = run("tiny", "k-means", 3, "weights", None)
    torch.testing.assert_close(of_weights, weight_errors(small(), "k-means", 3))


def test_stored_errors_fall_with_the_rank_and_the_learned_ones_lie_below_a_constant():
    tables = load_bench()
    heads = {"MiniLM": 72, "decoder": 16, "Gaussian": 10}
    learned, constant, best = (
        BENCHED.index(name) for name in ("learned", "constant", "output rank")
    )
    for name, table in tables.items():
        assert table.isfinite().all()
        assert (table >= 0).all()
        source = name.split("/")[0]
        if source in heads:
            assert table.shape == (len(RANKS[source]), len(BENCHED), heads[source])
            medians = table.quantile(0.5, dim=-1)
            assert (medians[:, learned] < medians[:, constant]).all()
            assert (medians[:, best].diff() < 1e-5).all()  # 0 where the rank is the width
            assert (table[:, best] <= table[:, learned] + 1e-4).all()
    assert tables["weights"].shape == (len(BENCHED), 72)
    assert tables["fitting queries"].shape[::2] == (len(RANKS["MiniLM"]), 72)


@pytest.mark.parametrize("method", ["constant", "heavy keys", "segment means", "output rank"])
def test_a_stored_error_measured_again(method):
    """Methods whose answer leaves rounding no choice: no cluster and no descent."""
    stored = load_bench()["Gaussian/2"][1, BENCHED.index(method), :3]
    data = {name: part[:3] for name, part in gaussian_heads(2.0).items()}
    again = errors(data, method, RANKS["Gaussian"][1])
    torch.testing.assert_close(again, stored, atol=1e-3, rtol=1e-3)
