"""The universal layer: its classes, what they cost, its gates, and which class a fit chooses."""

import itertools

import numpy as np
import pytest
import scipy.linalg
import torch
from torch.func import functional_call

from helpers.data import cases
from helpers.layers import CLASSES, FLOAT_BITS, Butterfly, UniversalLayer, fit
from helpers.maths import attention, bit_reversal, gaussian

N, WIDTH = 8, 6


def close(one, other, tolerance=1e-12):
    torch.testing.assert_close(one, other, atol=tolerance, rtol=0)


def operator(member):
    """The matrix of a class that doesn't depend on its input."""
    return member(torch.eye(N, dtype=torch.float64)).detach()


def alone(name, n=N, width=WIDTH, **options):
    return UniversalLayer(n, width, classes=(name,), **options).members[name]


def with_gates(layer, *probabilities):
    layer.gate_logits.data = torch.tensor(probabilities, dtype=torch.float64).logit()
    return layer


# The classes


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_low_rank_is_a_matrix_of_that_rank(rank):
    member, x = alone("low rank", rank=rank), gaussian(2, N, WIDTH, seed=1)
    T = operator(member)
    assert np.linalg.matrix_rank(T) == rank
    close(T, member.left.detach() @ torch.diag(member.sigma.detach()) @ member.right.detach().T)
    close(member(x), T @ x)


@pytest.mark.parametrize("taps", [1, 3, 9, 15])
def test_convolution_is_a_toeplitz_matrix_with_zeros_beyond_the_ends(taps):
    member, x = alone("convolution", taps=taps), gaussian(3, N, WIDTH, seed=1)
    kernel, half = member.kernel.detach()[0].numpy(), taps // 2
    at = dict(enumerate(kernel, start=-half))
    column = [at.get(shift, 0.0) for shift in range(N)]
    row = [at.get(-shift, 0.0) for shift in range(N)]
    toeplitz = np.array(scipy.linalg.toeplitz(column, row))
    square = UniversalLayer(N, N, classes=("convolution",), taps=taps).members["convolution"]
    close(operator(square), torch.from_numpy(toeplitz))
    expected = torch.conv1d(
        x.mT.reshape(-1, 1, N), member.kernel.detach().flip(-1)[None], padding=half
    )
    close(member(x).detach(), expected.reshape(3, WIDTH, N).mT)
    for i, c in itertools.product(range(3), range(WIDTH)):
        convolved = np.convolve(x[i, :, c].numpy(), kernel)[half : half + N]
        np.testing.assert_allclose(member(x)[i, :, c].detach(), convolved, atol=1e-12)


@pytest.mark.parametrize("shape", [(N, WIDTH), (3, N, WIDTH), (2, 3, N, WIDTH)])
def test_depthwise_convolution_has_a_kernel_for_each_column(shape):
    member, x = alone("convolution", taps=5, depthwise=True), gaussian(*shape, seed=1)
    kernels = member.kernel.detach()
    assert kernels.shape == (WIDTH, 5)
    expected = torch.conv1d(
        x.mT.reshape(-1, WIDTH, N), kernels.flip(-1)[:, None], padding=2, groups=WIDTH
    )
    close(member(x).detach(), expected.mT.reshape(shape))


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
    options = {"rank": 1, "taps": 1}
    member = alone("butterfly", n=n, seed=5, **options)
    expected = Butterfly(n, input_order=bit_reversal(n), real=True, seed=5).matrix()
    for shape in ((n, WIDTH), (3, n, WIDTH), (2, 3, n, WIDTH)):
        x = gaussian(*shape, seed=1)
        close(member(x), expected @ x)


def test_butterfly_follows_the_device_of_its_input():
    # "meta" is the device that every machine has: a constant made on the CPU would raise.
    member = alone("butterfly").to("meta")
    for shape in ((N, WIDTH), (3, N, WIDTH)):
        assert member(torch.ones(shape, dtype=torch.float64, device="meta")).device.type == "meta"


def test_parts_are_the_classes_in_a_fixed_order_times_the_scale():
    layer, x = UniversalLayer(N, WIDTH), gaussian(2, N, WIDTH, seed=1)
    assert layer.classes == CLASSES == ("low rank", "convolution", "attention", "butterfly")
    layer.scale.fill_(3.0)
    for name, part in zip(CLASSES, layer.parts(x), strict=True):
        close(part, 3 * layer.members[name](x))


def free_parameters(member, x):
    """Rank of the Jacobian of the map from a class's parameters to its outputs, at a random point."""
    names, values = zip(*member.named_parameters(), strict=True)
    reals = []
    for value in values:
        value = value.detach() + 0.1 * torch.randn_like(value)
        reals += [value.real.clone(), value.imag.clone()] if value.is_complex() else [value]

    def outputs(*reals):
        rest = iter(reals)
        parameters = {
            name: torch.complex(next(rest), next(rest)) if value.is_complex() else next(rest)
            for name, value in zip(names, values, strict=True)
        }
        return functional_call(member, parameters, (x,)).flatten()

    blocks = torch.autograd.functional.jacobian(outputs, tuple(reals))
    jacobian = torch.cat([block.flatten(1) for block in blocks], 1)
    sigma = torch.linalg.svdvals(jacobian)
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
        ("convolution", 6, 3, {"taps": 5}, 5),
        ("convolution", 6, 3, {"taps": 11}, 11),
        ("convolution", 6, 3, {"taps": 5, "depthwise": True}, 15),
        ("attention", 6, 3, {"taps": 3}, 10),
        ("attention", 6, 4, {"taps": 3, "heads": 2}, 34),
        ("butterfly", 16, 1, {}, 160),
    ],
)
def test_as_many_parameters_are_free_as_move_the_operator(name, n, width, options, free):
    torch.manual_seed(0)
    layer = UniversalLayer(n, width, classes=(name,), **options)
    assert layer.parameters_of == {name: free}
    # Enough samples that every free parameter shows.
    samples = gaussian(2 * n, n, width, seed=1)
    assert free_parameters(layer.members[name], samples) == free


# Gates and their price


def test_states_are_all_the_subsets_and_begin_with_none():
    for classes in (CLASSES, CLASSES[:2], CLASSES[:1]):
        states = UniversalLayer(N, WIDTH, classes=classes).states().tolist()
        expected = itertools.product([0.0, 1.0], repeat=len(classes))
        assert sorted(states) == sorted(map(list, expected))
        assert not any(states[0])


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
    x = gaussian(3, N, WIDTH, seed=1)
    y = layer.parts(x).detach()[-1] + noise * gaussian(3, N, WIDTH, seed=2)
    for share in (1.0, 0.25):
        expected = [direct_bits(layer, x, y, state, share) for state in layer.states().tolist()]
        assert layer.code_lengths(x, y, share).tolist() == pytest.approx(expected, rel=1e-6)


def test_description_length_is_the_expectation_over_the_coins():
    layer = with_gates(UniversalLayer(N, WIDTH, price=2.0), 0.1, 0.4, 0.75, 0.9)
    x, y = gaussian(2, 3, N, WIDTH, seed=1)
    p, expected = layer.probabilities.tolist(), 0.0
    for state in itertools.product([0, 1], repeat=4):
        chance = np.prod([q if g else 1 - q for q, g in zip(p, state, strict=True)])
        expected += chance * direct_bits(layer, x, y, state, 0.5)
    measured = layer.description_length(x, y, 0.5).item()
    assert measured == pytest.approx(expected, rel=1e-12)


def test_description_length_is_linear_in_each_probability():
    layer = UniversalLayer(N, WIDTH)
    x, y = gaussian(2, 3, N, WIDTH, seed=1)
    for k in range(4):
        values = []
        for p in (0.2, 0.5, 0.8):
            others = [0.3, 0.6, 0.4, 0.7]
            others[k] = p
            values.append(with_gates(layer, *others).description_length(x, y).item())
        assert values[1] == pytest.approx((values[0] + values[2]) / 2, rel=1e-12)
        assert values[0] != pytest.approx(values[2], rel=1e-6)


def test_settled_gates_make_it_the_code_length_of_their_state():
    layer = UniversalLayer(N, WIDTH)
    x, y = gaussian(2, 3, N, WIDTH, seed=1)
    for state, length in zip(layer.states(), layer.code_lengths(x, y), strict=True):
        layer.gate_logits.data = torch.where(state == 1, 40.0, -40.0).double()
        assert layer.description_length(x, y).item() == pytest.approx(length.item(), rel=1e-12)


def test_cost_is_the_expected_number_of_free_parameters_times_the_price():
    layer = with_gates(UniversalLayer(N, WIDTH, price=5.0), 0.1, 0.4, 0.75, 0.9)
    numbers = np.array(list(layer.parameters_of.values()))
    expected = 5 * (numbers * [0.1, 0.4, 0.75, 0.9]).sum()
    assert layer.cost().item() == pytest.approx(expected)
    assert UniversalLayer(N, WIDTH).price == FLOAT_BITS == 32


def test_settle_keeps_the_shortest_code():
    layer = UniversalLayer(N, WIDTH, price=1.0, seed=2)
    x, noise = gaussian(2, 16, N, WIDTH, seed=1)
    for wanted in ((), ("convolution",), ("low rank", "attention"), CLASSES):
        parts = dict(zip(CLASSES, layer.parts(x).detach(), strict=True))
        target = 0.01 * noise + sum(parts[name] for name in wanted)
        lengths = {
            state: direct_bits(layer, x, target, state)
            for state in itertools.product([0, 1], repeat=4)
        }
        best = min(lengths, key=lengths.get)
        saved = layer.settle(x, target)
        assert layer.chosen == tuple(np.array(CLASSES)[np.array(best) == 1]) == wanted
        assert saved == pytest.approx(lengths[0, 0, 0, 0] - lengths[best])
        assert ((layer.probabilities - 0.5).abs() > 0.4999).all()
    assert saved > 0


def test_a_higher_price_never_buys_more():
    layer = UniversalLayer(N, WIDTH, seed=2)
    # Every class adds a third of what the one before it adds.
    layer.members["convolution"].kernel.data *= 9
    layer.members["attention"].gain.data *= 6
    layer.members["butterfly"].blocks.data[0] /= 3
    x, noise = gaussian(2, 16, N, WIDTH, seed=1)
    y = layer.parts(x).detach().sum(0) + 0.1 * noise
    chosen, bought = [], []
    for price in (0.0, 1.0, 10.0, 20.0, 30.0, 50.0, 100.0, 1000.0):
        layer.price = price
        saved = layer.settle(x, y)
        chosen.append(layer.chosen)
        bought.append(sum(layer.parameters_of[name] for name in layer.chosen))
        assert (saved > 0) == (layer.chosen != ())
    assert bought == sorted(bought, reverse=True)
    assert [len(names) for names in chosen] == sorted(map(len, chosen), reverse=True)
    assert len(set(chosen)) >= 3
    assert chosen[-1] == ()
    # Without a price the state of the least residual wins, however little it saves.
    free = {state: direct_bits(layer, x, y, state, 0) for state in np.ndindex(2, 2, 2, 2)}
    assert chosen[0] == tuple(np.array(CLASSES)[np.array(min(free, key=free.get)) == 1])


# Forward


def test_in_training_the_mean_is_weighted_by_the_probabilities():
    layer = with_gates(UniversalLayer(N, WIDTH), 0.1, 0.4, 0.75, 0.9)
    x = gaussian(3, N, WIDTH, seed=1)
    weights = zip((0.1, 0.4, 0.75, 0.9), layer.parts(x), strict=True)
    close(layer(x), sum(p * part for p, part in weights))


def test_the_noise_has_the_mean_and_variance_of_tossed_coins():
    layer = with_gates(UniversalLayer(N, 2), 0.1, 0.4, 0.75, 0.9)
    x, draws = gaussian(N, 2, seed=1), 20_000
    parts = layer.parts(x).detach()
    coins = torch.rand(draws, 4, generator=torch.Generator().manual_seed(0)) < layer.probabilities
    tossed = torch.tensordot(coins.double(), parts, 1)
    noisy = layer(x.expand(draws, N, 2), torch.Generator().manual_seed(1)).detach()
    mean, variance = (moment.detach() for moment in layer.moments(x))
    deviation = variance.sqrt()
    for sample in (tossed, noisy):
        assert ((sample.mean(0) - mean).abs() < 5 * deviation / draws**0.5).all()
        assert (sample.std(0) / deviation).sub(1).abs().max() < 0.03
    # Gaussian and independent from place to place.
    unit = (noisy - mean) / deviation
    assert abs(float(unit.pow(4).mean()) - 3) < 0.05
    correlations = torch.corrcoef(unit.flatten(1).T) - torch.eye(2 * N, dtype=torch.float64)
    assert correlations.abs().max() < 0.05


def test_noise_is_drawn_from_the_generator_alone():
    layer, x = UniversalLayer(N, WIDTH), gaussian(3, N, WIDTH, seed=1)
    state = torch.get_rng_state()
    first, again, other = (layer(x, torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert torch.equal(layer(x), layer(x))
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"


def test_undecided_gates_are_noise_and_decided_ones_are_not():
    layer, x = UniversalLayer(N, WIDTH), gaussian(3, N, WIDTH, seed=1)
    for k in range(4):
        spread = []
        for p in (1e-9, 0.5, 1 - 1e-9):
            others = [1e-9, 1e-9, 1e-9, 1e-9]
            others[k] = p
            spread.append(with_gates(layer, *others).moments(x)[1].mean().item())
        assert spread[0] < 1e-8
        assert spread[2] < 1e-8
        part = layer.parts(x)[k]
        assert spread[1] == pytest.approx(part.square().mean().item() / 4, rel=1e-6)


def test_in_evaluation_gates_are_open_or_closed():
    layer = with_gates(UniversalLayer(N, WIDTH), 0.51, 0.1, 0.49, 0.99).eval()
    layer.scale.fill_(2.0)
    x = gaussian(3, N, WIDTH, seed=1)
    parts = dict(zip(CLASSES, layer.parts(x), strict=True))
    assert layer.chosen == ("low rank", "butterfly")
    close(layer(x), parts["low rank"] + parts["butterfly"])
    assert torch.equal(layer(x), layer(x, torch.Generator()))
    assert torch.equal(with_gates(layer, 0.1, 0.1, 0.1, 0.1)(x), torch.zeros_like(x))


# Starts, precisions, sizes


def test_the_start_is_a_function_of_the_seed_whatever_the_order_of_the_classes():
    state, x = torch.get_rng_state(), gaussian(N, WIDTH, seed=1)
    first, again, other = (UniversalLayer(N, WIDTH, seed=seed).parts(x) for seed in (0, 0, 1))
    backwards = UniversalLayer(N, WIDTH, classes=CLASSES[::-1]).parts(x)
    assert torch.equal(first, again)
    assert torch.equal(first, backwards)
    for part, changed in zip(first, other, strict=True):
        assert (part - changed).abs().max() > 1e-3
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"


def test_gates_start_undecided_and_closed_for_evaluation():
    layer = UniversalLayer(N, WIDTH)
    assert layer.probabilities.tolist() == [0.5] * 4
    assert layer.chosen == ()


def test_single_precision():
    single, double = UniversalLayer(N, WIDTH, dtype=torch.float32), UniversalLayer(N, WIDTH)
    x, y = gaussian(2, 3, N, WIDTH, seed=1)
    for training in (True, False):
        single.train(training)
        assert single(x.float(), torch.Generator()).dtype == torch.float32
    for low, high in (
        (single.parts(x.float()), double.parts(x)),
        (single.code_lengths(x.float(), y.float()), double.code_lengths(x, y)),
    ):
        assert low.dtype == torch.float32
        torch.testing.assert_close(low.double(), high, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("n", [3, 6, 7])
def test_without_a_butterfly_any_n_will_do(n):
    layer = UniversalLayer(n, WIDTH, classes=CLASSES[:3], rank=3, taps=3)
    assert layer(gaussian(2, n, WIDTH, seed=1)).shape == (2, n, WIDTH)


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
    # The layer's seed is another one: from the same stream it could start at the answer.
    data, layer = make(n=16, samples=32, seed=1), UniversalLayer(16, 8, seed=200)
    choice = fit(layer, data.inputs, data.outputs, steps=200, progress=False)
    assert choice.chosen == choice.by_gradient == layer.chosen == (right,)
    assert choice.relative_error == pytest.approx(0.1, abs=0.01)  # the noise
    assert choice.saved > 1000


def test_a_fit_chooses_no_class_for_a_matrix_without_structure():
    data, layer = cases.random_operator(n=32, samples=32, seed=1), UniversalLayer(32, 8, seed=200)
    choice = fit(layer, data.inputs, data.outputs, steps=150, progress=False)
    assert choice.chosen == choice.by_gradient == ()
    assert choice.saved == 0
    assert choice.relative_error == 1


def test_a_fit_finds_both_classes_of_a_mixture():
    one, other = (make(n=16, samples=32, seed=1) for make in (cases.convolution, cases.attention))
    clean = one.clean / one.clean.std() + other.clean / other.clean.std()
    outputs = clean + 0.1 * gaussian(*clean.shape, seed=5)
    layer = UniversalLayer(16, 8, seed=200)
    choice = fit(layer, one.inputs, outputs, steps=300, progress=False)
    assert choice.chosen == ("convolution", "attention")


@pytest.mark.parametrize("scale", [2.0**10, 1e-3])
def test_the_unit_of_the_outputs_does_not_matter(scale):
    data = cases.attention(n=8, samples=16, width=4, seed=1)
    choices = [
        fit(UniversalLayer(8, 4, seed=200), data.inputs, unit * data.outputs, steps=60)
        for unit in (1.0, scale)
    ]
    assert choices[0].chosen == choices[1].chosen != ()
    close(choices[0].probabilities, choices[1].probabilities, 1e-6)
    assert choices[0].relative_error == pytest.approx(choices[1].relative_error, rel=1e-6)
    assert choices[0].saved == pytest.approx(choices[1].saved, rel=1e-6)


def test_a_fit_in_single_precision():
    data = cases.convolution(n=8, samples=16, width=4, seed=1)
    layer = UniversalLayer(8, 4, seed=200, dtype=torch.float32)
    choice = fit(layer, data.inputs.float(), data.outputs.float(), steps=100)
    assert choice.chosen == ("convolution",)
    assert choice.probabilities.dtype == torch.float32


def test_what_a_fit_returns():
    state = torch.get_rng_state()
    x = gaussian(8, N, WIDTH, seed=1)
    y = torch.roll(x, 1, -2)
    layers = [UniversalLayer(N, WIDTH, seed=1) for _ in range(2)]
    first, again = (fit(layer, x, y, steps=20) for layer in layers)
    assert torch.equal(torch.get_rng_state(), state), "global random state was touched"
    assert torch.equal(first.probabilities, again.probabilities)
    assert first.probabilities.shape == (21, 4)
    assert first.probabilities[0].tolist() == [0.5] * 4
    assert first.by_gradient == tuple(np.array(CLASSES)[first.probabilities[-1].numpy() > 0.5])
    layer = layers[0]
    assert not layer.training
    assert float(layer.scale) == pytest.approx(float(y.square().mean().sqrt()))
    error = ((layer(x) - y).norm() / y.norm()).item()
    assert first.relative_error == pytest.approx(error)
    open_gates = [float(name in first.chosen) for name in CLASSES]
    saved = direct_bits(layer, x, y, [0] * 4) - direct_bits(layer, x, y, open_gates)
    assert first.saved == pytest.approx(saved, abs=1e-6)


def test_the_price_rises_to_its_full_height_over_the_first_half(monkeypatch):
    shares, original = [], UniversalLayer.description_length

    def recorded(self, x, y, share=1.0):
        shares.append(share)
        return original(self, x, y, share)

    monkeypatch.setattr(UniversalLayer, "description_length", recorded)
    x = gaussian(2, N, WIDTH, seed=1)
    fit(UniversalLayer(N, WIDTH), x, x, steps=8)
    assert shares == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]
