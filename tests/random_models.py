"""Small random transformers, the same each time, for tests that ask every family of models."""

import torch
from transformers import AutoModelForCausalLM

N, LAYERS, KEY_HEADS, WIDTH = 40, 2, 2, 32  # tokens of a prefix, and sizes of TEXT
TEXT = {
    "hidden_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 4,
    "num_key_value_heads": KEY_HEADS,
    "head_dim": WIDTH,
    "intermediate_size": 64,
    "vocab_size": 50,
    "max_position_embeddings": 100,
}


def random_model(config, auto=AutoModelForCausalLM):
    """With weights large enough that attention isn't flat; torch's own random state stays as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = auto.from_config(config)
        for weight in model.parameters():
            if weight.ndim == 2:
                torch.nn.init.normal_(weight, std=0.3)
    return model.eval()
