"""Messages between processes that do not trust each other: JSON and plain tensors, of bounded size; no pickle."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Callable
from dataclasses import fields
from functools import partial
from typing import Any, TypeVar

import numpy as np
import torch
from safetensors.torch import load, save
from torch import Tensor

from ntbench.metric import Row
from ntbench.tasks.data import Split
from ntbench.tasks.objective import objective_of
from ntbench.types import ObjectiveSpec

_HEADER = struct.Struct("!QQ")
LONGEST_TEXT = 2**20
_TICK = 0.2

Message = tuple[dict[str, Any], dict[str, Tensor]]
T = TypeVar("T")


class BrokenLineError(RuntimeError):
    """The other side ended, or sent what is no message."""


def _unwatched() -> None:
    """Wait as long as it takes."""


class _Patience:
    """Waits for the other side of a line in ticks, between which somebody may look at it and raise."""

    def __init__(self, line: socket.socket, watch: Callable[[], None]) -> None:
        line.settimeout(_TICK)
        self._watch, self._looked = watch, 0.0

    def __call__(self, move: Callable[[], T]) -> T:
        while True:
            if time.monotonic() - self._looked > _TICK:
                self._watch()
                self._looked = time.monotonic()
            try:
                return move()
            except TimeoutError:
                continue
            except OSError as error:
                raise BrokenLineError(str(error)) from None


def send(
    line: socket.socket,
    facts: dict[str, Any],
    tensors: dict[str, Tensor] | None = None,
    watch: Callable[[], None] = _unwatched,
) -> None:
    """Send facts and tensors as one message; `watch` is called while the other side does not read, and may raise.

    Raises BrokenLineError where the other side closed the line.
    """
    text = json.dumps(facts).encode("utf-8", "replace")
    blob = save({name: tensor.detach().cpu().contiguous() for name, tensor in (tensors or {}).items()})
    patience = _Patience(line, watch)
    for part in (_HEADER.pack(len(text), len(blob)), text, blob):
        left = memoryview(part)
        while left:
            left = left[patience(partial(line.send, left)) :]


def receive(line: socket.socket, most: int, watch: Callable[[], None] = _unwatched) -> Message:
    """Wait for one message of at most so many bytes of tensors; `watch` is called again and again, and may raise.

    Raises BrokenLineError where the other side closed the line or sent anything else.
    """
    text_size, blob_size = _HEADER.unpack(_exactly(line, _HEADER.size, watch))
    if text_size > LONGEST_TEXT or blob_size > most:
        raise BrokenLineError(f"a message of {text_size} + {blob_size} bytes is longer than it can be")
    text, blob = _exactly(line, text_size, watch), _exactly(line, blob_size, watch)
    try:
        facts, tensors = json.loads(text), load(blob)
    except Exception as error:
        raise BrokenLineError(f"a message that cannot be read: {type(error).__name__}") from None
    if not isinstance(facts, dict):
        raise BrokenLineError("a message without facts")
    return facts, tensors


def _exactly(line: socket.socket, size: int, watch: Callable[[], None]) -> bytes:
    patience, parts, missing = _Patience(line, watch), [], size
    while missing:
        part = patience(partial(line.recv, min(missing, 2**20)))
        if not part:
            raise BrokenLineError("the line was closed")
        parts.append(part)
        missing -= len(part)
    return b"".join(parts)


def tensors_of(splits: dict[str, Split | None]) -> dict[str, Tensor]:
    """Return the images and labels of splits by name, those that are there."""
    there = {name: split for name, split in splits.items() if split}
    return {f"{name}.{column}": held for name, s in there.items() for column, held in (("x", s.held), ("y", s.y))}


def split_of(tensors: dict[str, Tensor], name: str, device: torch.device, told: dict[str, Any]) -> Split | None:
    """Return one split of `tensors_of`, its images as they lay in memory, with the objective that is told by name."""
    if f"{name}.x" not in tensors:
        return None
    x, y = (tensors[f"{name}.{column}"].to(device) for column in "xy")
    x = x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x
    return Split(x, y, objective=objective_of(ObjectiveSpec(**told[name])))


def message_of(row: Row) -> Message:
    """Return the row of a board as facts and tensors."""
    held = {field.name: getattr(row, field.name) for field in fields(row)}
    arrays = {name: torch.tensor(value) for name, value in held.items() if isinstance(value, np.ndarray)}
    return {"row": {name: value for name, value in held.items() if name not in arrays}}, arrays


def row_of(message: Message) -> Row:
    """Return the row that `message_of` put into words."""
    facts, arrays = message
    told: dict[str, Any] = {name: tensor.numpy() for name, tensor in arrays.items()}
    return Row(**told | {name: tuple(v) if isinstance(v, list) else v for name, v in facts["row"].items()})
