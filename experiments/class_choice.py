"""Does the universal layer choose the class that made the data? Chapter 3's cases, a control and two mixtures.

``python -m helpers.choosing`` (about 25 minutes on two cores) writes ``helpers/data/choosing.json``: what twenty seeds
of every case choose at the default price, and two seeds at each of PRICES.
"""

import json
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from jaxtyping import Float64
from torch import Tensor
from tqdm import tqdm

from helpers.data import cases
from helpers.layers import FLOAT_BITS, UniversalLayer, choose_classes
from helpers.maths import gaussian, one_of

RESULTS = Path(__file__).parent / "results" / "class_choice.json"
SEEDS, PRICE_SEEDS = 20, 2
PRICES = (2.0, 8.0, 128.0, 512.0)
"""Besides the default, FLOAT_BITS."""
N, WIDTH, TRAINING, NOISE = 32, 8, 32, 0.1

LAYER_SEEDS = 1000
"""Layer of data seed s: seed s + 1000."""

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
    """Noisy pairs to fit and clean pairs to test, 32 samples each; a mixture adds two cases of equal size.

    Raises ValueError for a ``case`` that is not in RIGHT.
    """
    one_of(case, "case", RIGHT)
    made = {
        "low rank": cases.low_rank,
        "convolution": cases.convolution,
        "circular": lambda **k: cases.convolution(circular=True, **k),
        "Fourier": cases.fourier,
        "attention": cases.attention,
        "control": cases.random_operator,
    }
    parts = [
        made[name](n=N, width=WIDTH, samples=2 * TRAINING, noise=NOISE, seed=seed)
        for name in case.split(" + ")
    ]
    inputs = parts[0].inputs  # drawn from the same seed, so the same for all parts
    clean = sum(part.clean / part.clean.square().mean().sqrt() for part in parts)
    noise = gaussian(*clean.shape, seed=seed + 2_000_003) * clean.square().mean().sqrt()
    noisy = clean + NOISE * noise
    return (inputs[:TRAINING], noisy[:TRAINING]), (inputs[TRAINING:], clean[TRAINING:])


def run(job: tuple[str, float, int]) -> dict[str, object]:
    """Fit one layer; the classes "chosen" and chosen "by gradient" alone, the bits "saved", the held-out "error"."""
    case, price, seed = job
    torch.set_num_threads(1)
    (inputs, outputs), (test_inputs, test_outputs) = draw(case, seed)
    # Another stream than the data's: with the same seed the low-rank class would start at the answer.
    layer = UniversalLayer(N, WIDTH, price=price, seed=seed + LAYER_SEEDS)
    choice = choose_classes(layer, inputs, outputs, progress=False)
    with torch.no_grad():
        error = (layer(test_inputs) - test_outputs).norm() / test_outputs.norm()
    return {
        "chosen": choice.chosen,
        "by gradient": choice.by_gradient,
        "saved": choice.saved,
        "error": float(error),
    }


def load_results() -> dict[str, dict[str, list[dict]]]:
    """The committed results of :func:`run`: case → price (a string) → one entry per seed."""
    return json.loads(RESULTS.read_text(encoding="utf-8"))["results"]


if __name__ == "__main__":
    jobs = [(case, FLOAT_BITS, seed) for case in RIGHT for seed in range(SEEDS)]
    jobs += [
        (case, price, seed) for case in RIGHT for price in PRICES for seed in range(PRICE_SEEDS)
    ]
    with ProcessPoolExecutor(2) as processes:
        done = list(tqdm(processes.map(run, jobs), "layers", total=len(jobs)))
    results: dict = {case: {} for case in RIGHT}
    for (case, price, _), found in zip(jobs, done, strict=True):
        rounded = json.loads(
            json.dumps(found), parse_float=lambda text: float(f"{float(text):.4g}")
        )
        results[case].setdefault(f"{price:g}", []).append(rounded)
    head = {"command": "python -m helpers.choosing", "torch": torch.__version__.split("+")[0]}
    RESULTS.write_text(json.dumps({**head, "results": results}) + "\n", encoding="utf-8")
    sys.exit(0)
