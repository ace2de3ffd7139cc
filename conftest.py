"""For every run of pytest: notebooks are compared by value (tests/by_value.py)."""

pytest_plugins = ["by_value"]
