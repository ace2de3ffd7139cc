"""Which layers of SmolLM2 are hard to keep in landmarks: one layer at a time, the others whole (ten minutes on one core)."""

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from experiments.prefix_bench import compacted, read
from experiments.store import Experiment

NAMES = ("prose 0", "prose 3", "prose 6")
ARM = "landmarks, n/16"


def run(name: str) -> list[float]:
    """KL(full ‖ one layer in landmarks) on a passage of the prefix, layer by layer, in nats per token."""
    reading, tasks, exact, _ = read(name)
    full, small = reading.compact(method="full"), compacted(name, ARM)
    expected = exact["recall"].log_softmax(-1)
    costs = []
    for place, kept in enumerate(small.layers):
        mixed = replace(full, layers=[*full.layers[:place], kept, *full.layers[place + 1 :]])
        found = mixed.logits(tasks["recall"]).log_softmax(-1)
        costs.append(float((expected.exp() * (expected - found)).sum(-1).mean()))
    return costs


EXPERIMENT = Experiment(
    name="prefix_layers",
    measure=run,
    jobs=[{"name": name} for name in NAMES],
    settings={"arm": ARM},
)


def load_layers() -> Float[Tensor, "texts layers"]:
    """Costs by text and layer."""
    return torch.tensor([row for _, row in EXPERIMENT.load()])
