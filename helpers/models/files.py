"""Model files are hashed before they are used, and never unpickled."""

import hashlib
from pathlib import Path


class ModelFileError(ValueError):
    """A model file is missing, or is not the file that the book was written with."""


def read_verified(path: Path | str, sha256: str) -> bytes:
    """The file's bytes if their SHA-256 is ``sha256``, else :class:`ModelFileError`.

    The bytes that were hashed are the bytes that are returned: the file is read once.
    """
    path = Path(path)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ModelFileError(
            f"{path.name} cannot be read from {path.parent}: {error.strerror}; "
            f"a file with SHA-256 {sha256} is needed there"
        ) from error
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise ModelFileError(
            f"{path.name} in {path.parent} is not the expected file: "
            f"its SHA-256 is {found}, allowed is {sha256}"
        )
    return content
