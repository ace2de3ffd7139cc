"""Execute notebooks again, in place, each from a fresh kernel, and keep the state of their widgets.

What would only make noise in a diff is normalised: the random ids of widgets, timings, the Python
version, the kernel's machine-dependent metadata.  Running it twice gives the same bytes, as long
as the cells themselves do.

    python tools/run_notebooks.py                     all chapters, their evidence, the landing page, the benchmarks
    python tools/run_notebooks.py notebooks/01_*.ipynb    only these
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from pathlib import Path

import ipykernel.kernelspec
import nbformat
from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parent.parent
WIDGET_STATE = "application/vnd.jupyter.widget-state+json"
CELL_TIMEOUT = 600  # seconds


def all_notebooks() -> list[Path]:
    folders = (ROOT / "notebooks", ROOT / "notebooks" / "evidence", ROOT / "book")
    return [path for folder in folders for path in sorted(folder.glob("*.ipynb"))]


class ThisInterpreter(KernelSpecManager):
    """Whatever a kernel's name stands for elsewhere: here it is the Python that runs this tool."""

    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        return KernelSpec(**ipykernel.kernelspec.get_kernel_dict())


def execute(notebook: NotebookNode, folder: Path) -> None:
    """Run every cell in a fresh kernel that works in ``folder``; outputs go into ``notebook``."""
    notebook.metadata.pop("widgets", None)
    NotebookClient(
        notebook,
        km=AsyncKernelManager(kernel_spec_manager=ThisInterpreter()),
        timeout=CELL_TIMEOUT,
        resources={"metadata": {"path": str(folder)}},
        store_widget_state=True,
        record_timing=False,
        coalesce_streams=True,  # how a print is cut into messages depends on the moment
    ).execute()


def normalise(notebook: NotebookNode, name: str) -> NotebookNode:
    """The same notebook without what differs from run to run; ``name`` goes into the widget ids."""
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        cell.metadata.pop("trusted", None)
    widgets = notebook.metadata.get("widgets")
    notebook.metadata = NotebookNode(
        {
            key: value
            for key, value in notebook.metadata.items()
            if key not in ("widgets", "signature")
        }
    )
    notebook.metadata.kernelspec = NotebookNode(
        name="python3", display_name="Python 3", language="python"
    )
    notebook.metadata.language_info = NotebookNode(name="python", pygments_lexer="ipython3")
    if not widgets or not widgets[WIDGET_STATE]["state"]:
        return notebook
    notebook.metadata.widgets = widgets
    text = json.dumps(notebook)
    prefix = hashlib.sha256(name.encode()).hexdigest()[:8]
    # Models are listed in the order in which the cells made them, which is the same every time.
    for index, old in enumerate(widgets[WIDGET_STATE]["state"]):
        text = text.replace(old, f"{prefix}{index:024x}")
    return nbformat.from_dict(json.loads(text))


def run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    execute(notebook, path.parent)
    notebook = normalise(notebook, path.stem)
    nbformat.validate(notebook)
    unfinished = path.with_suffix(".ipynb.part")
    nbformat.write(notebook, unfinished)
    unfinished.replace(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all of them")
    paths = parser.parse_args().notebooks or all_notebooks()
    if missing := [str(path) for path in paths if not path.is_file()]:
        parser.error(f"no such notebook: {', '.join(missing)}")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")  # bars come and go with the load of the machine
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")  # those of transformers
    for path in paths:
        started = time.perf_counter()
        try:
            run(path)
        except CellExecutionError as error:
            sys.exit(f"{path}: {error}")
        print(f"{path}: executed in {time.perf_counter() - started:.1f} s")


if __name__ == "__main__":
    main()
