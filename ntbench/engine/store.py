"""A run's folder: results in one SQLite file with one writer, artifacts by content hash; whole or absent."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock, Timeout
from pydantic import ValidationError

from ntbench.engine import cached
from ntbench.engine.reading import Reader, checksum
from ntbench.errors import UserError
from ntbench.types import Columns, Result, columns_of

_TABLE = "CREATE TABLE IF NOT EXISTS results (key TEXT PRIMARY KEY, status TEXT NOT NULL, body TEXT NOT NULL)"
_SUMS = "CREATE TABLE IF NOT EXISTS sums (key TEXT PRIMARY KEY, sum TEXT NOT NULL)"
"""Checksums lie beside the results, so that a folder from before there were any is read and continued as it is."""

T = TypeVar("T")


class Store:
    """Results and artifacts under one folder."""

    def __init__(self, folder: Path) -> None:
        """Name the folder; nothing is created before the first write."""
        self.folder = folder
        self.database = folder / "results.sqlite"
        self.artifacts = folder / "artifacts"
        self._cache = folder / "results.arrow"

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Be the folder's only writer, or raise UserError."""
        lock = FileLock(self.folder / "writer.lock")
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                lock.acquire(timeout=0)
            except Timeout:
                raise UserError(
                    f"another process is writing to {str(self.folder)!r}; wait for it or give another --out"
                ) from None
        with lock:
            yield

    def add(self, result: Result) -> None:
        """Store one result; after this call it survives a kill."""
        row = (result.cell.key, result.status, result.model_dump_json())
        with self._connected() as connection:
            connection.execute("INSERT OR REPLACE INTO results VALUES (?, ?, ?)", row)
            connection.execute("INSERT OR REPLACE INTO sums VALUES (?, ?)", (row[0], checksum(*row)))

    def statuses(self) -> dict[str, str]:
        """Return the status of every stored key."""
        return dict(self._rows("SELECT key, status FROM results", lambda row: (row[0], row[1])))

    def results(self) -> Columns:
        """Return every stored result, in the order of keys.

        Raises UserError where one was damaged, or is of another schema.
        """
        if not self.database.exists():
            return columns_of([])
        with self._explained():
            held = cached.load(self._cache, self._stamp()) if self._cache.exists() else None
        return self._kept() if held is None else held

    def _kept(self) -> Columns:
        with self._connected():
            pass  # takes over what a killed writer left in the log, which changes the file
        before = self._stamp()
        found = self._gathered()
        # Whoever wrote meanwhile may have been read in part.
        if len(found) >= cached.FEWEST and self._stamp() == before:
            with suppress(OSError):
                cached.save(self._cache, before, found)
        return found

    def _stamp(self) -> bytes:
        return cached.stamp([self.database, self.database.with_name(f"{self.database.name}-wal")])

    def _gathered(self) -> Columns:
        reader = Reader()
        with self._of_this_schema():
            self._rows(
                "SELECT key, status, body, sum FROM results LEFT JOIN sums USING (key) ORDER BY key",
                lambda row: self._read(reader, *row),
            )
            return reader.columns()

    def _read(self, reader: Reader, key: str, status: str, body: str, held: str | None) -> None:
        reader.add(key, body)
        if held and held != checksum(key, status, body):
            raise UserError(
                f"{str(self.database)!r}: the result {key} was damaged; restore the file from a copy, or start a "
                "new folder with --out"
            )

    @contextmanager
    def _of_this_schema(self) -> Iterator[None]:
        try:
            yield
        except UserError:
            raise
        except ValueError as error:
            said = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
            raise UserError(
                f"{str(self.database)!r} holds a result of another schema ({said}); "
                "render it with the ntbench that wrote it, or start a new folder with --out"
            ) from None

    def forget(self, keys: Iterable[str]) -> None:
        """Remove results, so that they are computed again."""
        with self._connected() as connection:
            for key in keys:
                connection.execute("DELETE FROM results WHERE key = ?", (key,))
                connection.execute("DELETE FROM sums WHERE key = ?", (key,))

    def artifact(self, key: str, make: Callable[[Path], None]) -> Path:
        """Return the file of a key; exactly one process makes it where it is absent, and the others wait."""
        path = self.artifact_path(key)
        if path.exists():
            return path
        with self._explained():
            self.artifacts.mkdir(parents=True, exist_ok=True)
            with FileLock(path.with_suffix(".lock")):
                if not path.exists():
                    unfinished = path.with_suffix(".tmp")
                    make(unfinished)
                    os.replace(unfinished, path)
        return path

    def artifact_path(self, key: str) -> Path:
        """Return where the artifact of a key lies or would lie."""
        return self.artifacts / f"{key}.safetensors"

    def forget_artifact(self, key: str) -> None:
        """Remove an artifact, so that it is made again."""
        with suppress(FileNotFoundError):
            self.artifact_path(key).unlink()

    def _rows(self, query: str, build: Callable[[tuple[str, ...]], T]) -> list[T]:
        if not self.database.exists():
            return []
        with self._connected() as connection:
            # One row at a time: the text of all of them is larger than what is made of it.
            return [build(row) for row in connection.execute(query)]

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        with self._explained():
            connection = sqlite3.connect(self.database, timeout=30)
            try:
                with connection:
                    connection.execute("PRAGMA journal_mode=WAL")
                    connection.execute(_TABLE)
                    connection.execute(_SUMS)
                    yield connection
            finally:
                connection.close()

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.DatabaseError as error:
            raise UserError(
                f"{str(self.database)!r} cannot be used: {error}; free disk space if it is full, "
                "otherwise restore it from a copy or start a new folder with --out"
            ) from error
        except OSError as error:
            raise UserError(f"{str(self.folder)!r} cannot be written: {error}") from error
