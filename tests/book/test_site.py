"""What the site is made from: its build, the ledger page, the scripts in tools/."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import yaml
from docutils import nodes
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
FRONTEND = ROOT / "book" / "frontend"


def load(path: str) -> ModuleType:
    """A script of the repository as a module."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


runner = load("tools/run_notebooks.py")
extension = load("book/_ext/attention_book.py")
explorers = load("book/_ext/explorers.py")
mathematics = load("book/_ext/mathematics.py")
ledger_page = load("book/_ext/claim_ledger.py")


# --- the build --------------------------------------------------------------------------------


@pytest.fixture
def small_book(tmp_path: Path) -> Path:
    """The book with one page of its own, in a folder with brackets in its name."""
    book = tmp_path / "[new]" / "book"
    for part in ("book/_ext", "book/_static"):
        shutil.copytree(ROOT / part, book / part)
    for part in ("_config.yml", "README.md", "CONTRIBUTING.md", "book/references.bib"):
        shutil.copy(ROOT / part, book / part)
    (book / "book/frontend").mkdir()
    (book / "book/frontend/node_modules").symlink_to(FRONTEND / "node_modules")
    (book / "tests").mkdir()
    (book / "tests/notes.md").write_text("# No page of the book")
    (book / "_toc.yml").write_text("format: jb-book\nroot: book/index\n")
    table = "| a | b |\n|---|---|\n| 20 of 20 | $\\sigma_1$ |\n"
    (book / "book/index.md").write_text(f"# The only page\n\nHere is $x^2$.\n\n{table}")
    return book


def build(book: Path) -> subprocess.CompletedProcess[str]:
    command = [str(Path(sys.executable).with_name("jupyter-book"))]
    return subprocess.run(
        [*command, "build", "-W", "-n", "--keep-going", "--quiet", "."],
        cwd=book,
        capture_output=True,
        text=True,
    )


def test_a_book_in_a_folder_with_brackets_builds(small_book: Path) -> None:
    done = build(small_book)
    assert done.returncode == 0, done.stderr
    page = (small_book / "_build/html/index.html").read_text("utf8")
    assert page.count('class="katex"') == page.count("<math ") == 2
    assert 'aria-label="The only page"' in page
    assert '<td class="af-number">' in page
    assert not list(small_book.glob("_build/html/**/*notes*"))


def test_a_theme_that_was_not_expected_stops_the_build(small_book: Path) -> None:
    (small_book / "_templates").mkdir()
    (small_book / "_templates/layout.html").write_text(
        '{% extends "!layout.html" %}'
        "{% block css %}{{ super() | replace('localStorage.getItem(\"theme\")', 'choice()') }}{% endblock %}"
    )
    config = (small_book / "_config.yml").read_text("utf8")
    changed = config.replace(
        "    language: en\n", "    language: en\n    templates_path: [_templates]\n"
    )
    assert changed != config
    (small_book / "_config.yml").write_text(changed, "utf8")
    done = build(small_book)
    assert done.returncode != 0
    assert "attention_book: index.html doesn't hold" in done.stdout + done.stderr


GOOD_PAGE = extension.COLOURS + "".join(f"<script>{mark}</script>" for mark in extension.THEME)


@pytest.mark.parametrize(
    ("page", "message"),
    [
        ("<p>passed over</p>", "doesn't hold"),
        (GOOD_PAGE.replace(extension.THEME[1], ""), "doesn't hold"),
        (GOOD_PAGE * 2, "doesn't hold"),
        (GOOD_PAGE + '<script type="application/vnd.jupyter.widget-view+json">', "still holds vnd"),
        (GOOD_PAGE + '<span class="math notranslate nohighlight">', "still holds class"),
    ],
)
def test_a_page_that_was_passed_over_stops_the_build(
    tmp_path: Path, page: str, message: str
) -> None:
    app = SimpleNamespace(
        outdir=tmp_path, builder=SimpleNamespace(name="html"), env=SimpleNamespace(found_docs=["a"])
    )
    (tmp_path / "a.html").write_text(GOOD_PAGE)
    extension.check_pages(app, None)
    (tmp_path / "b.html").write_text(page)
    with pytest.raises(ExtensionError, match=f"b.html {message}"):
        extension.check_pages(app, None)


def test_fewer_pages_than_documents_stop_the_build(tmp_path: Path) -> None:
    app = SimpleNamespace(
        outdir=tmp_path, builder=SimpleNamespace(name="html"), env=SimpleNamespace(found_docs=["a"])
    )
    with pytest.raises(ExtensionError, match="fewer pages"):
        extension.check_pages(app, None)


def test_a_table_that_was_not_expected_stops_the_build() -> None:
    document = nodes.document(None, None, nodes.table())
    context = {"body": '<table class="newer"><th>x</th></table>'}
    with pytest.raises(ExtensionError, match="a table of p isn't written as it was"):
        extension.repair_body(None, "p", "", context, document)


def test_a_style_sheet_without_the_fonts_stops_the_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "katex.min.css").write_text("@font-face{src:url(fonts/newer.woff3)}")
    monkeypatch.setattr(mathematics, "KATEX", tmp_path)
    with pytest.raises(ExtensionError, match="doesn't name its fonts"):
        mathematics.write_style(SimpleNamespace(outdir=tmp_path))


def test_widgets_that_would_be_dead_stop_the_build() -> None:
    body = '<script type="application/vnd.jupyter.widget-view+json">{"model_id": "w"}</script>'
    context = {"body": body, "script_files": []}
    with pytest.raises(ExtensionError, match="p has widgets, but 0 saved states"):
        explorers.draw_explorers(None, "p", "", context, None)
    with pytest.raises(ExtensionError, match="only widgets that work"):
        explorers.explorer(1, {"w": {"state": {}}}, "w")
    loose = {
        "box": {"model_name": "VBoxModel", "state": {"children": ["IPY_MODEL_s", "IPY_MODEL_p"]}},
        "s": {
            "model_name": "SliderModel",
            "state": {"_options_labels": ["1"], "description": "x", "index": 0},
        },
        "p": {"model_name": "StackModel", "state": {"children": ["IPY_MODEL_h"]}},
        "h": {"model_name": "HTMLModel", "state": {"value": "picture"}},
    }
    loose["box"]["state"]["_dom_classes"] = ["af-explorer"]
    with pytest.raises(ExtensionError, match="isn't linked"):
        explorers.explorer(1, loose, "box")
    loose["link"] = {"model_name": "LinkModel"}
    loose["link"]["state"] = {"source": ["IPY_MODEL_s", "i"], "target": ["IPY_MODEL_p", "i"]}
    assert "picture" in explorers.explorer(1, loose, "box")


# --- make -------------------------------------------------------------------------------------


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A repository that needs no package."""
    for name in ("requirements.txt", "constraints.txt", "pyproject.toml"):
        (tmp_path / name).touch()
    shutil.copy(ROOT / "Makefile", tmp_path)
    return tmp_path


def make(*arguments: str, where: Path) -> subprocess.CompletedProcess[str]:
    outer = ("MAKEFLAGS", "MFLAGS", "MAKEOVERRIDES", "PYTHON")
    environment = {name: value for name, value in os.environ.items() if name not in outer}
    return subprocess.run(
        ["make", *arguments], cwd=where, env=environment, capture_output=True, text=True
    )


def test_an_environment_without_pip_is_mended(bare: Path) -> None:
    """And Python may lie in a folder with a space in its name."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", ".venv"], cwd=bare, check=True)
    python = bare / "a b" / "python3"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    done = make(f"PYTHON={python}", "environment", where=bare)
    assert done.returncode == 0, done.stderr
    subprocess.run([bare / ".venv/bin/python", "-m", "pip", "--version"], check=True)
    assert list(bare.glob(".venv/.installed-*"))


def test_an_environment_is_made_with_a_python_in_a_folder_with_a_space(bare: Path) -> None:
    """The Python is a stand-in that makes no environment: only how it is called matters."""
    python = bare / "a b" / "python3"
    python.parent.mkdir()
    python.write_text('#!/bin/sh\necho "$@" >>called\nexit 0\n')
    python.chmod(0o755)
    make(f"PYTHON={python}", "environment", where=bare)
    assert (bare / "called").read_text().splitlines()[-1] == "-m venv .venv"


def test_an_environment_that_cannot_be_mended_is_told_in_a_sentence(bare: Path) -> None:
    python = bare / ".venv/bin/python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    done = make(f"PYTHON={sys.executable}", "environment", where=bare)
    assert done.returncode != 0
    assert (
        ".venv has no pip, and its Python cannot install one: install python3-venv" in done.stdout
    )


# --- notebooks --------------------------------------------------------------------------------


def notebook_with_slider() -> nbformat.NotebookNode:
    source = "import ipywidgets\nprint(1)\nipywidgets.VBox([ipywidgets.IntSlider(3)])"
    cell = nbformat.v4.new_code_cell(source, id="only")
    return nbformat.v4.new_notebook(cells=[cell])


def test_running_a_notebook_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "slider.ipynb"
    nbformat.write(notebook_with_slider(), path)
    runner.run(path)
    first = path.read_bytes()
    runner.run(path)
    assert path.read_bytes() == first

    notebook = json.loads(first)
    models = notebook["metadata"]["widgets"][WIDGET_STATE]["state"]
    assert len(models) >= 4  # box and slider, each with its layout
    view = notebook["cells"][0]["outputs"][1]["data"]["application/vnd.jupyter.widget-view+json"]
    (child,) = models[view["model_id"]]["state"]["children"]
    assert models[child.removeprefix("IPY_MODEL_")]["state"]["value"] == 3
    assert notebook["metadata"]["language_info"] == {"name": "python", "pygments_lexer": "ipython3"}
    assert "execution" not in notebook["cells"][0]["metadata"]


def test_a_failing_cell_leaves_the_notebook_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "broken.ipynb"
    cells = [nbformat.v4.new_code_cell("1 / 0", id="only")]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    before = path.read_bytes()
    with pytest.raises(runner.CellExecutionError, match="ZeroDivisionError"):
        runner.run(path)
    assert path.read_bytes() == before


# --- ledger page and pages around it ----------------------------------------------------------


def test_a_malformed_ledger_stops_the_build(monkeypatch: pytest.MonkeyPatch) -> None:
    def malformed() -> None:
        raise ValueError("S03: kind must be one of …")

    monkeypatch.setattr(ledger_page.claims, "ledger", malformed)
    with pytest.raises(ExtensionError, match="claim ledger: S03: kind"):
        ledger_page.read_ledger()


def test_bound_numbers_are_read_from_outputs(tmp_path: Path) -> None:
    mime = "application/papermill.record/text/plain"
    scrapbook = {"name": "S03", "mime_prefix": "application/papermill.record/"}
    output = nbformat.v4.new_output(
        "display_data", data={mime: "'24%'"}, metadata={"scrapbook": scrapbook}
    )
    cell = nbformat.v4.new_code_cell("", outputs=[output])
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "n.ipynb")
    assert ledger_page.bound_numbers(tmp_path / "n.ipynb") == {"S03": "24%"}


def test_a_claim_is_tested_where_its_card_is(tmp_path: Path) -> None:
    """In its chapter or in the evidence for it, whatever other chapters show."""
    shown = {"notebooks/03_a": [], "notebooks/evidence/03_a": ["S03"], "notebooks/04_b": ["S04"]}
    for page, ids in shown.items():
        html = "".join(f'<div class="af-claim" id="claim-{id_}"></div>' for id_ in ids)
        output = nbformat.v4.new_output("display_data", data={"text/html": html})
        cell = nbformat.v4.new_code_cell("", outputs=[output])
        path = tmp_path / f"{page}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), path)
    env = SimpleNamespace(found_docs=set(shown), doc2path=lambda page: tmp_path / f"{page}.ipynb")
    claim = SimpleNamespace(id="S03", chapter=3)
    assert ledger_page.tested_page(env, claim) == "notebooks/evidence/03_a"
    with pytest.raises(ExtensionError, match="S04 is called tested, but neither chapter 3 nor"):
        ledger_page.tested_page(env, SimpleNamespace(id="S04", chapter=3))


def test_no_claim_is_left_untested() -> None:
    claims = ledger_page.claims
    assert [c.id for c in claims.ledger().values() if c.verdict == claims.UNTESTED] == []


def launch_options(monkeypatch: pytest.MonkeyPatch, url: str | None) -> dict[str, object]:
    if url is None:
        monkeypatch.delenv("BOOK_REPOSITORY_URL", raising=False)
    else:
        monkeypatch.setenv("BOOK_REPOSITORY_URL", url)
    config = SimpleNamespace(html_theme_options={})
    extension.add_launch_buttons(None, config)
    return config.html_theme_options


def test_launch_buttons_need_an_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert launch_options(monkeypatch, None) == {}
    options = launch_options(monkeypatch, "https://github.com/owner/name.git")
    assert options["repository_url"] == "https://github.com/owner/name"
    assert options["launch_buttons"]["binderhub_url"]
    with pytest.raises(ExtensionError, match="BOOK_REPOSITORY_URL must look like"):
        launch_options(monkeypatch, "github.com/owner")


def test_the_root_page_moves_its_addresses(tmp_path: Path) -> None:
    (tmp_path / "book").mkdir()
    page = '<html data-content_root="../"><a href="how.html#x"></a><a href="#y"></a>'
    page += '<script src="../_static/a.js?v=1"></script><a href="https://a.b/c"></a>'
    (tmp_path / "book/index.html").write_text(page)
    config = SimpleNamespace(root_doc="book/index")
    builder = SimpleNamespace(name="html")
    app = SimpleNamespace(outdir=tmp_path, config=config, builder=builder)
    extension.write_root_page(app, None)
    moved = page.replace("../_static", "_static").replace("how.html", "book/how.html")
    assert (tmp_path / "index.html").read_text() == moved.replace('"../"', '"./"')


# --- environment and contents -----------------------------------------------------------------


def test_every_chapter_and_module_is_in_the_book() -> None:
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    listed = [Path(page["file"]) for part in toc["parts"] for page in part["chapters"]]
    for folder in (Path("notebooks"), Path("notebooks/evidence")):
        names = sorted(path.stem for path in (ROOT / folder).glob("*.ipynb"))
        assert [page.name for page in listed if page.parent == folder] == names, (
            f"_toc.yml lists each notebook of {folder}/, in the order of their numbers"
        )
    front = (ROOT / "book/index.ipynb").read_text("utf8")
    for name in (path.name for path in (ROOT / "notebooks").glob("0*.ipynb")):
        assert name in front, f"book/index.ipynb lists every chapter, and README.md; {name} is new"
    modules = {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for package in ("helpers", "experiments")
        for path in (ROOT / package).rglob("*.py")
        if path.stem != "__main__"
    }
    wings = {name.removesuffix(".__init__") for name in modules}
    described = re.findall(r"automodule:: (\S+)", (ROOT / "book/reference.md").read_text("utf8"))
    assert set(described) == wings - {"helpers", "experiments"}


def test_lock_files_name_digests_and_no_host() -> None:
    for name in ("requirements.txt", "constraints.txt"):
        assert "://" not in (ROOT / name).read_text("utf8"), name
    packages = json.loads((FRONTEND / "package-lock.json").read_text("utf8"))["packages"]
    wanted = json.loads((FRONTEND / "package.json").read_text("utf8"))
    assert packages.pop("") == {key: wanted[key] for key in ("dependencies", "devDependencies")}
    for name, package in packages.items():
        assert "resolved" not in package, name
        assert package["integrity"].startswith("sha512-"), name
        installed = json.loads((FRONTEND / name / "package.json").read_text("utf8"))
        assert installed["version"] == package["version"]
