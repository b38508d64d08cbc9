"""Writing generated files: only what changed, nothing else left over, and never half a file."""

from __future__ import annotations

import errno
import tempfile
from pathlib import Path, PurePosixPath

import pytest

from slo import Artefact
from slo.artefacts import Stale, stale, write
from slo.catalogue import render
from slo.compile import compile_slo
from tests.alerts.every_kind import EVERY_KIND

ONE = Artefact(PurePosixPath("rules/one.yaml"), "one\n")
TWO = Artefact(PurePosixPath("rules/two.yaml"), "zwei: ü\n")
TOP = Artefact(PurePosixPath("top.json"), "{}\n")


def tree(folder: Path) -> dict[str, str]:
    """Every file and every empty folder below a folder."""
    return {
        path.relative_to(folder).as_posix(): path.read_text() if path.is_file() else "(empty folder)"
        for path in sorted(folder.rglob("*"))
        if path.is_file() or not any(path.iterdir())
    }


def changes(found: list[Stale]) -> list[tuple[str, str]]:
    """Path and reason."""
    return [(str(change.path), change.why) for change in found]


@pytest.mark.parametrize("path", ["/etc/passwd", "../x", "rules/../../x", "..", "", "."])
def test_a_path_outside_the_output_folder_is_refused(path: str) -> None:
    """Absolute, upwards, or the folder itself: refused where the artefact is made, before anything is written."""
    with pytest.raises(ValueError, match="the path must stay below the output folder"):
        Artefact(PurePosixPath(path), "")


def test_a_path_may_be_given_as_text() -> None:
    """It becomes a path; the same place written in two ways is the same artefact."""
    assert Artefact("rules/./one.yaml", "one\n") == ONE  # type: ignore[arg-type]


def test_writing_makes_the_folder_hold_the_artefacts(tmp_path: Path) -> None:
    """Missing folders are made, texts are UTF-8, and what was written is told, sorted by path."""
    folder = tmp_path / "out"
    assert changes(write(folder, [TOP, TWO, ONE])) == [
        ("rules/one.yaml", "missing"),
        ("rules/two.yaml", "missing"),
        ("top.json", "missing"),
    ]
    assert tree(folder) == {"rules/one.yaml": "one\n", "rules/two.yaml": "zwei: ü\n", "top.json": "{}\n"}
    assert (folder / "rules/two.yaml").read_bytes() == "zwei: ü\n".encode()
    assert (folder / "rules/two.yaml").stat().st_mode & 0o777 == 0o644


def test_writing_again_touches_nothing(tmp_path: Path) -> None:
    """What is up to date keeps its inode and its time, so that no tool sees a change where there is none."""
    write(tmp_path, [ONE, TWO])
    before = [(path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))]
    assert write(tmp_path, [TWO, ONE]) == []
    assert [(path.stat().st_ino, path.stat().st_mtime_ns) for path in sorted(tmp_path.rglob("*"))] == before


def test_only_what_differs_is_replaced(tmp_path: Path) -> None:
    """A change of one file leaves the others alone, byte for byte and inode for inode."""
    write(tmp_path, [ONE, TWO])
    inode = (tmp_path / "rules/one.yaml").stat().st_ino
    assert changes(write(tmp_path, [ONE, Artefact(TWO.path, "new\n")])) == [("rules/two.yaml", "differs")]
    assert (tmp_path / "rules/one.yaml").stat().st_ino == inode
    assert tree(tmp_path) == {"rules/one.yaml": "one\n", "rules/two.yaml": "new\n"}


def test_a_changed_line_end_is_a_difference(tmp_path: Path) -> None:
    """Bytes are compared, not texts: an editor's CRLF is seen."""
    write(tmp_path, [ONE])
    (tmp_path / ONE.path).write_bytes(b"one\r\n")
    assert changes(stale(tmp_path, [ONE])) == [("rules/one.yaml", "differs")]


def test_orphans_and_emptied_folders_are_removed(tmp_path: Path) -> None:
    """What nothing generates any more goes, with folders that held nothing else; the output folder itself stays."""
    write(tmp_path, [ONE, TOP])
    (tmp_path / "deep/er").mkdir(parents=True)
    (tmp_path / "deep/er/old").write_text("old")
    assert changes(write(tmp_path, [TOP])) == [("deep/er/old", "orphan"), ("rules/one.yaml", "orphan")]
    assert tree(tmp_path) == {"top.json": "{}\n"}
    assert changes(write(tmp_path, [])) == [("top.json", "orphan")]
    assert tmp_path.is_dir()


def test_a_folder_with_something_left_in_it_stays(tmp_path: Path) -> None:
    """Removing an orphan never takes its neighbours along."""
    write(tmp_path, [ONE, TWO])
    write(tmp_path, [TWO])
    assert tree(tmp_path) == {"rules/two.yaml": "zwei: ü\n"}


def test_strangers_stay_when_told_so(tmp_path: Path) -> None:
    """`slo import -o DIR` writes into a folder that is not ours: other files are neither removed nor told."""
    (tmp_path / "theirs.yaml").write_text("theirs")
    assert changes(write(tmp_path, [ONE], remove_orphans=False)) == [("rules/one.yaml", "missing")]
    assert tree(tmp_path) == {"rules/one.yaml": "one\n", "theirs.yaml": "theirs"}


def test_stale_says_what_write_would_do_and_does_nothing(tmp_path: Path) -> None:
    """Missing, differs, orphan: each by name; and looking changes nothing."""
    write(tmp_path, [ONE, TWO])
    (tmp_path / "rules/one.yaml").write_text("edited")
    before = tree(tmp_path)
    expected = [("rules/one.yaml", "differs"), ("rules/two.yaml", "orphan"), ("top.json", "missing")]
    assert changes(stale(tmp_path, [ONE, TOP])) == expected
    assert tree(tmp_path) == before
    assert changes(write(tmp_path, [ONE, TOP])) == expected
    assert stale(tmp_path, [ONE, TOP]) == []


def test_two_artefacts_of_one_path_raise_before_anything_is_written(tmp_path: Path) -> None:
    """One would silently win; the path is named, and the old files are as they were."""
    write(tmp_path, [ONE])
    for attempt in (write, stale):
        with pytest.raises(ValueError, match=r"artefact rules/two.yaml: generated twice"):
            attempt(tmp_path, [Artefact(ONE.path, "new"), TWO, TWO])
    assert tree(tmp_path) == {"rules/one.yaml": "one\n"}


# --- failures half way ------------------------------------------------------------------------------------------------


def test_a_target_that_cannot_be_written_leaves_all_as_it_was(tmp_path: Path) -> None:
    """A file stands where a folder must be: no other file has changed, and nothing is left over."""
    write(tmp_path, [ONE])
    (tmp_path / "blocked").write_text("a file")
    before = tree(tmp_path)
    with pytest.raises(OSError, match="blocked"):
        write(tmp_path, [Artefact(PurePosixPath("a/new"), "a"), Artefact(ONE.path, "new"), _below("blocked")])
    assert tree(tmp_path) == before


def _below(folder: str) -> Artefact:
    return Artefact(PurePosixPath(folder) / "x", "x")


def test_a_full_disk_leaves_all_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The write that fails is the second one, in the middle of its file: neither it nor the first is left over."""
    write(tmp_path, [ONE, TWO])
    before = tree(tmp_path)
    written: list[Path] = []
    real = Path.write_bytes

    def write_bytes(self: Path, data: bytes) -> int:
        written.append(self)
        if len(written) == 2:
            real(self, data[:1])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(Path, "write_bytes", write_bytes)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, [Artefact(ONE.path, "new"), Artefact(TWO.path, "new"), TOP])
    assert tree(tmp_path) == before


def test_a_rename_that_fails_leaves_whole_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted between two renames, each file is whole, old or new; the next run does the rest."""
    write(tmp_path, [ONE, TWO])
    renamed: list[Path] = []
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if renamed:
            raise KeyboardInterrupt
        renamed.append(target)
        return real(self, target)

    fresh = [Artefact(ONE.path, "new one"), Artefact(TWO.path, "new two"), TOP]
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path, fresh)
    monkeypatch.setattr(Path, "replace", real)
    assert tree(tmp_path) == {"rules/one.yaml": "new one", "rules/two.yaml": "zwei: ü\n"}
    assert changes(write(tmp_path, fresh)) == [("rules/two.yaml", "differs"), ("top.json", "missing")]


def test_orphans_stay_until_every_new_file_is_in_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rules are never gone before their successors are there."""
    write(tmp_path, [ONE])

    def replace(*_: object) -> Path:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="Input/output"):
        write(tmp_path, [TWO])
    assert tree(tmp_path) == {"rules/one.yaml": "one\n"}


def test_the_side_file_is_in_the_folder_of_its_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rename is whole only within one file system, so nothing is prepared in the system's temporary folder."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    monkeypatch.setattr(Path, "replace", lambda aside, target: seen.append((aside.parent, target.parent)))
    seen: list[tuple[Path, Path]] = []
    write(tmp_path / "out", [ONE])
    assert seen == [(tmp_path / "out/rules", tmp_path / "out/rules")]


def test_an_output_folder_that_is_a_file_is_an_error(tmp_path: Path) -> None:
    """It is said by its name, and the file is kept."""
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OSError, match="out"):
        write(tmp_path / "out", [ONE])
    assert (tmp_path / "out").read_text() == "mine"


def test_a_real_catalogue_is_byte_stable(tmp_path: Path) -> None:
    """Rendered twice from the definitions, in another order of calls: nothing to change."""
    write(tmp_path, render([compile_slo(slo) for slo in EVERY_KIND]))
    assert stale(tmp_path, render([compile_slo(slo) for slo in EVERY_KIND])) == []
