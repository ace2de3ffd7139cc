"""How strictly the annotations of ``helpers`` are checked in tests: an int is welcome as a float."""

from beartype import BeartypeConf, beartype

typechecker = beartype(conf=BeartypeConf(is_pep484_tower=True))
