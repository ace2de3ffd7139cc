"""How well counts of n-grams predict the next byte: the baseline of the small decoder (half a minute)."""

from collections import Counter, defaultdict
from math import log2

from jaxtyping import Int64
from torch import Tensor

from experiments.decoder import BYTES, encode, windows
from experiments.decoder_seeds import LOSS_WINDOWS
from experiments.store import Experiment
from helpers.data import heldout_text, training_text

CONTEXT = 256


def ngram_bits(
    train_tokens: Int64[Tensor, "bytes"], batch: Int64[Tensor, "batch n_plus_1"], order: int
) -> float:
    """Bits per byte of an n-gram model of ``order`` (1: unigram, 2: bigram, …) on the same targets.

    Interpolated Witten–Bell smoothing (Witten & Bell 1991, method C), which has nothing to tune:
    P(c|h) = (N(hc) + T(h)·P(c|h′)) / (N(h) + T(h)), with T(h) the number of different bytes seen
    after the history h and h′ the history without its first byte; below the unigram, 1/256.
    """
    text = bytes(train_tokens.tolist())
    follow: defaultdict[bytes, Counter[int]] = defaultdict(Counter)
    for size in range(order):
        for place in range(size, len(text)):
            follow[text[place - size : place]][text[place]] += 1
    totals = {history: counts.total() for history, counts in follow.items()}

    bits, predicted = 0.0, 0
    for row in map(bytes, batch.tolist()):
        for place in range(1, len(row)):
            probability = 1 / BYTES
            for size in range(min(order - 1, place) + 1):
                history = row[place - size : place]
                if history in totals:
                    kinds, seen = len(follow[history]), follow[history][row[place]]
                    probability = (seen + kinds * probability) / (totals[history] + kinds)
            bits -= log2(probability)
            predicted += 1
    return bits / predicted


def run(order: int) -> float:
    """Bits per byte on the windows on which the decoder is judged."""
    loss_batch = windows(heldout_text(), CONTEXT, LOSS_WINDOWS)
    return ngram_bits(encode(training_text()), loss_batch, order)


EXPERIMENT = Experiment(
    name="byte_counts",
    measure=run,
    jobs=[{"order": order} for order in range(1, 6)],
    settings={"context": CONTEXT, "loss windows": LOSS_WINDOWS},
)


def load_counts() -> dict[int, float]:
    """Order → bits per byte."""
    return {job["order"]: bits for job, bits in EXPERIMENT.load()}
