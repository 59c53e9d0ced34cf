"""Networks and checkpoints on disk: written whole or not at all, read without running anything.

A network's class has `describe()`, the JSON values from which `from_description` builds it again; the file
holds these, the class's name and its parameters.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from bittrue.sim.errors import BittrueError
from bittrue.sim.files import write_whole

VERSION = 1


def write(path: str | Path, kind: str, content: dict[str, Any]) -> Path:
    """Write tensors and plain values (containers, numbers, text) as a file of this kind."""
    buffer = io.BytesIO()
    torch.save({"bittrue": kind, "version": VERSION} | content, buffer)
    return write_whole(Path(path), buffer.getvalue())


def read(path: str | Path, kind: str) -> dict[str, Any]:
    """Read what `write` wrote; a file that is missing, damaged, newer or of another kind is refused with the reason."""
    path = Path(path)
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise BittrueError(f"{kind} {path}: cannot be read ({error.strerror})") from error
    try:
        content = torch.load(io.BytesIO(raw), map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file raises nearly anything
        reason = str(error).strip().split("\n")[0]
        raise BittrueError(f"{kind} {path}: damaged or not written by bittrue ({reason}); make it again") from error
    if not isinstance(content, dict) or content.get("bittrue") != kind:
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
    if content["class"] not in known:
        raise BittrueError(f"network {path}: it is a {content['class']}, expected {' or '.join(known)}")
    try:
        model = known[content["class"]].from_description(json.loads(content["description"]))
        model.load_state_dict(content["state"])
    except (KeyError, ValueError, TypeError, RuntimeError) as error:
        raise BittrueError(f"network {path}: its description and its parameters do not fit ({error})") from error
    return model.eval()
