"""The bench of prefixes: what it reads and asks, and one stored row measured again."""

import pytest
import torch

from experiments import prefix_bench
from helpers.models import smollm


@pytest.mark.parametrize("name", prefix_bench.PREFIXES)
def test_the_facts_stand_in_the_prefix_and_what_follows_does_not(name):
    ids, following, right = prefix_bench.text_ids(name)
    assert len(ids) == prefix_bench.N
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
    assert torch.tensor(
        [rows["full"]["answers"] - rows["none"]["answers"] > 0.4 for rows in stored.values()]
    ).all()
