"""What runs in the process of foreign code: one request, answered with JSON and weights."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from dataclasses import asdict
from typing import Any

import torch
from pydantic import ValidationError

from ntbench.domains import PARTS, find
from ntbench.engine.declared import described, traits
from ntbench.engine.frames import Message, receive, row_of, send, split_of
from ntbench.engine.subject import SPLITS, Grant, attacked, protected
from ntbench.errors import UnusableError, UserError
from ntbench.learn.models import build, state_of
from ntbench.method import Attack, Defense, Method
from ntbench.metric import answer
from ntbench.registry import registry
from ntbench.tasks.objective import objective_of
from ntbench.types import Arch, ObjectiveSpec

MOST = 2**34
"""Bytes of tensors that the trusted side may send."""


def serve(line: socket.socket) -> None:
    """Answer the one request on a line; whatever the code prints goes nowhere."""
    quiet = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(quiet, stream)
    torch.set_num_threads(1)
    try:
        request, tensors = receive(line, MOST)
        sys.path[:0] = [folder for folder in request["path"] if folder not in sys.path]
        for plugin in request["plugins"]:
            registry.load_plugin(plugin)
        _ANSWERS[request["ask"]](line, (request, tensors))
    except UserError as error:
        _tell(line, "refused", str(error))
    except UnusableError as error:
        _tell(line, "unusable", str(error))
    except FloatingPointError as error:
        _tell(line, "diverged", str(error))
    except BaseException as error:
        text = f"{type(error).__name__}: {error}".splitlines() or ["an error without a name"]
        _tell(line, "error", "\n".join([text[0], *traceback.format_exception(error, limit=-3)]))


def _tell(line: socket.socket, status: str, error: str) -> None:
    send(line, {"status": status, "error": error.encode("utf-8", "replace").decode()[:20_000]})


def _method(request: dict[str, Any]) -> Method:
    cls = registry.get(request["kind"], request["name"])
    try:
        method: Method = cls(**request["params"])
    except ValidationError as error:
        item = error.errors()[0]
        key = ".".join(map(str, item["loc"]))
        raise UserError(f"{request['kind']} {request['name']!r}: {key} = {item['input']!r}: {item['msg']}") from None
    return method


def _describe(line: socket.socket, message: Message) -> None:
    request, _ = message
    found = registry.load_plugin(request["file"]) if request["file"] else registry.foreign()
    send(line, {"status": "ok", "methods": [described(cls) for cls in found]})


def _spec(line: socket.socket, message: Message) -> None:
    request, _ = message
    method = _method(request)
    facts = {"spec": method.spec(request["label"]).model_dump(mode="json"), "traits": traits(method)}
    send(line, {"status": "ok", **facts})


def _refuses(line: socket.socket, message: Message) -> None:
    request, _ = message
    attack: Any = _method(request)
    stub = type("Faced", (Defense,), {"name": request["defense"], "masked": request["masked"]})()
    _reason(line, attack.refuses(stub, *request["classes"]))


def _unfit(line: socket.socket, message: Message) -> None:
    request, _ = message
    attack: Any = _method(request)
    _reason(line, attack.unfit(build(Arch(**request["arch"]), 2, seed=0)))


def _reason(line: socket.socket, told: object) -> None:
    send(line, {"status": "ok", "reason": str(told)[:2000]})


def _fingerprint(line: socket.socket, message: Message) -> None:
    name = message[0]["name"]
    send(line, {"status": "ok", "fingerprint": registry.get("domain", name)().fingerprint()})


def _build(line: socket.socket, message: Message) -> None:
    request, _ = message
    raw = find(request["name"]).build(request["name"], request["image_size"])
    facts = {name: getattr(raw, name) for name in ("classes", "views", "class_names", "remarks")}
    arrays = {
        f"{part}.{column}": array for part in PARTS for column, array in zip("xy", getattr(raw, part), strict=True)
    }
    send(line, {"status": "ok", **facts}, {name: torch.tensor(array) for name, array in arrays.items()})


def _measure(line: socket.socket, message: Message) -> None:
    metric = registry.get("metric", message[0]["name"])
    for left in reversed(range(message[0]["rows"])):
        found = answer(metric, row_of(message))
        send(line, {"status": "ok", **found._asdict()})
        if left:
            message = receive(line, MOST)


def _protect(line: socket.socket, message: Message) -> None:
    request, tensors = message
    defense: Any = _method(request)
    weights, cost = protected(defense, _grant(request, tensors))
    send(line, {"status": "ok", "cost": asdict(cost)}, weights)


def _attack(line: socket.socket, message: Message) -> None:
    request, tensors = message
    attack: Any = _method(request)
    assert isinstance(attack, Attack)
    for snapshot in attacked(attack, _grant(request, tensors)):
        facts = {"step": snapshot.step, "cost": asdict(snapshot.cost), "paid": snapshot.paid, "choice": snapshot.choice}
        send(line, {"status": "snapshot", **facts}, state_of(snapshot.model))
    send(line, {"status": "ok"})


def _grant(request: dict[str, Any], tensors: dict[str, torch.Tensor]) -> Grant:
    facts, device = request["grant"], torch.device(request["grant"]["device"])
    prefix = "weights."
    weights = {n.removeprefix(prefix): t.to(device) for n, t in tensors.items() if n.startswith(prefix)}
    told = facts.pop("objectives")
    splits: Any = {name: split_of(tensors, name, device, told) for name in SPLITS}
    objective = objective_of(ObjectiveSpec(**told["task"]))
    fields: Any = facts | {"arch": Arch(**facts["arch"]), "ends": tuple(facts["ends"]), "device": device}
    fields["objective"] = objective
    return Grant(**fields, **splits, weights=weights)


_ANSWERS = {
    "describe": _describe,
    "spec": _spec,
    "refuses": _refuses,
    "unfit": _unfit,
    "fingerprint": _fingerprint,
    "build": _build,
    "measure": _measure,
    "protect": _protect,
    "attack": _attack,
}
