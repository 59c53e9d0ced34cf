"""A program beside the user's own torch model, step by step on the same spikes.

A NIR file says neither the time step nor how a neuron is reset, so a program can agree with every simulation of the
file and not with the network that was exported. The model itself decides.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.extras import need
from bittrue.sim.operations.encode import SPIKE
from bittrue.sim.program import Program

EXAMPLE = "my_net.py:net"


def load_model(place: str) -> Any:
    """The model of `FILE.py:NAME`, from the user's own file, which is run: a `torch.nn.Module`, or what returns one.

    Raises BittrueError where the file, the name or a model is not there, and for whatever the file raises.
    """
    need("torch", "a torch model")
    import torch

    file, colon, name = place.rpartition(":")
    if not colon or not name.isidentifier() or not Path(file).is_file():
        raise BittrueError(f"model {place!r}: name a Python file and what it calls the model, for example {EXAMPLE}")
    spec = importlib.util.spec_from_file_location("bittrue_user_model", file)
    if spec is None or spec.loader is None:
        raise BittrueError(f"model {place!r}: {file} is no Python file; for example {EXAMPLE}")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        found = getattr(module, name)
        model = found if isinstance(found, torch.nn.Module) else found()
    except Exception as error:  # of the user's code
        reason = " ".join(str(error).split())[:200]
        raise BittrueError(f"model {place!r}: {type(error).__name__} in {file} ({reason})") from error
    if not isinstance(model, torch.nn.Module):
        raise BittrueError(f"model {place!r}: it is a {type(model).__name__}, and not a torch.nn.Module")
    return model.eval()


def simulate(model: Any, x: np.ndarray) -> np.ndarray:
    """The model's spikes `[n, T, size]` for values `[n, T, ...]`, one call a time step, float32.

    Whatever has `reset_mem`, as snnTorch's neurons do, begins anew. Of several results the first one is taken.
    """
    import torch

    for layer in model.modules():
        if hasattr(layer, "reset_mem"):
            layer.reset_mem()
    results = []
    try:
        with torch.no_grad():
            for t in range(x.shape[1]):
                y = model(torch.as_tensor(x[:, t], dtype=torch.float32))
                y = y[0] if isinstance(y, tuple | list) else y
                results.append(y.reshape(len(x), -1).numpy())
    except Exception as error:  # of the user's code
        reason = " ".join(str(error).split())[:200]
        shape = ", ".join(map(str, x.shape[2:]))
        raise BittrueError(
            f"the torch model raises {type(error).__name__} for a time step of shape [n, {shape}] ({reason}); "
            "it takes one step a call and keeps its state (in snnTorch init_hidden=True)"
        ) from error
    return np.stack(results, axis=1)


def with_model(program: Program, model: Any, x: np.ndarray) -> dict[str, float]:
    """How the program's spikes compare with the model's on codes `[n, T, size]`.

    `equal` is the share of equal spikes and silences of the result, `rate` the share of spikes of the model.
    Raises BittrueError for a program whose result is no spike train, and a model of another shape.
    """
    if program.output.format != SPIKE:
        raise BittrueError(
            f"the program's result is {program.output}, a membrane; compare a network that ends in spiking neurons"
        )
    about = program.meta["nir"]["input"]
    truth = simulate(model, (x * about["scale"]).reshape(*x.shape[:2], *about["shape"]))
    found = program(x)
    if truth.shape != found.shape:
        raise BittrueError(
            f"the torch model gives {truth.shape[2]} values a time step, and the program {found.shape[2]}; "
            "is the file an export of this model?"
        )
    if not np.isin(truth, (0, 1)).all():
        raise BittrueError("the torch model's result holds values that are no spikes; let it return its last layer's")
    return {"equal": float((found == truth).mean()), "rate": float(truth.mean())}
