"""How a benchmark is timed and what is kept of it: no machine name, no path, three digits.

``make bench`` writes ``benchmarks/results.json``, which the book's page "How fast, how accurate"
reads. Sizes grow slowest and rivals stand next to each other, so that a machine whose load
changes hits all rivals at one size alike. pytest-benchmark takes the time; the error of every
timed result is measured outside the clock.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Callable, Sequence

import pytest
import torch

Measure = Callable[..., None]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> None:
    """As in CI; only ``spectrum`` starts a second thread, of its own accord."""
    torch.set_num_threads(1)


@pytest.fixture
def measure(benchmark) -> Measure:
    """Time ``run(*arguments)`` once for each of ``inputs``, after a first run that doesn't count.

    ``error(result, *arguments)`` is a number, or None if there is nothing to compare with.
    """

    def measure(
        group: str,
        method: str,
        size: int,
        run: Callable,
        inputs: Sequence[tuple],
        error: Callable[..., float] | None = None,
    ) -> None:
        turns, results = iter([inputs[0], *inputs]), []
        benchmark.group = group
        benchmark.extra_info.update(method=method, size=size)
        benchmark.pedantic(
            lambda *arguments: results.append(run(*arguments)),
            setup=lambda: (next(turns), {}),
            rounds=len(inputs),
            warmup_rounds=1,
        )
        if error:
            # With --benchmark-disable one run is made, not one for every input.
            timed = results[-len(inputs) :]
            pairs = zip(timed, inputs, strict=len(timed) == len(inputs))
            errors = [float(error(result, *arguments)) for result, arguments in pairs]
            benchmark.extra_info["errors"] = [float(f"{value:.3g}") for value in errors]

    return measure


def pytest_benchmark_update_json(config, benchmarks, output_json) -> None:
    """Keep what the page needs: the seconds of every round, the errors, and the versions."""
    kept = [
        {
            "group": entry["group"],
            **entry["extra_info"],
            "seconds": [float(f"{value:.3g}") for value in entry["stats"]["data"]],
        }
        for entry in output_json["benchmarks"]
    ]
    versions = {"python": platform.python_version(), "torch": torch.__version__.split("+")[0]}
    output_json.clear()
    output_json.update(command="make bench", **versions, benchmarks=kept)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session) -> None:
    """One line per benchmark, so that a diff shows which of them changed."""
    path = session.config.option.benchmark_json
    if path is not None and path.exists():  # it isn't if no benchmark has run
        text = path.read_text(encoding="utf-8")
        path.write_text(one_line_each(json.loads(text)), encoding="utf-8")


def one_line_each(results: dict) -> str:
    """``results`` as JSON, the entries of "benchmarks" on a line each."""
    entries = ",\n".join(f"  {json.dumps(entry)}" for entry in results.pop("benchmarks"))
    return f'{json.dumps(results)[:-1]}, "benchmarks": [\n{entries}\n]}}\n'
