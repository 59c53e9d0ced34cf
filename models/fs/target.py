"""What a neuron is fitted to: a function by name, an expression in x, or `module:function`, and where it matters.

Nothing given as text is evaluated as Python: an expression is parsed and only numbers, x, arithmetic, comparisons
and calls of known element-wise functions are accepted.
"""

from __future__ import annotations

import ast
import importlib
import math
import operator
import os
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bittrue.sim.errors import BittrueError

Function = Callable[[np.ndarray], np.ndarray]

#: Other names of functions of torch.
ALIASES = {"swish": "silu", "hard_swish": "hardswish", "hard_sigmoid": "hardsigmoid", "ln": "log"}
#: Intervals that neurons for these functions are usually fitted on.
RANGES = {"swish": (-8.0, 12.0), "silu": (-8.0, 12.0), "sigmoid": (-10.0, 10.0)}
CONSTANTS = {"pi": math.pi, "e": math.e, "tau": math.tau}
#: Functions of several arguments that an expression may call.
SEVERAL = ("where", "minimum", "maximum", "clamp", "pow", "atan2", "hypot", "leaky_relu", "elu", "hardtanh")
BINARY = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
COMPARE = {ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge}


@dataclass(frozen=True, eq=False)
class TargetFunction:
    """A function of one real number, element by element on float64 arrays."""

    name: str
    function: Function

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """y float64, same shape; a value that is not finite, or a function of more than each x, is refused."""
        x = np.asarray(x, np.float64)
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(action="ignore"):
                y = np.asarray(self.function(x), np.float64)
                alone = np.asarray(self.function(x[:2]), np.float64)
        except BittrueError:
            raise
        except Exception as error:  # whatever a user's function raises
            raise BittrueError(f"function {self.name!r} failed on an array of numbers: {error}") from error
        if y.shape == () and x.shape != ():
            y, alone = np.broadcast_to(y, x.shape), np.broadcast_to(alone, x[:2].shape)
        if y.shape != x.shape:
            raise BittrueError(f"function {self.name!r} made {y.shape} of {x.shape}; it must work on each number alone")
        wrong = np.flatnonzero(~np.isfinite(y))
        if wrong.size:
            raise BittrueError(
                f"function {self.name!r} is {y[wrong[0]]} at x = {x[wrong[0]]:g}; choose a range on which it is finite"
            )
        if not np.allclose(alone, y[:2], rtol=1e-9, atol=1e-12):
            raise BittrueError(f"function {self.name!r} depends on more than each number alone, as a softmax does")
        return y


def target(text: str) -> TargetFunction:
    """The function that a text names: `gelu`, `x * tanh(x)`, `my_module:my_function`."""
    text = text.strip()
    if text.isidentifier():
        found = _named(text)
        if found is None:
            raise BittrueError(
                f"no function is named {text!r} in torch.nn.functional, torch or math; "
                "give such a name, an expression in x as in 'x * tanh(x)', or module:function"
            )
        return TargetFunction(text, found)
    module, colon, name = text.partition(":")
    if colon and name.isidentifier() and all(part.isidentifier() for part in module.split(".")):
        return TargetFunction(text, _imported(module, name))
    return TargetFunction(text, _expression(text))


def importance(x: np.ndarray, mean: float, sigma: float) -> np.ndarray:
    """Weights of a Gaussian's bulk: 11 at the mean, 10 at 2 sigma, 1 at 3 sigma, .5 at the ends, linear between.

    Knots beyond the grid are cut off. Source: the published fitting script of the FS-neurons.
    """
    if not (math.isfinite(mean) and math.isfinite(sigma) and sigma > 0):
        raise BittrueError(f"importance {mean:g},{sigma:g}: expected a mean and a positive standard deviation")
    knots = [mean + k * sigma for k in (-3, -2, 0, 2, 3)]
    heights = [1.0, 10.0, 11.0, 10.0, 1.0]
    if x[0] < knots[0]:
        knots, heights = [float(x[0]), *knots], [0.5, *heights]
    if x[-1] > knots[-1]:
        knots, heights = [*knots, float(x[-1])], [*heights, 0.5]
    return np.interp(x, knots, heights)


# -- names ---------------------------------------------------------------------------------------------
def _torch_function(name: str) -> Callable[..., Any] | None:
    """A function of torch on tensors: of torch.nn.functional, torch.special, or torch where tensors have it too."""
    name = ALIASES.get(name, name)
    if name.startswith("_") or name.endswith("_"):
        return None
    for place in (torch.nn.functional, torch.special, torch):
        found = getattr(place, name, None)
        if callable(found) and not isinstance(found, type) and (place is not torch or hasattr(torch.Tensor, name)):
            return found
    return None


def _named(name: str) -> Function | None:
    found = _torch_function(name)
    if found is not None:
        return lambda x: found(torch.from_numpy(x)).numpy()
    scalar = getattr(math, name, None)
    if callable(scalar):
        return lambda x: np.array([scalar(v) for v in x.tolist()])
    return None


def _imported(module: str, name: str) -> Function:
    """A user's own function; modules of the current folder are found too."""
    sys.path.insert(0, os.getcwd())
    try:
        loaded = importlib.import_module(module)
    except ImportError as error:
        raise BittrueError(f"function '{module}:{name}': module {module} cannot be imported ({error})") from error
    finally:
        sys.path.pop(0)
    function = getattr(loaded, name, None)
    if not callable(function):
        raise BittrueError(f"function '{module}:{name}': module {module} has no function {name}")

    def call(x: np.ndarray) -> np.ndarray:
        """The function may be written for arrays, for tensors or for single numbers: the first that works."""
        ways = (
            lambda: np.asarray(function(x), np.float64),
            lambda: function(torch.from_numpy(x)).detach().numpy(),
            lambda: np.array([float(function(v)) for v in x.tolist()]),
        )
        for way in ways[:-1]:
            try:
                return way()
            except Exception:  # whatever it raises: the next way may be what it was written for
                continue
        return ways[-1]()

    return call


# -- expressions ---------------------------------------------------------------------------------------
def _expression(text: str) -> Function:
    try:
        tree = ast.parse(text, mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise BittrueError(f"{text!r} is neither a function's name nor an expression in x ({error.args[0]})") from error
    _value(tree, torch.zeros(2, dtype=torch.float64), text)  # refuse what is not allowed before any work
    if not any(isinstance(node, ast.Name) and node.id == "x" for node in ast.walk(tree)):
        raise BittrueError(f"expression {text!r} does not contain x")

    def call(x: np.ndarray) -> np.ndarray:
        return torch.as_tensor(_value(tree, torch.from_numpy(x), text), dtype=torch.float64).numpy()

    return call


def _value(node: ast.expr, x: torch.Tensor, text: str) -> Any:
    """The value of one node of an expression; every kind of node that is not listed is refused."""
    if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
        return float(node.value)
    if isinstance(node, ast.Name) and node.id == "x":
        return x
    if isinstance(node, ast.Name) and node.id in CONSTANTS:
        return CONSTANTS[node.id]
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub | ast.UAdd):
        value = _value(node.operand, x, text)
        return -value if isinstance(node.op, ast.USub) else value
    if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
        return BINARY[type(node.op)](_operand(node.left, x, text), _operand(node.right, x, text))
    if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in COMPARE:
        left, right = _operand(node.left, x, text), _operand(node.comparators[0], x, text)
        return COMPARE[type(node.ops[0])](left, right)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
        function = _torch_function(node.func.id)
        allowed = len(node.args) == 1 or (node.func.id in SEVERAL and 2 <= len(node.args) <= 3)
        if function is None or not allowed:
            raise BittrueError(
                f"expression {text!r}: {ast.unparse(node)} is no call of a known function of one number; "
                f"of several arguments are {', '.join(SEVERAL)}"
            )
        values = [_tensor(_value(argument, x, text), x) for argument in node.args]
        if node.func.id in ("leaky_relu", "elu", "hardtanh"):  # these take plain numbers after the first
            values[1:] = [float(v.flatten()[0]) for v in values[1:]]
        return function(*values)
    raise BittrueError(
        f"expression {text!r}: {ast.unparse(node)} is not allowed; use numbers, x, + - * / % **, < <= > >=, "
        "and functions such as tanh(x) or where(x > 0, x, 0)"
    )


def _operand(node: ast.expr, x: torch.Tensor, text: str) -> torch.Tensor:
    return _tensor(_value(node, x, text), x)


def _tensor(value: Any, x: torch.Tensor) -> torch.Tensor:
    """Plain numbers become tensors, so that no arithmetic of Python can run away (9**9**9) or fail (1/0)."""
    return value if isinstance(value, torch.Tensor) else torch.full_like(x, value)
