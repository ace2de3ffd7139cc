"""Rows are made once, by whatever workers, and refused when the code has changed since."""

import inspect
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from distributed import Client, LocalCluster
from joblib import parallel_config

from experiments import store
from experiments.__main__ import every_experiment, main
from experiments.store import Experiment, StaleResultsError
from helpers.maths import gaussian


def measure(number, folder):
    """A row that depends on the number alone; the folder keeps who was asked for it."""
    folder = Path(folder)
    with (folder / "asked").open("a") as asked:
        asked.write(f"{number} {os.getpid()}\n")
    if (folder / f"stop at {number}").exists():
        raise RuntimeError("a power cut")
    torch.manual_seed(number)
    return {"drawn": gaussian(3, seed=number), "torch's": torch.rand(2), "third": number / 3}


@pytest.fixture
def here():
    """Jobs run in this process, one after the other."""
    threads = torch.get_num_threads()
    with parallel_config("sequential"):
        yield
    torch.set_num_threads(threads)


@pytest.fixture
def experiment(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RESULTS", tmp_path)
    jobs = [{"number": number, "folder": str(tmp_path)} for number in range(6)]
    return Experiment("squares", measure, jobs, {"digits": 3, "shape": (2, 3)})


def asked(experiment):
    lines = (experiment.path.parent / "asked").read_text().splitlines()
    return [tuple(map(int, line.split())) for line in lines]


def test_rows_come_in_the_order_of_the_jobs_with_five_digits(experiment, here):
    experiment.run()
    loaded = experiment.load()
    assert [job for job, _ in loaded] == experiment.jobs
    for job, row in loaded:
        assert row["third"] == float(f"{job['number'] / 3:.5g}")
        assert row["drawn"] == pytest.approx(gaussian(3, seed=job["number"]).tolist(), rel=1e-4)
    lines = experiment.path.read_text(encoding="utf-8").splitlines()
    assert [json.loads(line.strip(","))["row"] for line in lines[2:-1]] == [
        row for _, row in loaded
    ]


def test_rows_of_other_settings_are_refused_and_made_anew(experiment, here):
    experiment.run()
    changed = replace(experiment, settings={"digits": 4, "shape": (2, 3)})
    with pytest.raises(StaleResultsError, match="'digits': 3.* not with .*'digits': 4"):
        changed.load()
    changed.run()
    assert len(asked(experiment)) == 12
    assert len(changed.load()) == 6
    with pytest.raises(StaleResultsError, match="'digits': 4"):
        experiment.load()


def test_missing_rows_are_refused_and_only_they_are_made(experiment, here):
    with pytest.raises(StaleResultsError, match="lacks 6 of 6 rows.*python -m experiments squares"):
        experiment.load()
    replace(experiment, jobs=experiment.jobs[1:3]).run()
    with pytest.raises(StaleResultsError, match='lacks 4 of 6 rows, the first for .*"number": 0'):
        experiment.load()
    experiment.run()
    assert sorted(number for number, _ in asked(experiment)) == [0, 1, 2, 3, 4, 5]
    experiment.run()
    assert len(asked(experiment)) == 6


def test_an_interrupted_run_goes_on_where_it_stopped(experiment, here, tmp_path):
    (tmp_path / "stop at 4").touch()
    with pytest.raises(RuntimeError, match="a power cut"):
        experiment.run()
    stored = json.loads(experiment.path.read_text(encoding="utf-8"))["rows"]
    assert [entry["job"]["number"] for entry in stored] == [0, 1, 2, 3]
    (tmp_path / "stop at 4").unlink()
    (tmp_path / "asked").unlink()
    experiment.run()
    assert [number for number, _ in asked(experiment)] == [4, 5]
    assert len(experiment.load()) == 6


def test_a_file_is_whole_or_not_written(experiment, here, monkeypatch):
    replace(experiment, jobs=experiment.jobs[:3]).run()
    before = experiment.path.read_bytes()

    def half(path, text, **options):
        path.write_bytes(text.encode()[: len(text) // 2])
        raise OSError("the disk is full")

    monkeypatch.setattr(Path, "write_text", half)
    with pytest.raises(OSError, match="the disk is full"):
        experiment.run()
    assert experiment.path.read_bytes() == before


def test_a_dask_cluster_makes_the_same_rows(experiment):
    experiment.run()
    by_joblib = experiment.path.read_bytes()
    assert os.getpid() not in {process for _, process in asked(experiment)}
    experiment.path.unlink()
    (experiment.path.parent / "asked").unlink()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):
        experiment.run(cluster.scheduler_address)
        workers = set(client.run(os.getpid).values())
    assert experiment.path.read_bytes() == by_joblib
    assert {process for _, process in asked(experiment)} <= workers


def test_workers_with_two_threads_are_refused(experiment):
    options = {"processes": False, "threads_per_worker": 2, "dashboard_address": None}
    with (
        LocalCluster(n_workers=1, **options) as cluster,
        pytest.raises(ValueError, match="one thread each"),
    ):
        experiment.run(cluster.scheduler_address)
    assert not experiment.path.exists()


def test_the_command_runs_what_is_named(monkeypatch, capsys):
    runs = []
    monkeypatch.setattr(Experiment, "run", lambda self, dask: runs.append((self.name, dask)))
    main(["svd_training", "byte_counts", "--dask", "tcp://here:1"])
    assert runs == [("svd_training", "tcp://here:1"), ("byte_counts", "tcp://here:1")]
    runs.clear()
    main([])
    assert runs == [(name, None) for name in every_experiment()]
    runs.clear()
    with pytest.raises(SystemExit):
        main(["svd_training", "choosing"])
    assert runs == []
    assert "no experiment choosing; there are attention_truncation, " in capsys.readouterr().err


@pytest.mark.parametrize("name", every_experiment())
def test_every_job_is_one_call_of_the_measure(name):
    experiment = every_experiment()[name]
    assert inspect.getmodule(experiment.measure).__name__ == f"experiments.{name}"
    for job in experiment.jobs:
        inspect.signature(experiment.measure).bind(**job)
    assert len({json.dumps(job) for job in experiment.jobs}) == len(experiment.jobs)
