"""Which layers and heads are hard: what is compared, and the stored rows."""

from experiments import prefix_heads
from experiments.prefix_bench import read
from experiments.prefix_rivals import window


def test_whole_prefixes_have_no_error_and_fewer_keys_have_some():
    reading = read("dialogue")[0]
    full = reading.compact(method="full")
    assert prefix_heads.head_errors(full, "dialogue").max() < 2e-3  # float16
    few = prefix_heads.head_errors(window(reading, 64), "dialogue")
    assert few.shape == (30, 9)
    assert few.median() > 0.01


def test_stored_rows_agree_on_the_hardest_layer():
    rows = prefix_heads.load_results()
    assert set(rows) == set(prefix_heads.NAMES)
    for row in rows.values():
        assert row["errors"].shape == row["k99"].shape == row["sink"].shape == (30, 9)
        assert int(row["recall"].argmax()) + 1 == 19
        assert float(row["recall"].max() / row["recall"].sum()) > 0.5
