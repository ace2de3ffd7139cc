"""Stored results: run the jobs of an experiment, keep their rows with the settings that made them.

An experiment is a function that measures one job, the list of its jobs, and the settings that all
jobs share. :meth:`Experiment.run` makes the rows that are missing; :meth:`Experiment.load` hands them
out and refuses rows that were made with other settings, so that a changed constant can't go unseen.

    python -m experiments                          all experiments, on all cores
    python -m experiments class_choice --dask tcp://…    one, on a Dask cluster
"""

import json
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import torch
from joblib import Parallel, cpu_count, delayed, parallel_config
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
        rows = self._usable_rows()
        missing = [job for job in self.jobs if _key(job) not in rows]
        with _workers(dask):
            done = Parallel(n_jobs=-1, return_as="generator_unordered")(
                delayed(_measure)(self.measure, job) for job in missing
            )
            for job, row in tqdm(done, self.name, total=len(missing)):
                rows[_key(job)] = row
                self._write(rows)

    def load(self) -> list[tuple[Job, dict]]:
        """(job, row) for every job, in the order of ``jobs``.

        Raises StaleResultsError unless every row is there and was made with these settings.
        """
        rows = self._usable_rows(strict=True)
        if missing := [job for job in self.jobs if _key(job) not in rows]:
            raise StaleResultsError(
                f"{self.path.name} lacks {len(missing)} of {len(self.jobs)} rows, the first for "
                f"{missing[0]}; python -m experiments {self.name} makes them"
            )
        return [(job, rows[_key(job)]) for job in self.jobs]

    def _usable_rows(self, strict: bool = False) -> dict[str, dict]:
        if not self.path.exists():
            return {}
        stored = json.loads(self.path.read_text(encoding="utf-8"))
        if stored["settings"] == plain(self.settings):
            return {_key(entry["job"]): entry["row"] for entry in stored["rows"]}
        if strict:
            raise StaleResultsError(
                f"{self.path.name} was made with the settings {stored['settings']}, not with "
                f"{plain(self.settings)}; python -m experiments {self.name} makes it anew"
            )
        return {}

    def _write(self, rows: dict[str, dict]) -> None:
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


def _measure(measure: Callable[..., object], job: Job) -> tuple[Job, object]:
    torch.set_num_threads(1)  # the jobs are what runs at once
    return job, plain(measure(**job))


def _key(job: Job) -> str:
    return json.dumps(plain(job), sort_keys=True)


def _workers(dask: str | None):
    if dask is None:
        return parallel_config("loky", n_jobs=cpu_count()) if cpu_count() > 1 else nullcontext()
    from dask.distributed import Client

    Client(dask)
    return parallel_config("dask")
