"""Artefacts: generated files as values, and the only code that writes them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath


@dataclass(frozen=True, slots=True)
class Artefact:
    """A generated file: a path below the output folder, and its whole text."""

    path: PurePosixPath
    text: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", PurePosixPath(self.path))
        if self.path.is_absolute() or ".." in self.path.parts or not self.path.parts:
            message = f"artefact {self.path}: the path must stay below the output folder"
            raise ValueError(message)


@dataclass(frozen=True, slots=True)
class Stale:
    """A file that is not as it would be generated now.

    Attributes:
        path: Below the output folder.
        why: `missing`, `differs`, or `orphan`: nothing generates it any more.
    """

    path: PurePosixPath
    why: str


def stale(folder: Path, artefacts: Iterable[Artefact]) -> list[Stale]:
    """What `write` would change, sorted by path.

    Raises:
        ValueError: Two artefacts have the same path.
    """
    wanted = _by_path(artefacts)
    found = set(_files(folder))
    changes = [Stale(path, "orphan") for path in found - set(wanted)]
    for path, artefact in wanted.items():
        if path not in found:
            changes.append(Stale(path, "missing"))
        elif (folder / path).read_bytes() != artefact.text.encode():
            changes.append(Stale(path, "differs"))
    return sorted(changes, key=lambda change: change.path)


def write(folder: Path, artefacts: Iterable[Artefact], *, remove_orphans: bool = True) -> list[Stale]:
    """Make the folder hold these artefacts and, unless told otherwise, nothing else; returns what was changed.

    Every changed file is first written to the side, and only when all are whole are they renamed into place: a full
    disk or an interrupt leaves every file as it was or as it should be.

    Raises:
        ValueError: Two artefacts have the same path.
    """
    wanted = _by_path(artefacts)
    changes = [change for change in stale(folder, wanted.values()) if remove_orphans or change.why != "orphan"]
    fresh = [wanted[change.path] for change in changes if change.why != "orphan"]
    written: list[tuple[Path, Path]] = []
    made: set[Path] = set()
    try:
        for artefact in fresh:
            target = folder / artefact.path
            if target.parent not in made:
                target.parent.mkdir(parents=True, exist_ok=True)
                made.add(target.parent)
            aside = target.with_name(f"{_ASIDE}{os.getpid()}-{len(written)}")
            written.append((aside, target))
            aside.write_bytes(artefact.text.encode())
        for aside, target in written:
            aside.replace(target)
    except BaseException:
        for aside, _ in written:
            _remove(folder, aside)
        raise
    for change in changes:
        if change.why == "orphan":
            _remove(folder, folder / change.path)
    return changes


def _by_path(artefacts: Iterable[Artefact]) -> dict[PurePosixPath, Artefact]:
    by_path: dict[PurePosixPath, Artefact] = {}
    for artefact in artefacts:
        if artefact.path in by_path:
            message = f"artefact {artefact.path}: generated twice"
            raise ValueError(message)
        by_path[artefact.path] = artefact
    return by_path


_ASIDE = ".aside-"


def _files(folder: Path) -> Iterator[PurePosixPath]:
    for where, _, files in os.walk(folder):
        for file in files:
            yield PurePosixPath((Path(where) / file).relative_to(folder).as_posix())


def _remove(folder: Path, path: Path) -> None:
    """Remove a file, and the folders below `folder` that it leaves empty."""
    path.unlink(missing_ok=True)
    for parent in path.parents:
        if parent == folder or any(parent.iterdir()):
            return
        parent.rmdir()
