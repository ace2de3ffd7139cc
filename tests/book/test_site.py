"""What the site is made from: the pinned front end, the ledger page, the scripts in tools/."""

import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import nbformat
import pytest
import yaml
from sphinx.errors import ExtensionError

ROOT = Path(__file__).resolve().parents[2]
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"


def load(path: str) -> ModuleType:
    """A script of the repository as a module."""
    specification = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


frontend = load("tools/vendor_frontend.py")
runner = load("tools/run_notebooks.py")
extension = load("book/_ext/attention_book.py")
ledger_page = load("book/_ext/claim_ledger.py")
moved = load("tools/moved_numbers.py")


# --- front end --------------------------------------------------------------------------------


@pytest.fixture
def vendored(tmp_path: Path) -> tuple[Path, dict[str, str], list[str]]:
    """A copy of the vendored files, the list of digests, and the folders that they fill."""
    expected = frontend.read_file_list(frontend.FILES)
    packages = json.loads(frontend.PACKAGES.read_text("utf8"))
    folders = [package["to"] for package in packages]
    for folder in folders:
        shutil.copytree(frontend.BOOK / folder, tmp_path / folder)
    return tmp_path, expected, folders


def test_an_intact_front_end_is_accepted(vendored) -> None:
    assert frontend.differences(*vendored) == []


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda path: path.unlink(), "tex-full.js is missing"),
        (lambda path: path.write_bytes(path.read_bytes() + b" "), "tex-full.js is altered"),
        (lambda path: path.with_name("more.js").write_text(""), "more.js is not in the list"),
    ],
)
def test_a_damaged_front_end_is_noticed(vendored, damage, message: str) -> None:
    root, expected, folders = vendored
    damage(root / "frontend/.cache/mathjax/es5/input/tex-full.js")
    (problem,) = frontend.differences(root, expected, folders)
    assert problem.endswith(message)


def test_what_is_no_longer_wanted_is_removed(tmp_path: Path) -> None:
    for name in ("old", "kept"):
        (tmp_path / "_extra/vendor" / name).mkdir(parents=True)
    frontend.remove_stale([{"to": "_extra/vendor/kept"}], tmp_path)
    assert [path.name for path in (tmp_path / "_extra/vendor").iterdir()] == ["kept"]


def test_an_altered_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = tmp_path / "package.tgz"
    archive.write_bytes(b"not what was pinned")
    monkeypatch.setattr(frontend, "fetch", lambda packages, folder: [archive])
    package = {"name": "p", "version": "1", "integrity": "sha512-x", "include": [], "to": "p"}
    with pytest.raises(frontend.FrontendError, match="p 1: the archive's digest"):
        frontend.install([package], {}, tmp_path)


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


@pytest.mark.parametrize(
    ("rule", "form", "words"),
    [
        (">= 0.95", ".0%", "at least 95%"),
        (">= 3.5", ".0f", "at least 3.5"),  # rounded, it would decide otherwise
        ("<= 1e-6", ".2f", "at most 1e−6"),
        ("<= -0.9", ".2f", "at most −0.9"),
        ("< 2", ".1f", "below 2"),
        ("> 1", "g", "above 1"),
    ],
)
def test_a_rule_is_put_into_words(rule: str, form: str, words: str) -> None:
    claim = SimpleNamespace(holds_if=rule, format=form)
    assert ledger_page.ClaimList.rule(claim) == words


def test_no_claim_is_left_untested() -> None:
    claims = ledger_page.claims
    assert [c.id for c in claims.ledger().values() if c.verdict == claims.UNTESTED] == []


# --- numbers that moved -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "unit"),
    [("0.84", 0.01), ("28%", 0.01), ("7.5%", 0.001), ("1,400", 1), ("3e-05", 1e-5), ("+0.4", 0.1)],
)
def test_the_last_digit_of_a_printed_number(text: str, unit: float) -> None:
    assert moved.last_digit(text) == pytest.approx(unit)


def runs(**numbers: list) -> list[dict]:
    """Two runs, each number given as (first, second, text)."""
    return [
        {"label": f"run {i}", "numbers": {n: [v[i], v[2]] for n, v in numbers.items()}}
        for i in range(2)
    ]


def test_a_move_is_measured_against_the_ledger_or_the_last_digit() -> None:
    tolerance = ledger_page.claims.ledger()["S03"].tolerance
    found = moved.moves(
        runs(
            S03=[0.28, 0.29, "28%"],
            still=[1.0, 1.0, "1"],
            other=[0.301, 0.304, "0.30"],
            text=["a", "b", "a"],
        )
    )
    assert [move.kind for move in found] == ["claim", "number", "number", "text"]
    shares = [move.share for move in found]
    assert shares == pytest.approx([0.01 / tolerance, 0, 0.003 / 0.005, float("inf")])


def test_comparing_fails_when_a_number_left_its_tolerance(tmp_path: Path, capsys) -> None:
    file = tmp_path / "runs.json"
    file.write_text(json.dumps(runs(one=[0.301, 0.304, "0.30"])))
    assert moved.compare([file])
    file.write_text(json.dumps(runs(one=[0.301, 0.308, "0.30"])))
    assert not moved.compare([file])
    assert "1 numbers, 1 moved, 1 too far" in capsys.readouterr().out
    both = runs(one=[1.0, 1.0, "1"])
    del both[1]["numbers"]["one"]
    file.write_text(json.dumps(both))
    with pytest.raises(SystemExit, match="not in every run: one"):
        moved.compare([file])


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
    toc = (ROOT / "_toc.yml").read_text("utf8")
    chapters = sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))
    listed = [
        Path(c["file"]).stem for part in yaml.safe_load(toc)["parts"] for c in part["chapters"]
    ]
    assert [name for name in listed if name in chapters] == chapters, (
        "_toc.yml lists each notebook of notebooks/, in the order of their numbers"
    )
    modules = {path.stem for path in (ROOT / "helpers").glob("*.py")} - {"__init__"}
    described = re.findall(
        r"automodule:: helpers\.(\w+)", (ROOT / "book/reference.md").read_text("utf8")
    )
    assert set(described) == modules, "each module of helpers has a section in book/reference.md"


def test_no_lock_file_names_a_host() -> None:
    for name in ("requirements.txt", "constraints.txt", "book/frontend/packages.json"):
        assert "://" not in (ROOT / name).read_text("utf8"), name
