"""Networks and checkpoints on disk: written whole or not at all, read without running anything.

A network's class has `describe()`, the JSON values from which `from_description` builds it again; the file
holds these, the class's name and its parameters. The file ends in the SHA-256 of all that precedes it, so that nothing
is made of one that was altered.
"""

from __future__ import annotations

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole
from bittrue.sim.reading import plain_json

VERSION = 1
_SEAL = b"sha256:"


def write(path: str | Path, kind: str, content: dict[str, Any]) -> Path:
    """Write tensors and plain values (containers, numbers, text) as a file of this kind."""
    buffer = io.BytesIO()
    torch.save({"bittrue": kind, "version": VERSION} | content, buffer)
    content = buffer.getvalue() + _SEAL
    return write_whole(Path(path), content + hashlib.sha256(content).hexdigest().encode())


def read(path: str | Path, kind: str) -> dict[str, Any]:
    """Read what `write` wrote; a file that is missing, damaged, newer or of another kind is refused with the reason."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BittrueError(f"{kind} {path}: cannot be read ({error.strerror})") from error
    body, seal = raw[:-64], raw[-64:]
    if not body.endswith(_SEAL) or hashlib.sha256(body).hexdigest().encode() != seal:
        raise BittrueError(
            f"{kind} {path}: damaged or not written by bittrue (no hash of its content at its end); make it again"
        )
    try:
        content = torch.load(io.BytesIO(body[: -len(_SEAL)]), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        reason = str(error).strip().split("\n")[0][:300]
        raise BittrueError(f"{kind} {path}: damaged or not written by bittrue ({reason}); make it again") from error
    if not isinstance(content, dict) or content.get("bittrue") != kind or not isinstance(content.get("version"), int):
        raise BittrueError(f"{kind} {path}: not a bittrue {kind} file")
    if content["version"] > VERSION:
        raise BittrueError(f"{kind} {path}: written by a newer bittrue (file version {content['version']}); upgrade")
    return content


def save(model: nn.Module, path: str | Path) -> Path:
    """Write a network with everything needed to build it again."""
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    description = json.dumps(model.describe())
    return write(path, "network", {"class": type(model).__name__, "description": description, "state": state})


def load(path: str | Path, *classes: type[nn.Module]) -> nn.Module:
    """Read a network of one of these classes, in evaluation mode."""
    content = read(path, "network")
    known = {cls.__name__: cls for cls in classes}
    if not isinstance(content.get("class"), str) or content["class"] not in known:
        raise BittrueError(f"network {path}: it is a {str(content.get('class')):.60}, expected {' or '.join(known)}")
    try:
        model = known[content["class"]].from_description(plain_json(content["description"]))
        model.load_state_dict(content["state"])
    except Exception as error:  # a description may hold anything, and a constructor may raise anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise BittrueError(f"network {path}: its description and its parameters do not fit ({reason})") from error
    return model.eval()
