"""Any transformer's attention: small random models of six families."""

import pytest
import torch
import transformers
from random_models import random_model

from helpers.maths import attention_weights, causal_mask
from helpers.models import (
    attention_maps,
    minilm,
    minilm_tokens,
    queries_keys_values,
    replaced_attention,
)

N = 12
SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
TEXT = {**SIZES, "intermediate_size": 64, "vocab_size": 50, "max_position_embeddings": 32}
CONFIGURATIONS = {
    "gpt2": transformers.GPT2Config(n_embd=32, n_layer=2, n_head=4, vocab_size=50, n_positions=32),
    "llama": transformers.LlamaConfig(**TEXT, num_key_value_heads=2),
    "qwen3": transformers.Qwen3Config(**TEXT, num_key_value_heads=2, head_dim=16),
    "bert": transformers.BertConfig(**TEXT),
    "t5": transformers.T5Config(
        d_model=32, d_kv=8, d_ff=64, num_layers=2, num_heads=4, vocab_size=50
    ),
    "vit": transformers.ViTConfig(**SIZES, intermediate_size=64, image_size=16, patch_size=4),
}
CAUSAL = ("gpt2", "llama", "qwen3")


@pytest.fixture
def model(request):
    """A random model of the family asked for, with weights that make attention far from uniform."""
    causal = request.param in CAUSAL
    auto = transformers.AutoModelForCausalLM if causal else transformers.AutoModel
    return random_model(CONFIGURATIONS[request.param], auto)


def inputs(model):
    numbers = torch.Generator().manual_seed(1)
    if model.main_input_name == "pixel_values":
        return torch.randn(1, 3, 16, 16, generator=numbers)
    return torch.randint(50, (N,), generator=numbers)


families = pytest.mark.parametrize("model", CONFIGURATIONS, indirect=True)


@families
def test_maps_are_the_models_own_attentions(model):
    ids = inputs(model)
    body = model.get_encoder() if model.config.is_encoder_decoder else model
    body.eval().set_attn_implementation("eager")
    batch = ids if ids.ndim == 4 else ids[None]
    with torch.no_grad():
        own = body(**{model.main_input_name: batch}, output_attentions=True).attentions
    weights = attention_maps(model, ids)
    assert torch.equal(weights, torch.cat(own))
    assert weights.shape == (2, 4, weights.shape[-1], weights.shape[-1])
    torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    # a diagonal of a random matrix: attention that is not the mean of everything
    assert weights.std(-1).mean() > 0.05


@families
def test_queries_and_keys_give_the_maps(model):
    ids = inputs(model)
    if model.config.model_type == "t5":
        with pytest.raises(ValueError, match="model must weigh by softmax.*position_bias"):
            queries_keys_values(model, ids)
        return
    queries, keys, values = queries_keys_values(model, ids)
    group = queries.shape[1] // keys.shape[1]
    assert group == (2 if model.config.model_type in ("llama", "qwen3") else 1)
    n = queries.shape[-2]
    mask = causal_mask(n) if model.config.model_type in CAUSAL else None
    weights = attention_weights(queries, keys.repeat_interleave(group, 1), mask=mask)
    torch.testing.assert_close(weights, attention_maps(model, ids), rtol=0, atol=1e-5)
    assert values.shape == keys.shape
    torch.testing.assert_close(
        weights[0] @ values[0].repeat_interleave(group, 0), mixed(model, ids), rtol=0, atol=1e-5
    )


def mixed(model, ids):
    """Attention's output in the first layer (heads, n, d), taken where the last projection reads it."""
    projections = ("c_proj", "o_proj", "output.dense", "attention.output.dense")
    module = next(
        part
        for name, part in model.named_modules()
        if name.endswith(projections) and "attn" in name + "attn" * ("attention" in name)
    )
    seen = []
    hook = module.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    model.eval()
    with torch.no_grad():
        model(**{model.main_input_name: ids if ids.ndim == 4 else ids[None]})
    hook.remove()
    return seen[0][0].unflatten(-1, (4, -1)).transpose(0, 1)


@families
def test_a_model_is_left_as_it_was_also_after_an_error(model, monkeypatch):
    ids = inputs(model)
    model.train()
    model.base_model.get_submodule(
        next(name for name, _ in model.base_model.named_children())
    ).eval()
    modes = [module.training for module in model.modules()]
    before = model.config._attn_implementation
    assert torch.equal(attention_maps(model, ids), attention_maps(model, ids))  # no dropout
    body = model.get_encoder() if model.config.is_encoder_decoder else model.base_model
    monkeypatch.setattr(body, "forward", None)
    for look in (attention_maps, queries_keys_values):
        with pytest.raises(TypeError):
            look(model, ids)
    assert [module.training for module in model.modules()] == modes
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("model", CAUSAL, indirect=True)
def test_replaced_attention_mixes_with_what_comes_back(model):
    ids = inputs(model)[None]
    model.eval()
    with torch.no_grad():
        usual = model(ids).logits
        with replaced_attention(model, lambda _, weights: weights):
            torch.testing.assert_close(model(ids).logits, usual, rtol=0, atol=1e-4)
        seen = []
        with replaced_attention(model, lambda layer, weights: seen.append(layer) or 0 * weights):
            alone = model(ids).logits
        assert seen == [0, 1]
        # Without attention the last place knows its own token only.
        other = ids.clone()
        other[0, 0] = (other[0, 0] + 1) % 50
        with replaced_attention(model, lambda _, weights: 0 * weights):
            torch.testing.assert_close(model(other).logits[:, 1:], alone[:, 1:])
        assert (model(other).logits[:, -1] - usual[:, -1]).abs().max() > 1e-3
        assert torch.equal(model(ids).logits, usual)


def test_autocast_does_not_lower_the_precision():
    ids = minilm_tokens("Attention is all you need.")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        weights = attention_maps(minilm(), ids)
    assert torch.equal(weights, attention_maps(minilm(), ids))


@pytest.mark.bad_input
@pytest.mark.parametrize("look", [attention_maps, queries_keys_values])
@pytest.mark.parametrize(
    ("model", "bad", "said"),
    [
        ("llama", "a text", "input_ids must be token ids, not a text"),
        ("llama", [1, 2], "input_ids must be an int64 tensor, not list"),
        ("llama", torch.ones(3), "input_ids must be an int64 tensor, not torch.float32"),
        ("llama", torch.zeros(0, dtype=torch.int64), "input_ids must .* not be empty"),
        ("llama", torch.ones(2, 3, dtype=torch.int64), r"input_ids must .* not \(2, 3\)"),
        ("llama", torch.tensor([3, 50]), "input_ids must lie in 0 … 49, but run 3 … 50"),
        ("bert", torch.tensor([-1]), "input_ids must lie in 0 … 49, but run -1 … -1"),
        ("gpt2", torch.ones(33, dtype=torch.int64), "input_ids must be at most 32 tokens, not 33"),
        ("vit", "a text", "input_ids must be the tensor pixel_values"),
    ],
    indirect=["model"],
)
def test_wrong_inputs_are_named(model, bad, said, look):
    with pytest.raises((TypeError, ValueError), match=f"^{said}"):
        look(model, bad)


@pytest.mark.bad_input
@pytest.mark.parametrize("look", [attention_maps, queries_keys_values])
def test_models_without_attention_are_named(look):
    with pytest.raises(TypeError, match="^model must be a transformers model, not Linear"):
        look(torch.nn.Linear(2, 2), torch.ones(3, dtype=torch.int64))
    config = transformers.MambaConfig(hidden_size=32, num_hidden_layers=1, vocab_size=50)
    with pytest.raises(ValueError, match="^model must have attention, but MambaModel"):
        look(transformers.MambaModel(config), torch.ones(3, dtype=torch.int64))
