"""For all tests: shapes and types in the annotations of ``helpers`` are checked at every call.

Only here: for users and in notebooks the functions check their arguments themselves. Those checks
are what the tests of bad input are about, so for them the annotations are left aside.
"""

from collections.abc import Iterator

import jaxtyping
import pytest

jaxtyping.install_import_hook("helpers", "typecheck.typechecker")


@pytest.fixture(autouse=True)
def own_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without annotations in test_bad_input.py and in tests marked ``bad_input``."""
    marked = request.node.get_closest_marker("bad_input") is not None
    jaxtyping.config.update("jaxtyping_disable", marked or request.path.name == "test_bad_input.py")
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
