"""Stored results: run the jobs of an experiment, keep their rows with the settings that made them.

An experiment is a function that measures one job, the list of its jobs, and the settings that all
jobs share. :meth:`Experiment.run` makes the rows that are missing; :meth:`Experiment.load` hands them
out and refuses rows that were made with other settings, so that a changed constant can't go unseen::

    python -m experiments                          all experiments, on all cores
    python -m experiments class_choice --dask tcp://…    one, on a Dask cluster

The workers of a cluster need this repository in their PYTHONPATH, and one thread each.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, delayed, parallel_config
from torch import Tensor
from tqdm.auto import tqdm

RESULTS = Path(__file__).parent / "results"
DIGITS = 5
"""Significant digits of a stored number: beyond them processors differ."""

Job = dict[str, object]
"""Arguments of the measuring function, by name; JSON can hold them."""


class StaleResultsError(ValueError):
    """Stored rows are missing, or were made with other settings than those of the code."""


@dataclass(frozen=True)
class Experiment:
    """What is measured, on which jobs, and with which settings."""

    name: str
    """Of the file with the rows, and of the module: ``python -m experiments NAME`` makes them."""
    measure: Callable[..., object]
    """From a job's arguments to its row: numbers, strings, tensors, lists and dicts of these."""
    jobs: Sequence[Job]
    settings: Job
    """Whatever else decides the rows: constants, sizes, versions of a recipe."""

    @property
    def path(self) -> Path:
        return RESULTS / f"{self.name}.json"

    def run(self, dask: str | None = None) -> None:
        """Measure every job that has no row yet; rows of other settings are dropped.

        The file is written after each row, so an interrupted run goes on where it stopped. ``dask`` is
        the address of a scheduler; without one the jobs run on all cores of this machine.
        """
        settings, rows = self._stored()
        if settings != plain(self.settings):
            rows = {}
        missing = [job for job in self.jobs if _key(job) not in rows]
        with _workers(dask) as workers:
            done = workers(delayed(_measured)(self.measure, job) for job in missing)
            for key, row in tqdm(done, self.name, total=len(missing)):
                rows[key] = row
                self._write(rows)

    def load(self) -> list[tuple[Job, object]]:
        """(job, row) for every job, in the order of ``jobs``.

        Raises StaleResultsError unless every row is there and was made with these settings.
        """
        settings, rows = self._stored()
        keys = [_key(job) for job in self.jobs]
        missing = [key for key in keys if key not in rows]
        if rows and settings != plain(self.settings):
            wrong = f"was made with the settings {settings}, not with {plain(self.settings)}"
        elif missing:
            wrong = f"lacks {len(missing)} of {len(keys)} rows, the first for {missing[0]}"
        else:
            return [(job, rows[key]) for job, key in zip(self.jobs, keys, strict=True)]
        raise StaleResultsError(
            f"{self.path.name} {wrong}; python -m experiments {self.name} makes them"
        )

    def _stored(self) -> tuple[object, dict[str, object]]:
        """The settings in the file, and its rows by the key of their job."""
        if not self.path.exists():
            return None, {}
        stored = json.loads(self.path.read_text(encoding="utf-8"))
        rows = {_key(entry["job"]): entry["row"] for entry in stored.get("rows", [])}
        return stored.get("settings"), rows

    def _write(self, rows: dict[str, object]) -> None:
        """One line per row, in the order of the jobs, so that a diff shows which rows changed."""
        lines = [
            json.dumps({"job": job, "row": rows[_key(job)]}, ensure_ascii=False)
            for job in self.jobs
            if _key(job) in rows
        ]
        head = json.dumps(plain(self.settings), ensure_ascii=False)
        text = f'{{"settings": {head},\n"rows": [\n' + ",\n".join(lines) + "\n]}\n"
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.path)


def plain(value: object) -> object:
    """Tensors as lists, tuples as lists and floats with DIGITS significant digits, as JSON holds them."""
    if isinstance(value, Tensor):
        return plain(value.tolist())
    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return float(f"{value:.{DIGITS}g}") if isinstance(value, float) else value


def _measured(measure: Callable[..., object], job: Job) -> tuple[str, object]:
    torch.set_num_threads(1)  # the jobs are what runs at once
    return _key(job), plain(measure(**job))


def _key(job: Job) -> str:
    return json.dumps(plain(job), ensure_ascii=False, sort_keys=True)


@contextmanager
def _workers(dask: str | None) -> Iterator[Parallel]:
    """All cores of this machine, or of a cluster; results come as they are done."""
    options = {"n_jobs": -1, "batch_size": 1, "return_as": "generator_unordered"}
    if dask is None:
        yield Parallel(**options)
        return
    from distributed import Client

    with Client(dask) as client, parallel_config("dask"):
        if any(threads > 1 for threads in client.nthreads().values()):
            # torch's generator and its number of threads belong to the whole process.
            raise ValueError(f"the workers of {dask} must have one thread each (--nthreads 1)")
        yield Parallel(**options)
