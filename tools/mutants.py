"""Mutation testing of ``helpers``: change one small thing in the code, and see whether a test fails.

    python tools/mutants.py                        all mutants of all modules: hours
    python tools/mutants.py spectrum nulls         all mutants of these modules
    python tools/mutants.py --part 0.5:0.55        one in twenty, drawn at random

The changes are mutmut's: + to −, < to ≤, an argument left out, None assigned, a number plus one,
and so on. The runner is our own, because mutmut's doesn't mutate properties and other decorated
functions, nor constants of a module, and its switches inside every function are in the way of
torch.compile. Here pytest collects once. Every mutant gets a forked process in which one function's
code is exchanged (or a constant, wherever it was imported to), and runs the tests that reach the
changed line, quickest first, until one fails. Only what a new import alone would show, such as a
table of functions, gets a fresh process, which runs the module's own test file.

Not mutated, because no unit test could or should tell: docstrings and annotations, decorators, the
wording of error messages (that an error is raised, and which, counts), how a progress bar looks, and
the scripts under ``if __name__ == "__main__"``, which compute for hours.

What survives, and why, is in ``tests/survivors.md``.
"""

from __future__ import annotations

import argparse
import ast
import gc
import hashlib
import inspect
import json
import math
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import CodeType, FunctionType

import coverage
import libcst as cst
import pytest
from libcst.metadata import MetadataWrapper, PositionProvider, WhitespaceInclusivePositionProvider
from mutmut.mutation.mutators import mutation_operators

ROOT = Path(__file__).resolve().parent.parent
NOT_UNIT_TESTS = ("test_notebooks.py", "test_site.py", "test_net.py")
MOST_SECONDS = 60.0
"""Of tests per mutant. Where more tests reach a line the slowest ones are left out, which can only
make a mutant survive."""
MEMORY = 16 * 2**30
"""Bytes of address space of a mutant's process."""
NEW_IMPORT = 3
"""Exit code of a process that could not put the mutant into place."""
BROKEN = 99
"""Exit code for a fault of this script."""


@dataclass(frozen=True)
class Mutant:
    """One changed place of one module."""

    module: str
    line: int
    function: str | None
    """Qualified name of the outermost function that holds the place; None outside functions."""
    start: int
    end: int
    text: str
    number: float
    """A random number in [0, 1) that stays the same when other code changes."""

    @property
    def path(self) -> Path:
        return ROOT / "helpers" / f"{self.module}.py"

    def source(self) -> str:
        whole = self.path.read_text()
        return whole[: self.start] + self.text + whole[self.end :]

    def __str__(self) -> str:
        before = self.path.read_text().splitlines()
        after = self.source().splitlines()
        first = next(
            i for i, pair in enumerate(zip(before, after, strict=False)) if pair[0] != pair[1]
        )
        lost = len(before) - len(after)
        last = first + 1
        while before[last + max(lost, 0) :] != after[last + max(-lost, 0) :]:
            last += 1
        old = " ".join(line.strip() for line in before[first : last + max(lost, 0)])
        new = " ".join(line.strip() for line in after[first : last + max(-lost, 0)])
        return f"{self.module}.py:{first + 1}\n  - {old}\n  + {new}"


class Places(cst.CSTVisitor):
    """All mutants of a module, as (node, its mutated text)."""

    METADATA_DEPENDENCIES = (PositionProvider, WhitespaceInclusivePositionProvider)

    def __init__(self, module: cst.Module) -> None:
        self.module = module
        self.found: list[tuple[cst.CSTNode, str]] = []
        self.excluded: Counter[str] = Counter()
        self.reasons: list[str] = []
        self.ends: dict[cst.CSTNode, str] = {}

    def on_visit(self, node: cst.CSTNode) -> bool:
        if isinstance(node, cst.Annotation | cst.Decorator):
            return False
        if (
            isinstance(node, cst.Param)
            and node.default
            and not isinstance(node.default, cst.Name | cst.BaseNumber | cst.BaseString)
        ):
            return False  # as in mutmut: it would be evaluated at import
        if reason := self._reason(node):
            self.reasons.append(reason)
            self.ends[node] = reason
        wording = isinstance(node, cst.BaseString) and "raise" in self.reasons
        for kind, operator in mutation_operators:
            if isinstance(node, kind):
                for mutated in operator(node):
                    if wording or set(self.reasons) - {"raise"}:
                        self.excluded[self.reasons[0] if not wording else "message"] += 1
                    else:
                        self.found.append((node, self.module.code_for_node(mutated)))
        return True

    def on_leave(self, original_node: cst.CSTNode) -> None:
        if original_node in self.ends:
            self.reasons.remove(self.ends.pop(original_node))

    def _reason(self, node: cst.CSTNode) -> str | None:
        if isinstance(node, cst.Raise):
            return "raise"
        if isinstance(node, cst.If) and "__main__" in self.module.code_for_node(node.test):
            return "script"
        if isinstance(node, cst.Call) and isinstance(node.func, cst.Name):
            return "progress bar" if node.func.value in ("tqdm", "trange") else None
        return None


@dataclass(frozen=True)
class Function:
    """An outermost function or method: its lines, and a digest of its text."""

    name: str
    first: int
    body: int
    last: int
    text: str


@cache
def functions_of(path: Path) -> list[Function]:
    text = path.read_text()
    lines, found = text.splitlines(), []

    def visit(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.ClassDef):
                visit(node.body, f"{prefix}{node.name}.")
            elif isinstance(node, ast.FunctionDef):
                own = "\n".join(lines[node.lineno - 1 : node.end_lineno])
                digest = hashlib.sha256(own.encode()).hexdigest()[:8]
                name, start = prefix + node.name, node.body[0].lineno
                found.append(Function(name, node.lineno, start, node.end_lineno, digest))

    visit(ast.parse(text).body, "")
    return found


def mutants_of(module: str) -> tuple[list[Mutant], Counter[str]]:
    text = (ROOT / "helpers" / f"{module}.py").read_text()
    offsets = [0]
    for line in text.splitlines(keepends=True):
        offsets.append(offsets[-1] + len(line))
    wrapper = MetadataWrapper(cst.parse_module(text), unsafe_skip_copy=True)
    places = Places(wrapper.module)
    wrapper.visit(places)
    spans = wrapper.resolve(WhitespaceInclusivePositionProvider)
    lines = wrapper.resolve(PositionProvider)
    functions = functions_of(ROOT / "helpers" / f"{module}.py")
    mutants, seen = [], Counter()
    for node, mutated in places.found:
        span, line = spans[node], lines[node].start.line
        function = next((f.name for f in functions if f.first <= line <= f.last), None)
        start = offsets[span.start.line - 1] + span.start.column
        end = offsets[span.end.line - 1] + span.end.column
        if (old := text[start:end]) != mutated:
            words = (module, function, old, mutated)
            seen[words] += 1
            digest = hashlib.sha256(repr((*words, seen[words])).encode()).digest()
            number = int.from_bytes(digest[:6]) / 2**48
            mutants.append(Mutant(module, line, function, start, end, mutated, number))
    return mutants, places.excluded


# --- which test reaches which line -------------------------------------------------------------


class Reach:
    """Seconds of every test, and the tests that reach a line of a function, remembered per test file.

    A line counts from its function's first, and is forgotten when the function's text changes, so
    that a change elsewhere keeps what is known. Then all tests of the function run, or of the module.
    """

    def __init__(self, collected: Collection[str]) -> None:
        self.collected = set(collected)
        self.seconds: dict[str, float] = {}
        self.tests: dict[tuple, set[str]] = defaultdict(set)

    def add(self, data: dict) -> None:
        self.seconds |= data["seconds"]
        for module, function, text, line, tests in data["lines"]:
            for place in ((module,), (module, function), (module, function, text, line)):
                self.tests[place].update(test for test in tests if test in self.collected)

    def quickest(self, mutant: Mutant) -> list[str]:
        """Tests that reach the mutant's line, quickest first, up to MOST_SECONDS."""
        found = next(f for f in functions_of(mutant.path) if f.name == mutant.function)
        place = (mutant.module, found.name)
        # A statement over several lines is counted at its first.
        for line in range(mutant.line - found.first, -1, -1):
            if (*place, found.text, line) in self.tests:
                place = (*place, found.text, line)
                break
        names = self.tests.get(place) or self.tests.get((mutant.module,), set())
        return self._cheapest(names | (self.idle() if mutant.line < found.body else set()))

    def that_use(self, constants: set[str], items: dict[str, pytest.Item]) -> list[str]:
        """Tests that reach a function that names one of these constants, or name it themselves."""
        word = re.compile(rf"\b({'|'.join(constants)})\b")
        names = set()
        for path in ROOT.glob("helpers/*.py"):
            lines = path.read_text().splitlines()
            for function in functions_of(path):
                if word.search("\n".join(lines[function.first - 1 : function.last])):
                    names |= self.tests.get((path.stem, function.name), set())
        names |= {name for name, item in items.items() if word.search(source_of(item.function))}
        return self._cheapest(names & self.seconds.keys() | self.idle(), MOST_SECONDS / 3)

    def idle(self) -> set[str]:
        """Tests that call no helper: they look at signatures and constants."""
        return self.collected & self.seconds.keys() - set().union(*self.tests.values())

    def _cheapest(self, names: Collection[str], most: float = MOST_SECONDS) -> list[str]:
        chosen, total = [], 0.0
        for name in sorted(names, key=lambda name: self.seconds[name]):
            total += self.seconds[name]
            if chosen and total > most:
                break
            chosen.append(name)
        return chosen


@cache
def source_of(function: Callable[..., object]) -> str:
    return inspect.getsource(function)


class Watch:
    """A pytest plugin that is called for every failure."""

    def __init__(self, on_failure: Callable[[pytest.TestReport], object]) -> None:
        self.on_failure = on_failure

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.on_failure(report)


def trace(items: list[pytest.Item], store: Path) -> None:
    """Run these tests in a forked process and note what they reach."""
    if pid := os.fork():
        os.waitpid(pid, 0)
        return
    quiet()
    measure = coverage.Coverage(data_file=None, source=[str(ROOT / "helpers")], config_file=False)
    measure.start()
    seconds, failed = {}, set()
    items[0].config.pluginmanager.register(Watch(lambda report: failed.add(report.nodeid)))
    for item, after in zip(items, [*items[1:], None], strict=True):
        measure.switch_context(item.nodeid)
        start = time.process_time()
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        seconds[item.nodeid] = round(time.process_time() - start, 4)
    measure.stop()
    lines, data = [], measure.get_data()
    for file in data.measured_files():
        contexts = data.contexts_by_lineno(file)
        for function in functions_of(Path(file)):
            for line in range(function.first, function.last + 1):
                if tests := [
                    test for test in contexts.get(line, ()) if test and test not in failed
                ]:
                    offset = line - function.first
                    lines.append([Path(file).stem, function.name, function.text, offset, tests])
    found = {"seconds": seconds, "lines": lines, "failed": sorted(failed)}
    store.write_text(json.dumps(found))
    os._exit(0)


def quiet() -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)


# --- running a mutant --------------------------------------------------------------------------


def code_named(code: CodeType, name: str) -> CodeType | None:
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            if constant.co_qualname == name:
                return constant
            # Only classes hold outermost functions; what is inside functions has <locals>.
            if name.startswith(constant.co_qualname + ".") and (
                found := code_named(constant, name)
            ):
                return found
    return None


def innermost(made: object) -> object:
    """The function inside decorators, a property or a class method."""
    while hasattr(made, "__wrapped__"):
        made = made.__wrapped__
    return getattr(made, "fget", None) or getattr(made, "__func__", made)


def exchange(mutant: Mutant, live: list[FunctionType]) -> None:
    """Give every live copy of the mutant's function the mutated code and defaults."""
    compiled = compile(mutant.source(), str(mutant.path), "exec", dont_inherit=True)
    new = code_named(compiled, mutant.function)
    for function in live:
        function.__code__ = new.replace(co_filename=function.__code__.co_filename)
    if mutant.line < next(f.body for f in functions_of(mutant.path) if f.name == mutant.function):
        scratch = {"__name__": f"helpers.{mutant.module}", "__file__": str(mutant.path)}
        module = sys.modules[f"helpers.{mutant.module}"]
        exec(compiled, scratch)
        first, *rest = mutant.function.split(".")
        made = scratch[first]
        for name in rest:
            made = vars(made)[name]
        made = innermost(made)
        sys.modules[f"helpers.{mutant.module}"] = module
        for function in live:
            function.__defaults__, function.__kwdefaults__ = made.__defaults__, made.__kwdefaults__


def constants_at(mutant: Mutant) -> set[str]:
    """The names that the statement with the mutant assigns in the module."""
    for node in ast.parse(mutant.path.read_text()).body:
        if node.lineno <= mutant.line <= node.end_lineno:
            targets = getattr(node, "targets", [getattr(node, "target", None)])
            names = (name for target in targets if target for name in ast.walk(target))
            return {name.id for name in names if isinstance(name, ast.Name)}
    return set()


def plain(value: object) -> bool:
    """Whether a value is data through and through, so that a copy serves as well."""
    if isinstance(value, dict):
        return all(map(plain, value)) and all(map(plain, value.values()))
    if isinstance(value, list | tuple | set):
        return all(map(plain, value))
    return isinstance(value, bool | int | float | str | Path | None)


def exchange_constants(mutant: Mutant, live: dict[tuple[str, str], list[FunctionType]]) -> bool:
    """Put the mutant's constants wherever the old ones are; False if they are no plain data."""
    module = sys.modules[f"helpers.{mutant.module}"]
    made = {"__name__": module.__name__, "__file__": str(mutant.path)}
    exec(compile(mutant.source(), str(mutant.path), "exec", dont_inherit=True), made)
    old = {name: value for name, value in vars(module).items() if name in made and plain(value)}
    new = {name: made[name] for name in old if plain(made[name]) and made[name] != old[name]}
    if not new.keys() & constants_at(mutant):
        return False
    for name, other in list(sys.modules.items()):
        if name.startswith(("helpers", "test_")):
            for constant in new.keys() & vars(other).keys():
                if vars(other)[constant] is old[constant]:
                    setattr(other, constant, new[constant])
    for function in functions_of(mutant.path):
        copy = innermost(made.get(function.name))
        if type(copy) is FunctionType:
            for original in live.get((str(mutant.path), function.name), []):
                original.__defaults__, original.__kwdefaults__ = (
                    copy.__defaults__,
                    copy.__kwdefaults__,
                )
    return True


def run_warm(
    mutant: Mutant, items: list[pytest.Item], live: dict[tuple[str, str], list[FunctionType]]
) -> int:
    """Fork; the child's exit code is 1 for a failed test, 0 if all passed, or NEW_IMPORT."""
    pid = os.fork()
    if pid:
        return pid
    try:
        quiet()
        resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
        if mutant.function is not None:
            exchange(mutant, live[str(mutant.path), mutant.function])
        elif not exchange_constants(mutant, live):
            os._exit(NEW_IMPORT)
    except ValueError as error:
        os._exit(NEW_IMPORT if "free vars" in str(error) else 1)
    except BaseException:
        os._exit(1)  # the module could not even be imported
    try:
        if items:
            items[0].config.pluginmanager.register(Watch(lambda report: os._exit(1)))
            for item, after in zip(items, [*items[1:], None], strict=True):
                item.config.hook.pytest_runtest_protocol(item=item, nextitem=after)
        os._exit(0)
    except (KeyboardInterrupt, SystemExit, pytest.exit.Exception):
        os._exit(1)
    except BaseException:
        os._exit(BROKEN)


def run_cold(mutant: Mutant, files: list[str]) -> int:
    """The same for what only a new import shows: a copy of the tree by links, and a process of its own."""
    pid = os.fork()
    if pid:
        return pid
    quiet()
    os.setpgid(0, 0)
    folder, code = Path(tempfile.mkdtemp(prefix="mutant")), BROKEN
    try:
        for entry in ROOT.iterdir():
            if entry.name not in ("helpers", "_build", ".git"):
                (folder / entry.name).symlink_to(entry)
        (folder / "helpers").mkdir()
        for entry in (ROOT / "helpers").iterdir():
            if entry != mutant.path and entry.name != "__pycache__":
                (folder / "helpers" / entry.name).symlink_to(entry)
        (folder / "helpers" / mutant.path.name).write_text(mutant.source())
        environment = os.environ | {"PYTHONPATH": str(folder), "PYTHONDONTWRITEBYTECODE": "1"}
        command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *files]
        done = subprocess.run(command, cwd=folder, env=environment, check=False).returncode
        code = int(done not in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os._exit(code)


def tell(progress: str) -> None:
    if sys.stdout.isatty():
        print(f"\r\033[K{progress}", end="", flush=True)


def interval(killed: int, tested: int) -> tuple[float, float]:
    """Wilson's 95 % interval of a share."""
    if not tested:
        return 0.0, 1.0
    z, share = 1.96, killed / tested
    middle = (share + z**2 / (2 * tested)) / (1 + z**2 / tested)
    half = (
        z / (1 + z**2 / tested) * math.sqrt(share * (1 - share) / tested + z**2 / (4 * tested**2))
    )
    return middle - half, middle + half


class Session:
    """A pytest plugin that takes over after the collection."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        self.arguments = arguments

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        self.items = {item.nodeid: item for item in session.items}
        self.reach = Reach(self.items)
        self.trace_all()
        self.index()
        self.run()
        return True

    def trace_all(self) -> None:
        by_file = defaultdict(list)
        for item in self.items.values():
            by_file[item.path].append(item)
        store = ROOT / ".pytest_cache" / "mutants"
        store.mkdir(parents=True, exist_ok=True)
        for path, items in by_file.items():
            digest = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            known = store / f"{path.stem}-{digest}.json"
            if not known.exists():
                tell(f"tracing {path.name}")
                trace(items, known)
            found = json.loads(known.read_text())
            for name in found["failed"]:
                print(f"left out, because it fails without a mutant: {name}")
            self.reach.add(found)

    def index(self) -> None:
        """All functions that are alive, by the file and the name they were defined with."""
        self.live = defaultdict(list)
        for thing in gc.get_objects():
            if type(thing) is FunctionType:
                code = thing.__code__
                self.live[code.co_filename, code.co_qualname].append(thing)

    def start(self, mutant: Mutant, cold: bool = False) -> tuple[int, float]:
        """Process id, and the seconds it may take."""
        if mutant.function is None:
            cold = cold or not (constants := constants_at(mutant))
        else:
            cold = cold or not self.live.get((str(mutant.path), mutant.function))
        if cold:
            own = f"tests/test_{mutant.module}.py"
            if not (ROOT / own).exists():
                files = (name.partition("::")[0] for name in self.reach.tests[mutant.module,])
                own = max(
                    counts := Counter(files), key=counts.get, default="tests/test_bad_input.py"
                )
            return run_cold(mutant, [own, "-k", self.arguments.only]), 600.0
        if mutant.function is None:
            names = self.reach.that_use(constants, self.items)
        else:
            names = self.reach.quickest(mutant)
        expected = sum(self.reach.seconds[name] for name in names)
        return run_warm(mutant, [self.items[name] for name in names], self.live), 20 + 6 * expected

    def run(self) -> None:
        modules = self.arguments.modules or [
            path.stem for path in sorted(ROOT.glob("helpers/*.py"))
        ]
        self.everything, self.excluded = {}, Counter()
        for module in modules:
            self.everything[module], excluded = mutants_of(module)
            self.excluded += excluded
        low, high = (float(bound) for bound in self.arguments.part.split(":"))
        chosen = [m for found in self.everything.values() for m in found if low <= m.number < high]
        random.Random(0).shuffle(chosen)  # so that an interrupted run is a sample, too
        self.results: dict[str, Counter[str]] = defaultdict(Counter)
        self.survivors: list[Mutant] = []
        self.test_all(chosen)
        self.report()

    def test_all(self, chosen: list[Mutant]) -> None:
        waiting, running = [(mutant, False) for mutant in chosen], {}
        while waiting or running:
            while waiting and len(running) < self.arguments.jobs:
                mutant, cold = waiting.pop(0)
                pid, limit = self.start(mutant, cold)
                running[pid] = [mutant, limit, time.monotonic(), 0.0]
            time.sleep(0.01)
            for pid, (mutant, limit, last, spent) in list(running.items()):
                now = time.monotonic()
                spent += min(
                    now - last, 0.1
                )  # where all of this was paused, little time has passed
                running[pid][2:] = [now, spent]
                ended, status = os.waitpid(pid, os.WNOHANG)
                if not ended and spent < limit:
                    continue
                del running[pid]
                if not ended:
                    # A process of its own leads a group.
                    (os.killpg if os.getpgid(pid) == pid else os.kill)(pid, signal.SIGKILL)
                    os.waitpid(pid, 0)
                    self.count(mutant, "timeout", spent)
                elif (code := os.waitstatus_to_exitcode(status)) == BROKEN:
                    raise RuntimeError(f"could not test {mutant}")
                elif code == NEW_IMPORT:
                    waiting.append((mutant, True))
                else:
                    self.count(mutant, "survived" if status == 0 else "killed", spent)

    def count(self, mutant: Mutant, verdict: str, seconds: float) -> None:
        self.results[mutant.module][verdict] += 1
        if verdict == "survived":
            self.survivors.append(mutant)
        if self.arguments.log:
            with self.arguments.log.open("a") as file:
                print(f"{verdict} {seconds:.1f}s {mutant}", file=file)
        tell(f"{sum(sum(row.values()) for row in self.results.values())} mutants")

    def report(self) -> None:
        tell("")
        for mutant in sorted(self.survivors, key=lambda mutant: (mutant.module, mutant.start)):
            print(mutant)
        verdicts = ("killed", "timeout", "survived")
        print(
            f"\n{'':14}{'mutants':>9}{'tested':>9}", *(f"{v:>9}" for v in verdicts), f"{'rate':>8}"
        )
        together = sum(self.results.values(), Counter())
        rows = {module: self.results[module] for module in self.everything}
        for name, row in (rows | {"together": together}).items():
            found = [m for m in self.everything if name in (m, "together")]
            count, tested = sum(len(self.everything[m]) for m in found), row.total()
            rate = f"{1 - row['survived'] / tested:8.1%}" if tested else f"{'–':>8}"
            print(f"{name:14}{count:9}{tested:9}", *(f"{row[v]:9}" for v in verdicts), rate)
        killed = together["killed"] + together["timeout"]
        if together.total() < count:
            low, high = interval(killed, together.total())
            print(f"95 % interval of the rate of all mutants: {low:.1%} to {high:.1%}")
        print("not mutated:", ", ".join(f"{n} × {what}" for what, n in self.excluded.items()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("modules", nargs="*", help="modules of helpers, by default all")
    parser.add_argument(
        "--part", default="0:1", help="of the mutants' random numbers, by default 0:1"
    )
    parser.add_argument("-k", dest="only", default="", help="as in pytest: only these tests")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tests", nargs="*", help="test files, by default all unit tests")
    parser.add_argument("--log", type=Path, help="a file that gets a line for every mutant")
    arguments = parser.parse_args()
    os.chdir(ROOT)
    sys.path.insert(0, str(ROOT))  # these helpers, wherever the package is installed from
    files = [ROOT / file for file in arguments.tests or sorted(ROOT.glob("tests/test_*.py"))]
    files = [str(file) for file in files if file.name not in NOT_UNIT_TESTS]
    options = ["-q", "-s", "-n0", "-p", "no:cacheprovider", *files]
    options += ["-k", arguments.only] if arguments.only else []
    return pytest.main(options, plugins=[Session(arguments)])


if __name__ == "__main__":
    sys.exit(main())
