"""Make stored results: ``python -m experiments [NAME …] [--dask ADDRESS]``; all of them without a name."""

import argparse
import importlib
import pkgutil
from collections.abc import Sequence

import experiments
from experiments.store import Experiment


def every_experiment() -> dict[str, Experiment]:
    """Those of all modules of this package, by name."""
    names = [module.name for module in pkgutil.iter_modules(experiments.__path__)]
    modules = [importlib.import_module(f"experiments.{name}") for name in names]
    found = [module.EXPERIMENT for module in modules if hasattr(module, "EXPERIMENT")]
    return {experiment.name: experiment for experiment in found}


def main(arguments: Sequence[str] | None = None) -> None:
    found = every_experiment()
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(found))
    parser.add_argument("--dask", metavar="ADDRESS", help="of a scheduler, such as tcp://host:8786")
    options = parser.parse_args(arguments)
    if unknown := sorted(set(options.names) - set(found)):
        parser.error(f"no experiment {', '.join(unknown)}; there are {', '.join(found)}")
    for name in options.names or found:
        found[name].run(options.dask)


if __name__ == "__main__":
    main()
