"""The universal layer: its classes, what they cost, its gates, and which class a fit chooses."""

import itertools
import warnings

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.func import functional_call

from helpers.data import cases
from helpers.layers import CLASSES, FLOAT_BITS, Butterfly, UniversalLayer, choose_classes
from helpers.maths import attention, bit_reversal, gaussian

N, WIDTH = 8, 6
F64 = torch.float64


def close(one, other, tolerance=1e-12):
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


def alone(name, n=N, width=WIDTH, **options):
    return UniversalLayer(n, width, classes=(name,), **options).members[name].requires_grad_(False)


def with_gates(layer, *probabilities):
    layer.gate_logits.data = torch.tensor(probabilities, dtype=F64).logit()
    return layer


def error(layer, x, y):
    """Relative, with hard gates."""
    assert not layer.training
    return float((layer(x) - y).detach().norm() / y.norm())


# The classes


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_low_rank_is_a_matrix_of_that_rank(rank):
    member, x = alone("low rank", rank=rank), gaussian(2, N, WIDTH, seed=1)
    T = member(torch.eye(N, dtype=F64))
    assert np.linalg.matrix_rank(T) == rank
    close(T, member.left @ torch.diag(member.sigma) @ member.right.T)
    close(member(x), T @ x)


@pytest.mark.parametrize("taps", [1, 3, 9, 15])
def test_convolution_is_that_of_torch_and_scipys_toeplitz_matrix(taps):
    member, half = alone("convolution", taps=taps), taps // 2
    kernels = member.kernel.expand(WIDTH, taps)
    assert member.kernel.shape == (taps,)
    for shape in ((N, WIDTH), (3, N, WIDTH), (2, 3, N, WIDTH)):
        x = gaussian(*shape, seed=1)
        flat, weight = x.mT.reshape(-1, WIDTH, N), kernels.flip(-1)[:, None]
        expected = torch.conv1d(flat, weight, padding=half, groups=WIDTH)
        close(member(x), expected.mT.reshape(shape))
    at = dict(enumerate(kernels[0].tolist(), start=-half))
    column, row = ([at.get(sign * shift, 0.0) for shift in range(N)] for sign in (1, -1))
    x = gaussian(N, WIDTH, seed=2)
    close(member(x)[:, 0], torch.from_numpy(scipy.linalg.toeplitz(column, row)) @ x[:, 0])


@pytest.mark.parametrize("heads", [1, 2, 3])
def test_attention_is_that_of_the_book_head_by_head(heads):
    member, x = alone("attention", heads=heads), gaussian(4, N, WIDTH, seed=1)
    member.gain.data = gaussian(heads, 1, 1, seed=2)
    parts = [
        gain * attention(x @ W, x, values.contiguous(), scale=1.0)
        for gain, W, values in zip(member.gain, member.query_key, x.chunk(heads, -1), strict=True)
    ]
    close(member(x), torch.cat(parts, -1))
    close(member(x)[2], member(x[2]))


@pytest.mark.parametrize("n", [2, 8, 16])
def test_butterfly_is_the_real_part_of_one_after_a_bit_reversal(n):
    member = alone("butterfly", n=n, rank=1, taps=1)
    product = Butterfly(n, input_order=bit_reversal(n), real=True)
    product.load_state_dict(member.state_dict())
    for shape in ((n, WIDTH), (3, n, WIDTH), (2, 3, n, WIDTH)):
        x = gaussian(*shape, seed=1)
        close(member(x), product.matrix() @ x)
    # "meta" is the device that every machine has: a constant made on the CPU would raise.
    x = torch.ones(3, n, WIDTH, dtype=F64, device="meta")
    assert member.to("meta")(x).device.type == "meta"


def test_parts_are_the_classes_in_a_fixed_order_times_the_scale():
    state, x = torch.get_rng_state(), gaussian(2, N, WIDTH, seed=1)
    layer, other = UniversalLayer(N, WIDTH), UniversalLayer(N, WIDTH, seed=1)
    backwards = UniversalLayer(N, WIDTH, classes=CLASSES[::-1])
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    assert layer.classes == backwards.classes == CLASSES
    assert torch.equal(layer.parts(x), backwards.parts(x))
    assert ((layer.parts(x) - other.parts(x)).abs().amax((1, 2, 3)) > 1e-3).all()
    layer.scale.fill_(3.0)
    for name, part in zip(CLASSES, layer.parts(x), strict=True):
        close(part, 3 * layer.members[name](x))


@pytest.mark.parametrize("n", [3, 6, 7])
def test_without_a_butterfly_any_n_will_do(n):
    layer = UniversalLayer(n, WIDTH, classes=CLASSES[:3], rank=3, taps=3)
    assert layer(gaussian(2, n, WIDTH, seed=1)).shape == (2, n, WIDTH)


def free_parameters(member, x):
    """Rank of the Jacobian of the map from a class's parameters to its outputs, at a random point."""
    names, values = zip(*member.named_parameters(), strict=True)
    pairs = [torch.view_as_real(v.data) if v.is_complex() else v.data for v in values]
    pairs = [pair + 0.1 * gaussian(*pair.shape, seed=k) for k, pair in enumerate(pairs)]

    def outputs(*pairs):
        wide = zip(names, values, pairs, strict=True)
        state = {n: torch.view_as_complex(p) if v.is_complex() else p for n, v, p in wide}
        return functional_call(member, state, (x,)).flatten()

    blocks = torch.autograd.functional.jacobian(outputs, tuple(pairs))
    sigma = torch.linalg.svdvals(torch.cat([block.reshape(x.numel(), -1) for block in blocks], 1))
    rank = int((sigma > 1e-9 * sigma[0]).sum())
    # The count is clear: there is a gap of many digits behind it.
    assert rank == len(sigma) or sigma[rank] < 1e-4 * sigma[rank - 1]
    return rank


@pytest.mark.parametrize(
    ("name", "n", "width", "options", "free"),
    [
        ("low rank", 6, 3, {"rank": 1, "taps": 3}, 11),
        ("low rank", 6, 3, {"rank": 4, "taps": 3}, 32),
        ("low rank", 6, 3, {"rank": 6, "taps": 3}, 36),
        ("convolution", 6, 3, {"taps": 11}, 11),
        ("attention", 6, 4, {"taps": 3, "heads": 2}, 34),
        ("butterfly", 8, 1, {}, 64),
    ],
)
def test_as_many_parameters_are_free_as_move_the_operator(name, n, width, options, free):
    layer = UniversalLayer(n, width, classes=(name,), **options)
    assert layer.parameters_of == {name: free}
    # Enough samples that every free parameter shows.
    assert free_parameters(layer.members[name], gaussian(2 * n, n, width, seed=1)) == free


# Gates and their price


def direct_bits(layer, x, y, state, share=1.0):
    parts = [layer.members[name](x).detach() for name in layer.classes]
    guess = sum(float(layer.scale) * g * part for g, part in zip(state, parts, strict=True))
    fitted = y.numel() / 2 * np.log2(float((y - guess).square().mean()))
    free = sum(g * layer.parameters_of[name] for g, name in zip(state, layer.classes, strict=True))
    return fitted + share * layer.price * free


@pytest.mark.parametrize("noise", [1.0, 1e-3])
@pytest.mark.parametrize("classes", [CLASSES, ("convolution", "attention"), ("butterfly",)])
def test_code_lengths_counted_one_by_one(classes, noise):
    layer = UniversalLayer(N, WIDTH, classes=classes, price=3.5, seed=1)
    layer.scale.fill_(2.0)
    states = layer.states().tolist()
    assert sorted(states) == sorted(map(list, itertools.product([0.0, 1.0], repeat=len(classes))))
    assert not any(states[0])
    x = gaussian(3, N, WIDTH, seed=1)
    y = layer.parts(x).detach()[-1] + noise * gaussian(3, N, WIDTH, seed=2)
    for share in (1.0, 0.25):
        expected = [direct_bits(layer, x, y, state, share) for state in states]
        assert layer.code_lengths(x, y, share).tolist() == pytest.approx(expected, rel=1e-6)


def test_description_length_is_the_expectation_over_the_coins_and_linear_in_each():
    layer = UniversalLayer(N, WIDTH, price=2.0)
    x, y = gaussian(2, 3, N, WIDTH, seed=1)
    lengths = layer.code_lengths(x, y, 0.5)
    for coins in ([0.1, 0.4, 0.75, 0.9], [0.1, 0.4, 0.75, 0.2], [1e-12] * 4, [1 - 1e-12] * 4):
        chances = [
            np.prod([p if g else 1 - p for p, g in zip(coins, state, strict=True)])
            for state in layer.states().tolist()
        ]
        measured = with_gates(layer, *coins).description_length(x, y, 0.5).item()
        assert measured == pytest.approx(float(np.dot(chances, lengths.tolist())), rel=1e-9)


def test_settle_keeps_the_shortest_code():
    layer = UniversalLayer(N, WIDTH, price=1.0, seed=2)
    assert layer.probabilities.tolist() == [0.5] * 4
    x, noise = gaussian(2, 16, N, WIDTH, seed=1)
    for wanted in ((), ("convolution",), ("low rank", "attention"), CLASSES):
        parts = dict(zip(CLASSES, layer.parts(x).detach(), strict=True))
        target = 0.01 * noise + sum(parts[name] for name in wanted)
        lengths = {state: direct_bits(layer, x, target, state) for state in np.ndindex(2, 2, 2, 2)}
        best = min(lengths, key=lengths.get)
        saved = layer.settle(x, target)
        assert layer.chosen == tuple(itertools.compress(CLASSES, best)) == wanted
        assert saved == pytest.approx(lengths[0, 0, 0, 0] - lengths[best])
        assert ((layer.probabilities - 0.5).abs() > 0.4999).all()
    assert saved > 0


# Forward


def test_in_training_the_mean_and_in_evaluation_open_or_closed():
    layer = with_gates(UniversalLayer(N, WIDTH), 0.51, 0.1, 0.49, 0.99)
    layer.scale.fill_(2.0)
    x = gaussian(3, N, WIDTH, seed=1)
    parts = dict(zip(CLASSES, layer.parts(x), strict=True))
    close(
        layer(x),
        sum(p * part for p, part in zip((0.51, 0.1, 0.49, 0.99), parts.values(), strict=True)),
    )
    layer.eval()
    assert layer.chosen == ("low rank", "butterfly")
    close(layer(x), parts["low rank"] + parts["butterfly"])
    assert torch.equal(with_gates(layer, 0.1, 0.1, 0.1, 0.1)(x), torch.zeros_like(x))


# Precision

CONVERSIONS = {
    "to": lambda: UniversalLayer(N, WIDTH).to(torch.float32),
    "float": lambda: UniversalLayer(N, WIDTH).float(),
}


@pytest.mark.parametrize("make", CONVERSIONS.values(), ids=CONVERSIONS)
def test_single_precision_is_the_same_layer(make):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        single = make()
    double, (x, y) = UniversalLayer(N, WIDTH), gaussian(2, 3, N, WIDTH, seed=1)
    assert {part.dtype for part in single.parameters()} == {torch.float32, torch.complex64}
    for low, high in (
        (single(x.float()), double(x)),
        (single.parts(x.float()), double.parts(x)),
        (single.code_lengths(x.float(), y.float()), double.code_lengths(x, y)),
        (single.eval()(x.float()), double.eval()(x)),
    ):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, atol=1e-4, rtol=1e-5)


# Fits

MADE_OF = {
    "low rank": ("low rank", cases.low_rank),
    "convolution": ("convolution", cases.convolution),
    "Fourier": ("butterfly", cases.fourier),
    "attention": ("attention", cases.attention),
}


@pytest.mark.parametrize("case", MADE_OF)
def test_a_fit_chooses_the_class_that_made_the_data(case):
    right, make = MADE_OF[case]
    data, layer = make(n=16, samples=32, seed=1), UniversalLayer(16, 8, seed=200)
    choice = choose_classes(layer, data.inputs, data.outputs, steps=200, progress=False)
    assert choice.chosen == choice.by_gradient == layer.chosen == (right,)
    assert error(layer, data.inputs, data.outputs) == pytest.approx(0.1, abs=0.01)  # the noise
    assert choice.saved > 1000


def test_a_fit_chooses_no_class_for_a_matrix_without_structure():
    data, layer = cases.random_operator(n=32, samples=32, seed=1), UniversalLayer(32, 8, seed=200)
    choice = choose_classes(layer, data.inputs, data.outputs, steps=150, progress=False)
    assert choice.chosen == choice.by_gradient == ()
    assert choice.saved == 0
    assert error(layer, data.inputs, data.outputs) == 1


def test_a_fit_finds_both_classes_of_a_mixture():
    one, other = (make(n=16, samples=32, seed=1) for make in (cases.convolution, cases.attention))
    clean = one.clean / one.clean.std() + other.clean / other.clean.std()
    outputs = clean + 0.1 * gaussian(*clean.shape, seed=5)
    choice = choose_classes(UniversalLayer(16, 8, seed=200), one.inputs, outputs, steps=300)
    assert choice.chosen == ("convolution", "attention")


@pytest.mark.parametrize(
    ("dtype", "scales"), [(F64, (1e-3, 1e-200, 1e200)), (torch.float32, (1e-25, 1e20))]
)
def test_the_unit_of_the_outputs_does_not_matter(dtype, scales):
    data = cases.convolution(n=8, samples=16, seed=1)
    inputs, outputs = data.inputs.to(dtype), data.outputs.to(dtype)

    def chosen(unit):
        layer = UniversalLayer(8, 8, seed=200).to(dtype)
        choice = choose_classes(layer, inputs, unit * outputs, steps=60)
        return choice, float((layer(inputs) / unit - outputs).detach().norm() / outputs.norm())

    first, first_error = chosen(1.0)
    assert first.chosen == ("convolution",)
    assert first.probabilities.dtype == dtype
    for scale in scales:
        (other, other_error), tolerance = chosen(scale), 1e-6 if dtype == F64 else 1e-2
        assert other.chosen == first.chosen
        close(other.probabilities, first.probabilities, tolerance)
        assert other_error == pytest.approx(first_error, rel=tolerance)
        assert other.saved == pytest.approx(first.saved, rel=tolerance)


def test_nothing_is_needed_for_zeros():
    x = gaussian(4, N, WIDTH, seed=1)
    for price in (0.0, FLOAT_BITS):
        layer = UniversalLayer(N, WIDTH, price=price)
        choice = choose_classes(layer, x, torch.zeros_like(x), steps=5)
        assert choice.chosen == layer.chosen == ()
        assert choice.saved == 0
        assert torch.equal(layer(x), torch.zeros_like(x))


def test_what_a_fit_returns_in_every_mode_of_the_caller():
    state, x = torch.get_rng_state(), gaussian(8, N, WIDTH, seed=1).float()
    y = torch.roll(x, 1, -2)
    layer, *others = (UniversalLayer(N, WIDTH, seed=1).float() for _ in range(4))
    first = choose_classes(layer, x, y, steps=20)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    assert first.probabilities.shape == (21, 4)
    assert first.probabilities[0].tolist() == [0.5] * 4
    assert first.by_gradient == tuple(
        itertools.compress(CLASSES, (first.probabilities[-1] > 0.5).tolist())
    )
    assert not layer.training
    assert float(layer.scale) == pytest.approx(float(y.square().mean().sqrt()))
    open_gates = [float(name in first.chosen) for name in CLASSES]
    saved = direct_bits(layer, x, y, [0] * 4) - direct_bits(layer, x, y, open_gates)
    assert first.saved == pytest.approx(saved, rel=1e-4, abs=1e-2)
    y.requires_grad_()
    modes = torch.autocast("cpu", dtype=torch.bfloat16), torch.inference_mode(), torch.enable_grad()
    for mode, other in zip(modes, others, strict=True):
        with mode:
            again = choose_classes(other, x, y, steps=20)
        assert torch.equal(again.probabilities, first.probabilities)
        assert again.saved == first.saved
    assert y.grad is None


def test_a_fit_that_breaks_off_leaves_the_mode_of_the_layer():
    x = gaussian(2, N, WIDTH, seed=1)
    for training in (True, False):
        layer = UniversalLayer(N, WIDTH).train(training)
        with pytest.raises(ValueError, match="finite|beyond the range"):
            choose_classes(layer, x, x, steps=9, learning_rate=1e300)
        assert layer.training == training
