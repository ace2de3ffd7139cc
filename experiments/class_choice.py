"""Does the universal layer choose the class that made the data? Chapter 3's cases, a control and two mixtures.

What twenty seeds of every case choose at the default price, and two seeds at each of PRICES (12 minutes on one core).
"""

import torch
from jaxtyping import Float64
from torch import Tensor

from experiments.store import Experiment
from helpers.data import cases
from helpers.layers import FLOAT_BITS, UniversalLayer, choose_classes
from helpers.maths import gaussian

SEEDS, PRICE_SEEDS = 20, 2
PRICES = (2.0, 8.0, 128.0, 512.0)
"""Besides the default, FLOAT_BITS."""
N, WIDTH, TRAINING, NOISE = 32, cases.WIDTH, 32, 0.1

Pairs = tuple[Float64[Tensor, "samples n width"], Float64[Tensor, "samples n width"]]

RIGHT: dict[str, tuple[str, ...]] = {
    "low rank": ("low rank",),
    "convolution": ("convolution",),
    "circular": ("convolution",),
    "Fourier": ("butterfly",),
    "attention": ("attention",),
    "control": (),
    "low rank + convolution": ("low rank", "convolution"),
    "convolution + attention": ("convolution", "attention"),
}
"""The classes that made each case. A circular convolution differs from a zero-padded one at the ends only."""


def draw(case: str, seed: int) -> tuple[Pairs, Pairs]:
    """Noisy pairs to fit and clean pairs to test, 32 samples each; a mixture adds two cases of equal size."""
    made = {
        "low rank": cases.low_rank,
        "convolution": cases.convolution,
        "circular": lambda **k: cases.convolution(circular=True, **k),
        "Fourier": cases.fourier,
        "attention": cases.attention,
        "control": cases.random_operator,
    }
    parts = [
        made[name](n=N, samples=2 * TRAINING, noise=NOISE, seed=seed) for name in case.split(" + ")
    ]
    inputs = parts[0].inputs  # drawn from the same seed, so the same for all parts
    clean = sum(part.clean / part.clean.square().mean().sqrt() for part in parts)
    noise = (
        gaussian(*clean.shape, seed=seed, stream="noise of a mixture")
        * clean.square().mean().sqrt()
    )
    noisy = clean + NOISE * noise
    return (inputs[:TRAINING], noisy[:TRAINING]), (inputs[TRAINING:], clean[TRAINING:])


def run(case: str, price: float, seed: int) -> dict[str, object]:
    """Fit one layer; the classes "chosen" and chosen "by gradient" alone, the bits "saved", the held-out "error"."""
    (inputs, outputs), (test_inputs, test_outputs) = draw(case, seed)
    layer = UniversalLayer(N, WIDTH, price=price, seed=seed)
    choice = choose_classes(layer, inputs, outputs, progress=False)
    with torch.no_grad():
        error = (layer(test_inputs) - test_outputs).norm() / test_outputs.norm()
    return {
        "chosen": choice.chosen,
        "by gradient": choice.by_gradient,
        "saved": choice.saved,
        "error": float(error),
    }


EXPERIMENT = Experiment(
    name="class_choice",
    measure=run,
    jobs=[
        {"case": case, "price": price, "seed": seed}
        for case in RIGHT
        for price in (FLOAT_BITS, *PRICES)
        for seed in range(SEEDS if price == FLOAT_BITS else PRICE_SEEDS)
    ],
    settings={
        "n": N,
        "width": WIDTH,
        "training samples": TRAINING,
        "noise": NOISE,
    },
)


def load_results() -> dict[str, dict[str, list[dict]]]:
    """Case → price (a string) → what :func:`run` measured, one entry per seed."""
    results: dict = {case: {} for case in RIGHT}
    for job, row in EXPERIMENT.load():
        results[job["case"]].setdefault(f"{job['price']:g}", []).append(row)
    return results
