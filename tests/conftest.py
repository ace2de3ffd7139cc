"""For all tests: shapes and types in the annotations of ``helpers`` are checked at every call.

Only here: at a user's call the checks would double the time of small calls (a layer's step takes 2.3
times as long), add .6 s to the import, and torch.compile can't trace them. The functions check what
matters themselves. Those checks are what the tests of bad input are about, so for them the
annotations are left aside.
"""

from collections.abc import Iterator

import jaxtyping
import pytest

jaxtyping.install_import_hook("helpers", "typecheck.typechecker")


@pytest.fixture(autouse=True)
def own_checks(request: pytest.FixtureRequest) -> Iterator[None]:
    """Without annotations in tests marked ``bad_input``."""
    marked = request.node.get_closest_marker("bad_input") is not None
    jaxtyping.config.update("jaxtyping_disable", marked)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
