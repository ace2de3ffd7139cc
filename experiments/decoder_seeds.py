"""Trains the small decoder from ten seeds and measures its heads and weights before and after.

Training is float32 on one CPU thread; everything measured is measured in float64 on ``heldout.txt``
(an hour on one core). ``python -m experiments.decoder_seeds`` makes the committed checkpoint of seed 0 again.
"""

import hashlib
from dataclasses import asdict
from math import log

import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import trange

from experiments.decoder import DECODER_FILE, Decoder, encode, windows
from experiments.decoder_measures import (
    ablation_costs,
    bits_per_byte,
    measure_heads,
    truncation_costs,
    update_ranks,
)
from experiments.store import Experiment
from helpers.data import heldout_text, training_text
from helpers.maths import generator, integers

STEPS = 1900
TOKENS_PER_STEP = 512
SHORT_WINDOW, SHORT_SHARE = 64, 0.8
"""Cheap short windows for the first 80 % of the steps, the full context for the rest."""
LEARNING_RATE, WARM_UP = 4e-3, 100
SEEDS = 10
LOSS_WINDOWS, HEAD_WINDOWS = 64, 8


def train(
    decoder: Decoder,
    tokens: Int64[Tensor, "bytes"],
    *,
    seed: int,
    steps: int = STEPS,
    progress: bool = True,
) -> Float[Tensor, "steps"]:
    """Train ``decoder`` in place to predict each next byte; returns every step's loss in bits.

    Adam (betas 0.9 and 0.95), gradients clipped to norm 1, learning rate rising linearly for 100
    steps (at most a tenth of them) and falling linearly to 0. There is no weight decay, which
    would add a multiple of the random start, of full rank, to every update that is measured.
    ``seed`` draws the windows.
    """
    stream = generator(seed, "batches")
    optimizer = torch.optim.Adam(decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    warm_up = min(WARM_UP, 1 + steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 1) * (1 - step / steps)
    )
    losses = torch.empty(steps)
    for step in (bar := trange(steps, desc=f"seed {seed}", mininterval=5, disable=not progress)):
        short = step < SHORT_SHARE * steps
        length = min(SHORT_WINDOW, decoder.context) if short else decoder.context
        count = max(1, TOKENS_PER_STEP // length)
        starts = integers(len(tokens) - length, count, 1, seed=stream)
        batch = tokens[starts + torch.arange(length + 1)]
        logits = decoder(batch[:, :-1])
        loss = nn.functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(decoder.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        losses[step] = loss.item() / log(2)
        if step % 50 == 49:
            bar.set_postfix_str(f"{losses[step - 49 : step + 1].mean():.2f} bits/byte")
    return losses


def trained(seed: int) -> Decoder:
    """The decoder that STEPS steps from ``seed`` end with."""
    decoder = Decoder(seed=seed)
    train(decoder, encode(training_text()), seed=seed, progress=False)
    return decoder


def run(seed: int) -> dict[str, object]:
    """What the heads are like before and after training, and what changing them costs."""
    before, after = Decoder(seed=seed).double().eval(), trained(seed).double().eval()
    text, tokens, context = heldout_text(), encode(training_text()), after.context
    loss_batch, batch = windows(text, context, LOSS_WINDOWS), windows(text, context, HEAD_WINDOWS)
    stride = len(tokens) // LOSS_WINDOWS
    seen = tokens[torch.arange(LOSS_WINDOWS)[:, None] * stride + torch.arange(context + 1)]
    with torch.no_grad():
        measured = {
            name: {
                "heldout_loss": bits_per_byte(decoder, loss_batch),
                "train_loss": bits_per_byte(decoder, seen),
                **asdict(measure_heads(decoder, batch[:, :-1])),
            }
            for name, decoder in (("before", before), ("after", after))
        }
    return measured | {
        "ablation": ablation_costs(after, batch),
        "truncation": truncation_costs(after, batch),
        "truncation_causal": truncation_costs(after, batch, causal=True),
        "updates": update_ranks(before, after),
    }


EXPERIMENT = Experiment(
    name="decoder_seeds",
    measure=run,
    jobs=[{"seed": seed} for seed in range(SEEDS)],
    settings={
        "steps": STEPS,
        "tokens per step": TOKENS_PER_STEP,
        "learning rate": LEARNING_RATE,
        "loss windows": LOSS_WINDOWS,
        "head windows": HEAD_WINDOWS,
    },
)


def load_results() -> list[dict]:
    """What :func:`run` measured, one entry per seed."""
    return [row for _, row in EXPERIMENT.load()]


if __name__ == "__main__":
    torch.set_num_threads(1)
    checkpoint = safetensors.torch.save(trained(0).state_dict())
    DECODER_FILE.write_bytes(checkpoint)
    digest = hashlib.sha256(checkpoint).hexdigest()
    print(f"DECODER_SHA256 in experiments/decoder.py must be {digest}")
