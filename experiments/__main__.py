"""Make stored results: ``python -m experiments [NAME …] [--dask ADDRESS]``; all of them without a name."""

import argparse
import importlib
import pkgutil

import experiments


def main() -> None:
    modules = [module.name for module in pkgutil.iter_modules(experiments.__path__)]
    found = {
        name: module.EXPERIMENT
        for name in modules
        if name != "__main__"
        and hasattr(module := importlib.import_module(f"experiments.{name}"), "EXPERIMENT")
    }
    parser = argparse.ArgumentParser(prog="python -m experiments", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(found))
    parser.add_argument("--dask", metavar="ADDRESS", help="of a scheduler, such as tcp://host:8786")
    options = parser.parse_args()
    if unknown := sorted(set(options.names) - set(found)):
        parser.error(f"no experiment {', '.join(unknown)}; there are {', '.join(found)}")
    for name in options.names or found:
        found[name].run(options.dask)


if __name__ == "__main__":
    main()
