"""A store's results as an Arrow file beside it: made from the store alone, and never believed over it.

The file ends with a hash of the checksums of the store's bytes and of its own content, and of the code that read them,
so that a stale, a foreign and a damaged one are told alike.
"""

from __future__ import annotations

import hashlib
import mmap
import os
from collections.abc import Iterable
from contextlib import suppress
from io import FileIO
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np

from ntbench import types
from ntbench.engine import reading
from ntbench.sources import files_digest
from ntbench.types import Columns, Factor, Texts
from ntbench.types.columns import NUMBERS, PARTS, RUNS

FEWEST = 1000
"""Rows under which a cache saves nothing worth a file."""
_SIZE = hashlib.sha256().digest_size
_PART = 2**20
CODE = files_digest([*sorted(Path(types.__file__).parent.glob("*.py")), Path(reading.__file__), Path(__file__)])
"""The code that reads, as it is when this process starts."""


def stamp(files: Iterable[Path]) -> bytes:
    """Return what changes with any byte of a store's files, and with the code that reads it."""
    state = hashlib.sha256(CODE.encode())
    for file in files:
        with suppress(FileNotFoundError), FileIO(file) as opened:
            state.update(_checksum(opened, os.fstat(opened.fileno()).st_size))
        state.update(file.name.encode())
    return state.digest()


def _checksum(file: FileIO, size: int) -> bytes:
    """Return the size and the CRC-32 of so many bytes of a file, which tell whatever nobody forged, in no time."""
    part, found, left = memoryview(bytearray(_PART)), 0, size
    while left > 0 and (count := file.readinto(part[: min(left, _PART)])):
        found = crc32(part[:count], found)
        left -= count
    return (size - left).to_bytes(8) + found.to_bytes(4)


def load(path: Path, stamp: bytes) -> Columns | None:
    """Return the columns of a file that was made under the same stamp and is whole, or None."""
    import pyarrow as pa

    try:
        with FileIO(path) as opened:
            if not _whole(opened, stamp):
                return None
            # Most of the file are texts of which few are looked at: no more of it than that enters memory.
            content = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    with pa.ipc.open_stream(pa.py_buffer(content)) as stream:
        return _columns(stream.read_next_batch())


def _whole(file: FileIO, stamp: bytes) -> bool:
    content = _checksum(file, os.fstat(file.fileno()).st_size - _SIZE)
    return _seal(stamp, content) == file.read()


def save(path: Path, stamp: bytes, columns: Columns) -> None:
    """Write the file of a stamp, whole or not at all; raises OSError where it cannot be written."""
    import pyarrow as pa

    unfinished, batch = path.with_name(f".{path.name}.{os.getpid()}"), _batch(columns)
    try:
        with pa.OSFile(str(unfinished), "wb") as sink, pa.ipc.new_stream(sink, batch.schema) as writer:
            writer.write_batch(batch)
        with FileIO(unfinished, "r+") as written:
            written.write(_seal(stamp, _checksum(written, os.fstat(written.fileno()).st_size)))
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)


def _seal(stamp: bytes, content: bytes) -> bytes:
    return hashlib.sha256(stamp + content).digest()


def _batch(columns: Columns) -> Any:
    """Return one record a result: parts as dictionaries of JSON, trajectories as lists."""
    import pyarrow as pa

    texts = pa.LargeStringArray.from_buffers(
        len(columns.correct.starts) - 1, *map(pa.py_buffer, (columns.correct.starts, columns.correct.data))
    )
    arrays = {"key": pa.array(columns.keys.tolist(), pa.string())}
    for name, factor in columns.parts.items():
        values = pa.array([PARTS[name].dump_json(value).decode() for value in factor.values], pa.string())
        arrays[f"part {name}"] = pa.DictionaryArray.from_arrays(pa.array(factor.codes), values)
    arrays |= {f"number {name}": pa.array(column) for name, column in columns.numbers.items()}
    for name, column in columns.runs.items():
        arrays[f"run {name}"] = pa.LargeListArray.from_arrays(pa.array(columns.starts), pa.array(column))
    arrays["correct"] = pa.LargeListArray.from_arrays(pa.array(columns.starts), texts)
    return pa.RecordBatch.from_pydict(arrays)


def _columns(batch: Any) -> Columns:
    correct = batch.column("correct")
    _, starts, data = correct.values.buffers()
    ends = np.frombuffer(starts, dtype=np.int64, count=len(correct.values) + 1)
    return Columns(
        keys=np.array(batch.column("key").to_pylist(), dtype=np.str_),
        parts={name: _factor(name, batch.column(f"part {name}")) for name in PARTS},
        numbers={name: batch.column(f"number {name}").to_numpy() for name in NUMBERS},
        starts=correct.offsets.to_numpy(),
        runs={name: batch.column(f"run {name}").values.to_numpy() for name in RUNS},
        correct=Texts(np.frombuffer(data, dtype=np.uint8, count=int(ends[-1])), ends),
    )


def _factor(name: str, column: Any) -> Factor:
    values = tuple(PARTS[name].validate_json(text) for text in column.dictionary.to_pylist())
    return Factor(column.indices.to_numpy(), values)
