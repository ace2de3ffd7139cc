"""Trains the small decoder and measures it before and after.

``python -m helpers.training --all``
    seeds 0 … 9; writes ``helpers/data/decoder.safetensors`` (seed 0) and ``decoder_seeds.json``.
``python -m helpers.training --seed 0 --steps 50 --windows 1 --out DIR``
    one short run; writes the same two files to DIR.

Training is float32 on one CPU thread, so that a seed gives the same weights again on the same kind
of machine; everything measured is measured in float64 on ``heldout.txt``.
"""

import argparse
import hashlib
import json
import platform
from collections import Counter, defaultdict
from dataclasses import asdict
from math import log, log2
from pathlib import Path

import safetensors.torch
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from tqdm import trange

from experiments.decoder_measures import (
    ablation_costs,
    measure_heads,
    truncation_costs,
    update_ranks,
)
from helpers.data import DATA, encode, heldout_text, training_text, windows
from helpers.maths import integer
from helpers.models import BYTES, DECODER_SHA256, Decoder, bits_per_byte

STEPS = 1900
TOKENS_PER_STEP = 512
SHORT_WINDOW, SHORT_SHARE = 64, 0.8
"""Cheap short windows for the first 80 % of the steps, the full context for the rest."""
LEARNING_RATE, WARM_UP = 4e-3, 100
SEEDS = 10
LOSS_WINDOWS, HEAD_WINDOWS = 64, 8


def train(
    decoder: Decoder, tokens: Int64[Tensor, "bytes"], *, seed: int, steps: int = STEPS
) -> Float[Tensor, "steps"]:
    """Train ``decoder`` in place to predict each next byte; returns every step's loss in bits.

    Adam (betas 0.9 and 0.95), gradients clipped to norm 1, learning rate rising linearly for 100
    steps (at most a tenth of them) and falling linearly to 0. There is no weight decay, which
    would add a multiple of the random start, of full rank, to every update that is measured.
    ``seed`` draws the windows. Raises ValueError when ``tokens`` are no more than the context.
    """
    steps = integer(steps, "steps", least=1)
    if len(tokens) <= decoder.context:
        raise ValueError(f"tokens must hold more than {decoder.context} bytes, not {len(tokens)}")
    generator = torch.Generator().manual_seed(integer(seed, "seed", least=0))
    optimizer = torch.optim.Adam(decoder.parameters(), lr=LEARNING_RATE, betas=(0.9, 0.95))
    warm_up = min(WARM_UP, 1 + steps // 10)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / warm_up, 1) * (1 - step / steps)
    )
    losses = torch.empty(steps)
    for step in (progress := trange(steps, desc=f"seed {seed}", mininterval=5)):
        short = step < SHORT_SHARE * steps
        length = min(SHORT_WINDOW, decoder.context) if short else decoder.context
        count = max(1, TOKENS_PER_STEP // length)
        starts = torch.randint(len(tokens) - length, (count, 1), generator=generator)
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
            progress.set_postfix_str(f"{losses[step - 49 : step + 1].mean():.2f} bits/byte")
    return losses


def ngram_bits(
    train_tokens: Int64[Tensor, "bytes"], batch: Int64[Tensor, "batch n_plus_1"], order: int
) -> float:
    """Bits per byte of an n-gram model of ``order`` (1: unigram, 2: bigram, …) on the same targets.

    Interpolated Witten–Bell smoothing (Witten & Bell 1991, method C), which has nothing to tune:
    P(c|h) = (N(hc) + T(h)·P(c|h′)) / (N(h) + T(h)), with T(h) the number of different bytes seen
    after the history h and h′ the history without its first byte; below the unigram, 1/256.
    """
    order = integer(order, "order", least=1)
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


def measure(before: Decoder, after: Decoder, train_tokens: Tensor, head_windows: int) -> dict:
    """Everything ``decoder_seeds.json`` says of one seed, computed in float64."""
    before, after = before.double().eval(), after.double().eval()
    text, context = heldout_text(), after.context
    loss_batch, batch = windows(text, context, LOSS_WINDOWS), windows(text, context, head_windows)
    stride = len(train_tokens) // LOSS_WINDOWS
    seen = train_tokens[torch.arange(LOSS_WINDOWS)[:, None] * stride + torch.arange(context + 1)]
    with torch.no_grad():
        result = {
            name: {
                "heldout_loss": bits_per_byte(decoder, loss_batch),
                "train_loss": bits_per_byte(decoder, seen),
                **asdict(measure_heads(decoder, batch[:, :-1])),
            }
            for name, decoder in (("before", before), ("after", after))
        }
    return result | {
        "ablation": ablation_costs(after, batch),
        "truncation": truncation_costs(after, batch),
        "truncation_causal": truncation_costs(after, batch, causal=True),
        "updates": update_ranks(before, after),
    }


def run(seeds: list[int], steps: int, head_windows: int, out: Path, command: str) -> None:
    """Train and measure each seed; write ``decoder.safetensors`` of the first and the JSON file."""
    torch.set_num_threads(1)
    out.mkdir(parents=True, exist_ok=True)
    text = training_text()
    tokens = encode(text)
    shape = Decoder(seed=0)
    loss_batch = windows(heldout_text(), shape.context, LOSS_WINDOWS)
    results = {
        "meta": {
            "command": command,
            "seeds": seeds,
            "steps": steps,
            "tokens_per_step": TOKENS_PER_STEP,
            "parameters": sum(p.numel() for p in shape.parameters()),
            "width": shape.embedding.embedding_dim,
            "layers": len(shape.blocks),
            "heads": shape.blocks[0].heads,
            "context": shape.context,
            "loss_windows": LOSS_WINDOWS,
            "head_windows": head_windows,
            "training_bytes": len(tokens),
            "training_text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "python": platform.python_version(),
            "torch": torch.__version__.split("+")[0],
        },
        "ngram_heldout_loss": {
            str(order): round(ngram_bits(tokens, loss_batch, order), 4) for order in range(1, 6)
        },
        "seeds": [],
    }
    for seed in seeds:
        decoder = Decoder(seed=seed)
        train(decoder, tokens, seed=seed, steps=steps)
        if seed == seeds[0]:
            checkpoint = safetensors.torch.save(decoder.state_dict())
            (out / "decoder.safetensors").write_bytes(checkpoint)
            digest = hashlib.sha256(checkpoint).hexdigest()
            if digest != DECODER_SHA256:
                print(
                    f"a new checkpoint: DECODER_SHA256 in helpers/decoder.py must become {digest}"
                )
        measured = measure(Decoder(seed=seed), decoder, tokens, head_windows)
        results["seeds"].append({"seed": seed, **rounded(measured)})
        # Written after every seed: an interrupted run keeps what it has.
        write_json(out / "decoder_seeds.json", results)


def rounded(value: object) -> object:
    """Nested dicts, tensors and floats as JSON values with 5 significant digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, Tensor):
        return rounded(value.tolist())
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}")


def write_json(path: Path, results: dict) -> None:
    """One line per seed, so that a diff shows which seed changed."""
    seeds = ",\n".join(json.dumps(seed) for seed in results["seeds"])
    head = json.dumps({key: item for key, item in results.items() if key != "seeds"}, indent=1)
    path.write_text(f'{head[:-2]},\n "seeds": [\n{seeds}\n ]\n}}\n', encoding="utf-8")


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m helpers.training", description=__doc__)
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument(
        "--all", action="store_true", help=f"seeds 0 … {SEEDS - 1}, into helpers/data"
    )
    which.add_argument("--seed", type=int, help="one seed; needs --out")
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument(
        "--windows", type=int, default=HEAD_WINDOWS, help="held-out windows for the heads"
    )
    parser.add_argument("--out", type=Path, help="folder to write to")
    options = parser.parse_args(arguments)
    if options.seed is not None and options.out is None:
        parser.error(
            "--seed needs --out, so that a short run cannot overwrite the committed results"
        )
    seeds = list(range(SEEDS)) if options.all else [options.seed]
    chosen = "--all" if options.all else f"--seed {options.seed}"
    command = (
        f"python -m helpers.training {chosen} --steps {options.steps} --windows {options.windows}"
    )
    run(seeds, options.steps, options.windows, options.out or DATA, command)


if __name__ == "__main__":
    main()
