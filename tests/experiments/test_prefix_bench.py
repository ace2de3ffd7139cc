"""The bench of prefixes and its hard layers: what they read and ask, and one stored row measured again."""

import pytest
import torch

from experiments import prefix_bench, prefix_heads
from experiments.prefix_rivals import window
from helpers.models import read_prefix, smollm


@pytest.mark.parametrize("name", [*prefix_bench.PREFIXES, *prefix_bench.LONG])
def test_the_facts_stand_in_the_prefix_and_what_follows_does_not(name):
    ids, following, right = prefix_bench.text_ids(name)
    assert len(ids) == (prefix_bench.LONG_N if name in prefix_bench.LONG else prefix_bench.N)
    assert len(following) == prefix_bench.NEXT
    text = smollm().tokenizer.decode(ids)
    for (fact, choices), place in zip(prefix_bench.FACTS.items(), right, strict=True):
        stands = [fact.format(choice) in text for choice in choices]
        assert stands == [i == place for i in range(prefix_bench.CHOICES)]
        first = [smollm().tokenizer(f" {choice}").input_ids[0] for choice in choices]
        assert len(set(first)) == len(choices)


def test_rows_are_stored_and_one_is_measured_again():
    stored = prefix_bench.load_prefixes()
    assert list(stored) == list(prefix_bench.PREFIXES)
    row = stored["dialogue"]["window, n/16"]
    again = prefix_bench.run("dialogue", "window, n/16")
    for name in ("next", "next, KL", "recall", "recall, KL"):
        assert again[name] == pytest.approx(row[name], rel=0.02)
    assert abs(again["answers"] - row["answers"]) <= 1 / 8
    assert (again["bytes"], again["tokens"]) == (row["bytes"], row["tokens"])
    long = prefix_bench.load_prefixes(prefix_bench.LONG)
    assert all(set(prefix_bench.LONG_ARMS) <= set(rows) for rows in long.values())
    assert torch.tensor(
        [rows["full"]["answers"] - rows["none"]["answers"] > 0.4 for rows in stored.values()]
    ).all()


def test_budgets_by_head_are_few_where_weight_is_gathered():
    """A head whose queries all look at one key gets the least; the budgets' mean is what was asked for."""
    n, d = 64, 8
    spread, gathered = torch.zeros(n, d), torch.zeros(n, d)
    gathered[3] = 100.0
    keys = torch.stack([spread, gathered])
    layer = (keys, keys, 1.0)
    reading = prefix_bench.ReadPrefix(None, torch.arange(n), [layer], torch.zeros(3))
    reading.__dict__["questions"] = [(torch.ones(2, 2, 16, d), None)]
    budgets = prefix_bench.by_head(reading, 16)
    assert budgets[0, 0] > 10 * budgets[0, 1] >= 10
    assert 15 <= budgets.double().mean() <= 16


def test_half_of_one_layer_and_as_many_tokens_in_the_mean():
    keys = torch.zeros(2, 40, 3)
    reading = prefix_bench.ReadPrefix(None, torch.arange(40), [(keys, keys, 1.0)] * 5, keys[0, 0])
    assert prefix_bench.half_of(2, reading, 8).tolist() == [5, 20, 5, 5, 5]


# --- Which layers and heads are hard (prefix_heads) -----------------------------------------------------


def test_whole_prefixes_have_no_error_and_fewer_keys_have_some(monkeypatch):
    ids, following, right = prefix_bench.text_ids("dialogue")
    short = ids[:128], following[:32], right
    monkeypatch.setattr(prefix_heads, "text_ids", lambda name: short)
    reading = read_prefix(smollm().model, short[0])
    full = reading.compact(method="full")
    assert prefix_heads.head_errors(full, "dialogue").max() < 2e-3  # float16
    few = prefix_heads.head_errors(window(reading, 8), "dialogue")
    assert few.shape == (30, 9)
    assert few.median() > 0.01


def test_stored_rows_agree_on_the_hardest_layer():
    rows = prefix_heads.load_results()
    assert set(rows) == set(prefix_heads.NAMES)
    for row in rows.values():
        assert row["errors"].shape == row["k99"].shape == row["sink"].shape == (30, 9)
        assert int(row["recall"].argmax()) + 1 == 19
        assert float(row["recall"].max() / row["recall"].sum()) > 0.5
