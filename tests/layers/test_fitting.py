"""The shared training loop, the modes that fits run in, and scales without over- or underflow."""

import numpy as np
import pytest
import torch
from torch import nn

from helpers.layers import fitting
from helpers.layers.fitting import one_cycle, rms, update, with_gradients
from helpers.maths import gaussian


def test_one_cycle_finds_the_minimum_of_a_quadratic_and_asks_once_a_step():
    matrix, b = gaussian(6, 4, seed=0), gaussian(6, seed=1)
    first, second = (nn.Parameter(torch.zeros(2, dtype=torch.float64)) for _ in range(2))
    asked = []

    def loss(step):
        asked.append(step)
        return (matrix @ torch.cat([first, second]) - b).square().sum()

    one_cycle([[first], [second]], [0.1, 0.2], loss, steps=400, name="quadratic")
    assert asked == list(range(400))
    best, *_ = np.linalg.lstsq(matrix.numpy(), b.numpy(), rcond=None)
    found = torch.cat([first, second]).detach().numpy()
    np.testing.assert_allclose(found, best, atol=0.02)


def test_each_part_rises_to_its_own_rate_and_falls_to_nothing():
    """With a constant gradient a step of Adam is as long as the rate."""
    parts = [nn.Parameter(torch.zeros(1, dtype=torch.float64)) for _ in range(2)]
    path = []

    def loss(step):
        path.append([float(part.detach()) for part in parts])
        return sum(part.sum() for part in parts)

    one_cycle([[part] for part in parts], [0.1, 0.4], loss, steps=100, name="ramp")
    rates = -np.diff(np.array(path), axis=0)
    np.testing.assert_allclose(rates.max(0), [0.1, 0.4], rtol=0.05)
    assert (rates[0] < 0.05 * rates.max(0)).all()
    assert (rates[-1] < 0.02 * rates.max(0)).all()
    assert 0.2 < rates[:, 0].argmax() / 100 < 0.4


def test_an_update_goes_down_the_gradient_of_its_own_loss():
    weight, slope = nn.Parameter(torch.zeros(2)), torch.tensor([3.0, 4.0])
    optimizer = torch.optim.SGD([weight], lr=0.5)
    for step in range(1, 3):
        update(optimizer, slope @ weight)
        torch.testing.assert_close(weight.data, -0.5 * step * slope)


@pytest.mark.parametrize("progress", [True, False])
def test_a_long_training_shows_a_bar_and_a_short_one_none(progress, monkeypatch, capsys):
    weight = nn.Parameter(torch.ones(1))

    def train():
        loss = lambda step: weight.sum()  # noqa: E731
        one_cycle([[weight]], [0.1], loss, steps=3, name="w", progress=progress)

    train()
    assert capsys.readouterr() == ("", "")
    tqdm = fitting.tqdm
    monkeypatch.setattr(fitting, "tqdm", lambda *a, **o: tqdm(*a, **{**o, "delay": 0}))
    train()
    assert ("0/3" in capsys.readouterr().err) == progress


def test_modes_of_the_caller_end_at_the_door_and_return():
    def modes():
        return (
            torch.is_autocast_enabled("cpu"),
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
        )

    def fails():
        raise KeyError

    with torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode():
        assert with_gradients(modes)() == (False, True, False)
        with pytest.raises(KeyError):
            with_gradients(fails)()
        assert modes() == (True, False, True)


def test_root_mean_square_is_numpys_at_every_scale_and_that_of_zeros_is_zero():
    x = gaussian(3, 4, 5, seed=0)
    x[1] = 0
    expected = np.sqrt(np.square(x.numpy()).mean((1, 2), keepdims=True))
    for scale in (1.0, 1e-200, 1e200, 1e307):
        np.testing.assert_allclose(rms(scale * x) / scale, expected, rtol=1e-14)
    assert rms(torch.ones(4), 0) == 1
