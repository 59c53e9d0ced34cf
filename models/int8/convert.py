"""Any torch.fx-traceable module to a network of integers: followed, normalised, folded, calibrated, realised.

follow       torch.fx, with real values (`models.graph.follow`)
normalise    a float graph of a few kinds of nodes (`models.graph.normalise`); held to the model's own results
simplify     normalisations and factors into their neighbours (`models.graph.passes`)
equalise     factors of channels from a product into the next (`models.graph.equalise`)
observe      ranges on the calibration data; tensors that are added or joined share a step (`models.graph.observe`)
realise      integer layers in the program's layout (`models.int8.realise`)
correct      the mean of what rounding the weights changes is taken off the biases, layer after layer
"""

from __future__ import annotations

import copy
import inspect
import traceback
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bittrue.models.data.batches import Batch
from bittrue.models.data.sets import Data
from bittrue.models.graph.equalise import equalise
from bittrue.models.graph.floats import ArgMax, Graph, Node, Weighted
from bittrue.models.graph.follow import SAMPLES, follow, line_of
from bittrue.models.graph.normalise import normalise
from bittrue.models.graph.observe import free_steps, observe, part_sums, refuse_foreign
from bittrue.models.graph.passes import simplify
from bittrue.models.int8.converted import Converted, Ends, batch, check_bits, to_values
from bittrue.models.int8.realise import realise
from bittrue.models.int8.realiser import Choices, Realised, named
from bittrue.models.layers.groups import Regrouping, Regroups
from bittrue.models.layers.tensors import TensorInput, TensorProduct
from bittrue.models.training.loop import accuracy
from bittrue.models.training.precision import full_precision
from bittrue.sim.errors import BittrueError

#: How a range is chosen: `mse`, or a percentile.
Ranges = str | float
#: Images that are taken of a data set, samples that the graph is compared on, and that biases are corrected on.
IMAGES, COMPARED, CORRECTED = 1000, 32, 128


def convert(
    model: nn.Module,
    calibration: Any,
    *,
    bits: int | Mapping[str, int] = 8,
    activation_bits: int = 8,
    requantize: str = "shift",
    ranges: Ranges | Sequence[Ranges] = "mse",
    segments: int | None = None,
    own_steps: bool = False,
    images: int = IMAGES,
    input_range: float | Sequence[float] | None = None,
    preprocess: Callable[[np.ndarray], Any] = to_values,
    leaves: tuple[type[nn.Module], ...] = (),
    equalise_channels: bool = True,
    correct_biases: bool = True,
    modes: Sequence[int] | None = None,
) -> Converted:
    """The network of integers that computes what a trained module computes; the module is left as it is.

    model            any module that torch.fx can follow, with one tensor in and out or several; in evaluation mode
    calibration      samples of the training data: floats `[n, ...]` as the model takes them, images uint8
                     `[n, h, w, channels]` for `preprocess`, or a data set; a hundred or more are a good number; of
                     several inputs a tuple in the order of the model's arguments, or a dictionary by their names
    bits             width of the weights, 2 to 8, or widths by path of the module (`{"": 8, "features.0": 4}`; "" is
                     for all that are not named)
    activation_bits  width of every tensor, 2 to 8
    requantize       `shift`: sums are brought to codes by a shift of each channel, the cheapest in hardware;
                     `multiplier`: by a product of 15 bits and a shift
    ranges           `mse`: the least mean square error; or a percentile of the magnitudes, such as 99.99; of several,
                     with a data set, the one that is best on its validation split, and of equals the first
    segments         tables of functions get so many, a power of two, with values between which they interpolate, and
                     which `fit` trains; else they have the function's exact result for every code
    own_steps        what is added to something that is more than twice as large gets a step of its own, and a factor
                     that brings it to that of the sum; else all that is added along a chain of sums has one step
    images           images that are taken of a data set
    input_range      largest magnitude of a sample's values, of several inputs one for each; else that of the
                     calibration data
    preprocess       from images uint8 `[n, h, w, channels]` to samples as the model takes them; as torchvision's
                     ToTensor does unless told
    leaves           classes of modules that are not looked into: each is one function of each value

    equalise_channels, correct_biases
                     what is done about channels of different size, and about the mean of rounding
    modes            of a model whose samples go in groups (`models.layers.groups`) how many there can be in one: one
                     number, or all that divide its slots, and the program holds it as an input; else as the model has
                     it now. Ranges and biases are those of all of them

    The result is a module: `lower` it, `fit` it in its own integers, ask `sensitivity`. A module, function or input
    that cannot be converted is a BittrueError with its path in the model, the line of code, and what would work;
    `bittrue.supported()` lists what can be.
    """
    what = f"cannot convert {type(model).__name__}"
    if not isinstance(model, nn.Module):
        raise BittrueError(f"{what}: it is no torch module; give an instance of torch.nn.Module")
    widths = dict(bits) if isinstance(bits, Mapping) else {"": bits}
    widths = {
        path: check_bits(width, f"bits of {path!r}" if path else "bits") for path, width in ({"": 8} | widths).items()
    }
    check_bits(activation_bits, "activation_bits")
    if requantize not in ("shift", "multiplier"):
        raise BittrueError(f"requantize is 'shift' or 'multiplier', not {requantize!r}")
    candidates = _candidates(ranges, calibration)
    if segments is not None and (isinstance(segments, bool) or segments not in {1 << k for k in range(1, 17)}):
        raise BittrueError(f"segments is a power of two, 2 or more, or None for exact tables; not {segments!r}")
    given = calibration.train.images[:images] if isinstance(calibration, Data) else calibration
    x, names = _calibration(what, model, given, preprocess)
    regrouping = _regrouping(what, model, modes, len(x))
    with full_precision(), torch.no_grad():
        graph, shapes, keys = _graph(what, model, x, names, leaves, regrouping)
        refuse_foreign(what, graph, x)
        simplify(graph)
        if equalise_channels:
            equalise(graph, x)
        if requantize == "shift":
            free_steps(graph)
        known = {named(node) for node in graph.nodes if isinstance(node, Weighted)}
        if unknown := sorted(set(widths) - known - {""}):
            raise BittrueError(
                f"bits: {unknown[0]!r} is no layer with weights; those are {', '.join(sorted(known)) or 'none'}"
            )
        seen, reaches = observe(graph, x), _reaches(x, input_range)
        if own_steps:
            part_sums(graph, seen)
        made: dict[Ranges, Converted] = {}
        for candidate in candidates:
            choices = Choices(widths, activation_bits, requantize, candidate, segments)
            realised = realise(what, graph, seen, choices, reaches)
            layers = [(layer, operands) for layer, operands, _ in realised.layers]
            network = Converted(layers, _ends(graph, realised, activation_bits, shapes, keys), preprocess).eval()
            if correct_biases:
                _correct(network, graph, realised, x[:CORRECTED])
            made[candidate] = network
    scores = {candidate: accuracy(one, calibration.val) for candidate, one in made.items()} if len(made) > 1 else {}
    best = max(scores, key=scores.__getitem__) if scores else candidates[0]
    network = made[best]
    network.ranges, network.scores = best, scores
    try:
        network.lower()
    except BittrueError as error:
        raise BittrueError(f"{what}: {error}") from error
    return network


def _candidates(ranges: Any, calibration: Any) -> tuple[Ranges, ...]:
    """The ways to choose ranges that were asked for."""
    found = (ranges,) if isinstance(ranges, str) or not isinstance(ranges, Sequence) else tuple(ranges)
    for one in found:
        if one != "mse" and (isinstance(one, bool) or not isinstance(one, int | float) or not 50 < one <= 100):
            raise BittrueError(f"ranges is 'mse' or a percentile above 50 and up to 100, not {one!r}")
    if len(found) != 1 and not (found and isinstance(calibration, Data)):
        raise BittrueError(
            f"ranges: of {len(found)} the best on validation data is taken, and only a data set has those; give one of "
            "them, or a data set (bittrue.dataset) as calibration"
        )
    return found


def _regrouping(what: str, model: nn.Module, modes: Sequence[int] | None, samples: int) -> Regrouping | None:
    """How the samples of a model go in groups; None: they stay by themselves."""
    parts = {path: part for path, part in model.named_modules() if isinstance(part, Regroups)}
    if not parts:
        if modes is not None:
            raise BittrueError(f"{what}: modes are those of a model whose samples go in groups, and its stay alone")
        return None
    found = {(part.slots, part.at_a_time) for part in parts.values()}
    if len(found) > 1:
        raise BittrueError(f"{what}: {', '.join(parts)} have other slots or samples at a time; give all the same")
    ((slots, now),) = found
    try:
        made = Regrouping(slots, (now,) if modes is None else sorted(set(modes)))
    except BittrueError as error:
        raise BittrueError(f"{what}: {error}") from error
    if samples < SAMPLES * made.modes[-1]:
        raise BittrueError(
            f"calibration: {samples} samples are too few for groups of {made.modes[-1]}; give a hundred or more of the "
            "training data"
        )
    return made


def _calibration(
    what: str, model: nn.Module, given: Any, preprocess: Callable[[np.ndarray], Any]
) -> tuple[Batch, list[str]]:
    """The calibration samples of every input as floats, and the inputs' names; what cannot be calibrated on is
    refused."""
    several = isinstance(given, tuple | Mapping)
    names = _names(what, model, len(given)) if several and len(given) > 1 else ["x"]
    given = tuple(given.values()) if isinstance(given, Mapping) and len(given) == 1 else given
    try:
        x = batch(given, preprocess, names)
    except BittrueError as error:
        raise BittrueError(f"calibration: {error}") from error
    if len(x) < SAMPLES:
        raise BittrueError(f"calibration: {len(x)} sample is too few; give a hundred or more of the training data")
    for name, part in zip(names, x.parts, strict=True):
        where = f"calibration: input {name!r}" if len(names) > 1 else "calibration"
        if not part.isfinite().all():
            raise BittrueError(f"{where}: a value is not finite; leave such samples out")
        if float(part.max()) == float(part.min()):
            value = float(part.max()) + 0.0
            raise BittrueError(f"{where}: every value is {value:.4g}; give samples of the training data")
    return x, names


def _names(what: str, model: nn.Module, count: int) -> list[str]:
    """The names of a model's first so many arguments."""
    parameters = list(inspect.signature(model.forward).parameters.values())
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return [f"x{k}" for k in range(count)]
    names = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    if len(names) < count:
        raise BittrueError(
            f"{what}: its forward takes {len(names)} tensors ({', '.join(names)}), and the calibration data are "
            f"{count}; give as many, in a tuple"
        )
    return names[:count]


def _reaches(x: Batch, given: float | Sequence[float] | None) -> list[float]:
    """The largest magnitude of the values of each input."""
    if given is None:
        return [float(part.abs().max()) for part in x.parts]
    if isinstance(given, str) or not isinstance(given, Sequence):
        return [_positive(given)] * len(x.parts)
    if len(given) != len(x.parts):
        raise BittrueError(f"input_range has {len(given)} values for {len(x.parts)} inputs; give one for each")
    return [_positive(value) for value in given]


def _ends(
    graph: Graph, realised: Realised, bits: int, shapes: tuple[tuple[int, ...], ...], keys: tuple[str, ...] | None
) -> Ends:
    entries = []
    for made, step in zip(realised.inputs, realised.entries, strict=True):
        entries.append(TensorInput(made.layout.shape, step, bits))
        entries[-1].label = made.name
    return Ends(
        entries, [made.layout for made in realised.inputs], tuple(node.shape for node in graph.inputs),
        tuple(made.name for made in realised.results), realised.steps, [made.layout for made in realised.results],
        shapes, keys,
        tuple(isinstance(node, ArgMax) for node in graph.results),
    )  # fmt: skip


def _graph(
    what: str,
    model: nn.Module,
    x: Batch,
    names: list[str],
    leaves: tuple[type[nn.Module], ...],
    regrouping: Regrouping | None,
) -> tuple[Graph, tuple[tuple[int, ...], ...], tuple[str, ...] | None]:
    """The normalised graph of a model, held to the model's own results on some of the samples, and their shapes and
    keys."""
    own = copy.deepcopy(model).cpu().float().eval()
    n = _take(own, regrouping, None if regrouping is None else regrouping.modes[-1])
    some = x[: n * max(1, COMPARED // n)]
    few = [part.clone() for part in some.parts]
    try:
        given = own(*few)
    except Exception as error:  # whatever the network's own code raises
        frames = [(f.filename, f.lineno or 0, f.line or "") for f in traceback.extract_tb(error.__traceback__)]
        said = (str(error).strip().splitlines() or [""])[0][:300]
        raise BittrueError(
            f"{what}: {line_of(frames) or 'in its forward'}: it does not take samples of {x} "
            f"({type(error).__name__}: {said}); give the calibration data as the model takes them, in one tensor, or "
            "those of several inputs in a tuple"
        ) from error
    followed = follow(own, Batch(tuple(part.clone() for part in x[: n * SAMPLES].parts)), leaves)
    if not all(map(torch.equal, few, some.parts)):
        raise BittrueError(f"{what}: it changes its input in place; write that without (inplace=False, x = x + 1)")
    graph = normalise(what, followed, names, regrouping)
    results = _parts(given)
    for mode in graph.modes():
        samples, wanted = some, results
        if mode != n:
            samples = x[: mode * max(1, COMPARED // mode)]
            _take(own, regrouping, mode)
            wanted = _parts(own(*(part.clone() for part in samples.parts)))
        values = graph.run(samples, graph.results)
        for expected, node, tail in zip(wanted, graph.results, graph.tails, strict=True):
            _compare(what, expected, values[node] if tail is None else tail(values[node]))
    return graph, tuple(tuple(expected.shape[1:]) for expected in results), followed.keys


def _parts(given: Any) -> list[Any]:
    """What a forward gives, one after the other."""
    given = list(given.values()) if isinstance(given, dict) else given
    return list(given) if isinstance(given, tuple | list) else [given]


def _take(model: nn.Module, regrouping: Regrouping | None, n: int | None) -> int:
    """Let a model take n samples at a time, where they go in groups; gives n, which is 1 where they do not."""
    if regrouping is None or n is None:
        return 1
    for part in model.modules():
        if isinstance(part, Regroups):
            part.at_a_time = n
    return n


def _compare(what: str, expected: Any, found: Tensor) -> None:
    """Refuse a model of which a result is another than that of what was followed of it."""
    expected = expected.float() if isinstance(expected, Tensor) else expected
    if isinstance(expected, Tensor) and not expected.isfinite().all():
        raise BittrueError(f"{what}: its result on the calibration data is not finite; limit what goes into log or exp")
    if not isinstance(expected, Tensor) or (len(expected), expected.numel()) != (len(found), found.numel()):
        raise BittrueError(
            f"{what}: its shapes change with the number of samples; let each sample have a result of its own"
        )
    scale = float(expected.abs().max()) + 1e-6
    if not torch.allclose(found.reshape(expected.shape), expected, rtol=0, atol=1e-3 * scale):
        most = float((found.reshape(expected.shape) - expected).abs().max())
        raise BittrueError(
            f"{what}: what can be followed of it gives other results than it does itself (by "
            f"{most:.3g}); it depends on its data or on the number of "
            "samples, changes a tensor in place that is read elsewhere, or draws random numbers: write it without"
        )


def _positive(value: float) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
        raise BittrueError(f"input_range is the largest magnitude of a value, above 0; not {value!r}")
    return float(value)


def _correct(network: Converted, graph: Graph, realised: Realised, x: Batch) -> None:
    """Take off every bias the mean of what a layer gives more than its float twin, on these samples, in all modes.

    A layer reads what the integer network gives it, so that it makes up for those in front of it as well.
    """
    values: dict[int, dict[str, Tensor]] = {}
    wanted: dict[int, dict[Node, Tensor]] = {}
    for n in graph.modes():
        whole = graph.whole(x)
        codes = Batch.of(network.encode(whole.parts)).parts
        values[n] = {entry.label: entry(given) for entry, given in zip(network.inputs, codes, strict=True)}
        wanted[n] = graph.run(whole)
    users = [id(layer.bias) for layer in network.layers if isinstance(layer, TensorProduct)]
    for layer, operands, node in realised.layers:
        if isinstance(layer, TensorProduct) and users.count(id(layer.bias)) == 1:
            layout, more = realised.layouts[node], []
            for n in graph.modes():
                target = node.product(wanted[n][node.operands[0]]).flatten(1)[:, torch.from_numpy(layout.order)]
                target = target.reshape(-1, layout.shape[-1]).double().mean(0)
                more.append(layer.real(values[n][operands[0]]).flatten(0, -2).mean(0) - target)
            layer.bias -= torch.stack(more).mean(0).float()
        for n in graph.modes():
            values[n][layer.label] = layer(*(values[n][name] for name in operands))
