"""What the universal layer is given and what it chooses."""

import numpy as np
import pytest
import torch

from experiments import class_choice
from experiments.class_choice import PRICE_SEEDS, PRICES, RIGHT, SEEDS, draw, load_results, run
from helpers.data import cases
from helpers.layers import CLASSES, FLOAT_BITS, choose_classes


def test_a_mixture_is_the_sum_of_its_cases_at_equal_size():
    (inputs, outputs), (tests, clean_tests) = draw("low rank + convolution", 3)
    parts = [make(n=32, samples=64, seed=3) for make in (cases.low_rank, cases.convolution)]
    clean = sum(part.clean / part.clean.square().mean().sqrt() for part in parts)
    torch.testing.assert_close(clean_tests, clean[32:])
    torch.testing.assert_close(torch.cat([inputs, tests]), parts[0].inputs)
    noise = outputs - clean[:32]
    assert float(noise.std() / clean.square().mean().sqrt()) == pytest.approx(0.1, rel=0.03)
    for other in (inputs, clean[:32], *(part.outputs[:32] - part.clean[:32] for part in parts)):
        assert abs(np.corrcoef(noise.flatten(), other.flatten())[0, 1]) < 0.05


@pytest.mark.parametrize("case", RIGHT)
def test_no_layer_starts_at_the_answer(case, monkeypatch):
    """The layer's random start must not come from the stream that made the operator."""

    class SeenError(Exception):
        pass

    def at_the_start(layer, inputs, outputs, **_):
        parts = zip(layer.classes, layer.parts(inputs).detach(), strict=True)
        raise SeenError(
            {name: float((x * outputs).sum() / x.norm() / outputs.norm()) for name, x in parts}
        )

    monkeypatch.setattr(class_choice, "choose_classes", at_the_start)
    for seed in range(3):
        with pytest.raises(SeenError) as seen:
            run(case, 32, seed)
        # A convolution and attention may start a little aligned: both know a token's own place.
        assert abs(seen.value.args[0]["low rank"]) < 0.25
        assert abs(seen.value.args[0]["butterfly"]) < 0.25


def test_a_run_reports_the_choice_and_the_error_on_clean_tests(monkeypatch):
    fitted = []

    def briefly(layer, inputs, outputs, *, progress):
        fitted.append(layer)
        return choose_classes(layer, inputs, outputs, steps=40, progress=progress)

    monkeypatch.setattr(class_choice, "choose_classes", briefly)
    found = run("convolution", 8, 1)
    assert fitted[0].price == 8
    tests, clean = draw("convolution", 1)[1]
    with torch.no_grad():
        error = float((fitted[0](tests) - clean).norm() / clean.norm())
    assert found["error"] == pytest.approx(error)
    assert set(found["chosen"]) <= set(CLASSES)


def test_stored_choices_are_right_at_the_default_price():
    results = load_results()
    assert tuple(results) == tuple(RIGHT)
    prices = {f"{FLOAT_BITS:g}": SEEDS, **{f"{price:g}": PRICE_SEEDS for price in PRICES}}
    for case, by_price in results.items():
        assert {price: len(runs) for price, runs in by_price.items()} == prices
        for row in (row for runs in by_price.values() for row in runs):
            assert set(row["chosen"]) | set(row["by gradient"]) <= set(CLASSES)
            assert (row["saved"] > 0) == bool(row["chosen"])
            assert 0 < row["error"] < 1 if row["chosen"] else row["error"] == 1
        right = [tuple(row["chosen"]) == RIGHT[case] for row in by_price[f"{FLOAT_BITS:g}"]]
        assert sum(right) >= 0.9 * SEEDS


def test_a_stored_choice_made_again():
    stored = load_results()["convolution"][f"{FLOAT_BITS:g}"][0]
    again = run("convolution", FLOAT_BITS, 0)
    assert list(again["chosen"]) == stored["chosen"]
    assert again["saved"] == pytest.approx(stored["saved"], rel=0.01)
    assert again["error"] == pytest.approx(stored["error"], rel=0.2)
