"""Trained models, and what they attend to."""

# fmt: off
from helpers.models.files import ModelFileError, read_verified
from helpers.models.minilm import (
    MINILM_PACKAGE, MINILM_SHA256, MINILM_WINDOW, minilm, minilm_folder, minilm_tokens,
)
from helpers.models.smollm import CACHE_VARIABLE, LanguageModel, SMOLLM_SHA256, fetch_smollm, smollm
from helpers.models.transformer import Transform, attention_maps, queries_keys_values, replaced_attention
from helpers.models.prefix import Prefix, ReadPrefix, compact_prefix, read_prefix
