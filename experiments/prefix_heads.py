"""Which layers and heads of SmolLM2 are hard to keep in landmarks, and what predicts it? (A quarter of an hour on one core.)

Each layer in turn keeps one landmark for sixteen tokens while the others keep everything; and the outputs of each
head are compared, for queries of the text that follows, which nothing was fitted to.
"""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.prefix_bench import compacted, read, text_ids
from experiments.smollm_census import k99
from experiments.store import Experiment
from helpers.maths import Part, attention_part, combine
from helpers.models import Prefix, attention_maps, queries_keys_values, smollm

NAMES = ("dialogue", "prose 0", "lists 0", "code 0")
ARM = "landmarks, n/16"


def lost_by_layer(kept: Prefix, full: Prefix, name: str) -> dict[str, list[float]]:
    """KL(full ‖ one layer kept) in nats per token, for every layer and both tasks."""
    _, tasks, exact, _ = read(name)
    lost: dict[str, list[float]] = {task: [] for task in tasks}
    for place in range(len(kept.layers)):
        layers = [*full.layers]
        layers[place] = kept.layers[place]
        mixed = replace(full, layers=layers)
        for task, ids in tasks.items():
            wanted, said = exact[task].log_softmax(-1), mixed.logits(ids).log_softmax(-1)
            lost[task].append(float((wanted.exp() * (wanted - said)).sum(-1).mean()))
    return lost


def head_errors(kept: Prefix, name: str) -> Float[Tensor, "layers heads"]:
    """‖ô − o‖/‖o‖ of every query head over the queries of what follows; o is attention to the prefix and since."""
    prefix, following, _ = text_ids(name)
    n, t = len(prefix), len(following)
    unseen = torch.full((t, t), float("-inf")).triu(1)
    errors = []
    parts = queries_keys_values(smollm().model, torch.cat([prefix, following]))
    for layer, queries, keys, values in zip(kept.layers, *parts, strict=True):
        # Key heads, then the query heads that each serves.
        asked = queries[:, n:].unflatten(0, (len(keys), -1)).float()
        k, v = keys[:, None].float(), values[:, None].float()
        s = layer.scale
        since = attention_part(asked, k[..., n:, :], v[..., n:, :], scale=s, bias=unseen)
        exact = attention_part(asked, k[..., :n, :], v[..., :n, :], scale=s)
        ours = layer.landmarks.attend(asked.flatten(1, 2))
        ours = Part(*(x.unflatten(1, (-1, t)) for x in ours))
        wanted, given = (combine(part, since).outputs for part in (exact, ours))
        missed = (given - wanted).square().sum((-2, -1)) / wanted.square().sum((-2, -1))
        errors.append(missed.sqrt().flatten())
    return torch.stack(errors)


def run(name: str) -> dict[str, object]:
    """Losses by layer; of each head its error, k₉₉ of its attention within the prefix, and the weight on the first token."""
    reading = read(name)[0]
    kept, full = compacted(name, ARM), reading.compact(method="full")
    A = attention_maps(smollm().model, reading.ids)
    return {
        **lost_by_layer(kept, full, name),
        "errors": head_errors(kept, name),
        "k99": torch.stack([k99(layer) for layer in A]),
        "sink": (1000 * A[..., 0].mean(-1)).round().int(),
    }


EXPERIMENT = Experiment(
    name="prefix_heads",
    measure=run,
    jobs=[{"name": name} for name in NAMES],
    settings={"arm": ARM},
)


def load_results() -> dict[str, dict[str, Tensor]]:
    """Prefix → "next" and "recall" (layers,), "errors", "k99" and "sink" (layers, heads)."""
    return {
        str(job["name"]): {name: torch.tensor(values) for name, values in row.items()}
        for job, row in EXPERIMENT.load()
    }
