"""Files that appear whole or not at all, readable by their owner only."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

from indexer.core.session_json import show_name
from indexer.errors import UsageError

_PREFIX = ".sessionwatch-"
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC

Write = Callable[[str, str], None]
"""Append a text to a document, given by its name; each document once, one after the other."""


@contextmanager
def to_stream(stream: IO[bytes]) -> Iterator[Write]:
    """Copy what was written to a stream at the end; after an error nothing of it."""
    with tempfile.TemporaryFile() as spool:
        yield lambda _, text: _write(spool, text)
        spool.seek(0)
        shutil.copyfileobj(spool, stream)
        stream.flush()


@contextmanager
def to_file(path: Path, *, force: bool) -> Iterator[Write]:
    """Make a file with mode 0600 at the end; one that is there is replaced only with `force`.

    Raises UsageError where the file may not or cannot be made, if possible before the block.
    """
    with _refusals(path):
        if path.exists() and not path.is_file():  # root would replace /dev/null itself
            raise UsageError(
                f"{show_name(str(path))} is no ordinary file",
                remedy="name a file, or use --output - and send it where you want",
            )
        if not force:
            _refuse_existing(path)
        handle, name = tempfile.mkstemp(prefix=_PREFIX, dir=path.parent)
    temporary = Path(name)
    try:
        with os.fdopen(handle, "wb") as file:
            yield lambda _, text: _write(file, text)
            _settle(file)
        with _refusals(path):
            if force:
                temporary.replace(path)
            else:
                _move(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def to_folder(path: Path) -> Iterator[Write]:
    """Make a folder with mode 0700 and a file in it per document; all of it appears at the end.

    Raises UsageError as to_file does.
    """
    with _refusals(path):
        _refuse_existing(path)
        temporary = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=path.parent))
    try:
        with ExitStack() as opened:
            name: str | None = None
            file: IO[bytes]

            def write(document: str, text: str) -> None:
                nonlocal name, file
                if document != name:
                    opened.close()
                    handle = os.open(temporary / document, _NEW, 0o600)
                    name, file = document, opened.enter_context(os.fdopen(handle, "wb"))
                    opened.callback(_settle, file)
                _write(file, text)

            yield write
        with _refusals(path):
            # onto nothing or an empty folder: anything else the system refuses
            temporary.rename(path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _write(file: IO[bytes], text: str) -> None:
    file.write(text.encode("ascii"))


def _settle(file: IO[bytes]) -> None:
    """Have the content on the disk before the name: a crash must not leave the name alone."""
    file.flush()
    os.fsync(file.fileno())


def _move(temporary: Path, path: Path) -> None:
    """Give the file its name, unless something has it."""
    try:
        path.hardlink_to(temporary)  # unlike a rename it never overwrites
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        _refuse_existing(path)
        temporary.rename(path)


def _refuse_existing(path: Path) -> None:
    if os.path.lexists(path):
        raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))


@contextmanager
def _refusals(path: Path) -> Iterator[None]:
    shown = show_name(str(path))
    try:
        yield
    except FileExistsError:
        raise UsageError(
            f"{shown} is there already, and stays as it is",
            remedy="choose another name; a file (--output) is replaced with --force",
        ) from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise
        raise UsageError(
            f"cannot write {shown}: {os.strerror(error.errno or errno.EIO)}",
            remedy="choose a name in a folder that you may write to",
        ) from None
