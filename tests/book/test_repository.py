"""The repository itself: what a clone, an installation and a commit get from it."""

import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import helpers

ROOT = Path(__file__).resolve().parents[2]
MADE = (".git", ".venv", "_build", "node_modules", "__pycache__", "*.egg-info", ".*_cache*")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files of the repository as they are now, without what is made from them."""
    copy = tmp_path_factory.mktemp("repository") / "book"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(*MADE), symlinks=True)
    return copy


# --- line ends --------------------------------------------------------------------------------


def git(*arguments: str, where: Path) -> str:
    who = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org")
    command = ["git", *who, "-c", "core.safecrlf=false", *arguments]
    return subprocess.run(command, cwd=where, check=True, capture_output=True, text=True).stdout


@pytest.mark.skipif(shutil.which("git") is None, reason="needs git")
def test_a_clone_that_converts_line_ends_still_runs(tree: Path, tmp_path: Path) -> None:
    git("init", "--quiet", where=tree)
    git("add", ".", where=tree)
    git("commit", "--quiet", "--message", "everything", where=tree)
    git("clone", "--quiet", "-c", "core.autocrlf=true", str(tree), "clone", where=tmp_path)
    clone = tmp_path / "clone"

    listed = git("ls-files", "--eol", where=clone).splitlines()
    assert len(listed) > 100
    assert [line for line in listed if "w/crlf" in line or "w/mixed" in line] == []
    for path in [p for p in tree.rglob("*") if p.suffix in {".gz", ".safetensors"}]:
        assert (clone / path.relative_to(tree)).read_bytes() == path.read_bytes(), path

    commands = tmp_path / "commands"  # .ci/run is run, with a make that only says its goal
    commands.mkdir()
    (commands / "make").write_text('#!/bin/sh\necho "make $*"\n', encoding="utf-8")
    (commands / "make").chmod(0o755)
    path = f"{commands}{os.pathsep}{os.environ['PATH']}"
    ran = subprocess.run(
        ["bash", ".ci/run"],
        cwd=clone,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
    )
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "make test\n", "")


# --- what is installed ------------------------------------------------------------------------


def requirements(name: str) -> list[Requirement]:
    lines = [line.split("#")[0].strip() for line in (ROOT / name).read_text("utf8").splitlines()]
    return [Requirement(line) for line in lines if line and not line.startswith("-")]


def versions(name: str) -> dict[str, str]:
    """Package to pinned version; every line is an exact pin."""
    pins = {}
    for requirement in requirements(name):
        (pin,) = requirement.specifier
        assert pin.operator == "==", f"{name}: {requirement} isn't pinned"
        pins[canonicalize_name(requirement.name)] = pin.version
    return pins


def wanted() -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf8"))["project"]
    extras = project["optional-dependencies"]
    return [Requirement(r) for r in (*project["dependencies"], *extras["book"], *extras["test"])]


def test_pins_lie_in_the_ranges_of_the_package() -> None:
    pins = versions("requirements.txt")
    assert {canonicalize_name(requirement.name) for requirement in wanted()} == set(pins)
    ranges = {canonicalize_name(requirement.name): requirement for requirement in wanted()}
    for requirement in requirements("requirements.txt"):
        name = canonicalize_name(requirement.name)
        assert ranges[name].specifier.contains(pins[name]), ranges[name]
        assert ranges[name].extras == requirement.extras, ranges[name]


def test_constraints_agree_with_the_pins() -> None:
    constraints = versions("constraints.txt")
    pins = versions("requirements.txt")
    assert {name: constraints.get(name) for name in pins} == pins


def test_wheel_and_sdist_hold_both_packages_and_their_data(tree: Path, tmp_path: Path) -> None:
    """Built by setuptools alone, as without a network."""
    build = "import setuptools.build_meta as b, sys; b.build_{}(sys.argv[1])"
    for kind in ("sdist", "wheel"):
        command = [sys.executable, "-c", build.format(kind), str(tmp_path)]
        subprocess.run(command, cwd=tree, check=True, capture_output=True)
    (wheel,), (source,) = tmp_path.glob("*.whl"), tmp_path.glob("*.tar.gz")
    packages = ("helpers/", "experiments/")
    held = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    with tarfile.open(source) as archive:
        names = (part.name.partition("/")[2] for part in archive if part.isfile())
        assert {name for name in names if name.startswith(packages)} == held
    files = {
        path.relative_to(tree).as_posix()
        for package in packages
        for path in (tree / package).rglob("*")
        if path.is_file()
    }
    assert any(name.startswith("experiments/results/") for name in files)
    assert any(name.startswith("helpers/data/texts/") for name in files)
    assert held == files
    assert wheel.name.split("-")[1] == helpers.__version__


def test_one_version_stands_everywhere() -> None:
    """pyproject.toml reads it from helpers/__init__.py."""
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf8"))
    newest = re.search(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text("utf8"), re.MULTILINE)[1]
    assert citation["version"] == helpers.__version__
    assert newest == f"{helpers.__version__} – {citation['date-released']}"


def test_a_shadowed_package_is_explained(tmp_path: Path) -> None:
    """What Python says where a reader's own helpers.py lies beside a notebook stands in "How to run"."""
    (tmp_path / "helpers.py").touch()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    run = subprocess.run(
        [sys.executable, "-c", "from helpers.maths import spectrum"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    error = run.stderr.splitlines()[-1].removeprefix("ModuleNotFoundError: ")
    page = (ROOT / "book/how_to_run.md").read_text("utf8")
    assert f"`{error}`" in page


# --- before a commit --------------------------------------------------------------------------


def test_hooks_run_from_the_environment() -> None:
    """Nothing is fetched for them, and each one's program comes with requirements.txt."""
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text("utf8"))
    (repository,) = hooks["repos"]
    assert repository["repo"] == "local"
    for hook in repository["hooks"]:
        assert hook["language"] == "system", hook["id"]
        program = Path(hook["entry"].split()[0])
        assert program.parent == Path(".venv/bin"), hook["id"]
        assert program.name == "python" or program.name in versions("requirements.txt")
