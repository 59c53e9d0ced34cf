"""Published parameters: the C header format of the streaming LERP-PSA / ResMLP accelerators, read into a program.

`quant_params.h` holds arrays `const ap_int<8> NAME[d0][d1] = {{...}, ...};` named

    embed_linear_{w,b,s}
    blocks_{i}_token_mixer_{affine_1,linear,affine_2,res_affine}_{w,b,s}
    blocks_{i}_mlp_{linear_1,linear_2,res_affine}_{w,b,s}
    classifier_linear_{w,b,s}

with weights `[out][in]`, biases added after the shift, and shifts unsigned. A model with tables has, in
`lerp_psa_params.h`, `blocks_{i}_mlp_psa_{1,2}_lerp_lut[channels][2^M]`; one without is a ReLU model.
Blocks, tokens, features, embedding, hidden size and classes all follow from the arrays' dimensions.
Source of the format: PSA-Compress (Singh et al., TRETS 18(2), 2025), streaming layout.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bittrue.models.formats import c_text
from bittrue.sim.builder import Builder
from bittrue.sim.contract import INT8, Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import Operation, TensorType
from bittrue.sim.operations.add import Add
from bittrue.sim.operations.affine import Affine
from bittrue.sim.operations.lerp import Lerp
from bittrue.sim.operations.linear import Linear
from bittrue.sim.operations.mean import Mean
from bittrue.sim.operations.transpose import Transpose
from bittrue.sim.program import Program
from bittrue.sim.requantize import Requantize

PARAMETERS = "quant_params.h"
TABLES = "lerp_psa_params.h"
SAMPLES = "quant_samples.h"

_DECLARATION = re.compile(
    r"\s*(?:static\s+)?const\s+ap_(u?)int\s*<\s*(\d{1,9})\s*>\s+(\w+)\s*((?:\[\s*[1-9]\d{,8}\s*\]\s*)+)=\s*", re.DOTALL
)
_NAME = re.compile(r"ap_u?int\s*<\s*\d+\s*>\s+(\w+)")
_WORD = re.compile(r"\S")


@dataclass(frozen=True, eq=False)
class HeaderArray:
    """One array of a header: int64 `values` of the declared shape, the declared `format`, and where it stands."""

    file: str
    name: str
    format: Format
    values: np.ndarray


@dataclass(frozen=True, eq=False)
class Samples:
    """Published check vectors: `input [n, tokens, features]`, block boundaries, `output [n, classes]`, int8."""

    input: np.ndarray
    boundaries: tuple[np.ndarray, ...]
    output: np.ndarray


def parse(path: Path) -> dict[str, HeaderArray]:
    """Every array of one header, by name.

    Refuses, naming the array or the line: directives that may change them (`c_text.read`), text that ends early,
    dimensions that the values do not have, values outside the declared type, a name declared twice, and anything that
    is not an array of constants.
    """
    body, closed = c_text.read(path)
    arrays: dict[str, HeaderArray] = {}
    position, last = 0, None
    while (begin := _WORD.search(body, position)) is not None:
        array, position = _array(body, begin.start(), path, last)
        if array.name in arrays:
            raise BittrueError(f"header {path}: array {array.name} is declared twice")
        arrays[array.name] = array
        last = array.name
    if not arrays:
        raise BittrueError(f"header {path}: it holds no array")
    if not closed:
        raise BittrueError(f"header {path}: it is cut after array {last}, its #endif is missing; fetch the file again")
    return arrays


def _array(body: str, start: int, path: Path, last: str | None) -> tuple[HeaderArray, int]:
    """The declaration at `start`, and where the next one begins."""
    after = f"after array {last}" if last else "at its beginning"
    match = _DECLARATION.match(body, start)
    if not match:
        fragment = " ".join(body[start : start + 200].split())[:60]
        named = _NAME.search(fragment)
        what = f"array {named[1]}" if named else repr(fragment)
        raise BittrueError(f"header {path}: {what}, {after}, is cut or no array of ap_int constants")
    unsigned, bits, name, brackets = match.groups()
    place = f"header {path}: array {name}"
    end = body.find(";", match.end())
    if end < 0 or "const" in body[match.end() : end]:
        raise BittrueError(f"{place} is cut: its values do not end with '}};'; fetch the file again")
    if not 1 <= int(bits) <= 32:
        raise BittrueError(f"{place} is declared with {bits} bits; 1 to 32 are read")
    fmt = Format(int(bits), signed=not unsigned)
    shape = tuple(int(n) for n in re.findall(r"\d+", brackets))
    text = re.sub(r",\s*\}", "}", body[match.end() : end])
    try:
        nested = json.loads(text.replace("{", "[").replace("}", "]"))
        values = np.array(nested)
    except (ValueError, RecursionError) as error:
        raise BittrueError(f"{place} has values or braces that are not rows of equal length ({error})") from error
    if values.shape != shape:
        raise BittrueError(f"{place} is declared {_dims(shape)} but holds values of dimensions {_dims(values.shape)}")
    if values.dtype.kind != "i" or re.search("[A-Za-z]", text):  # true, for one, is 1
        raise BittrueError(f"{place} holds something that is no 64-bit integer")
    if not fmt.holds(values):
        kind = f"ap_{unsigned}int<{bits}>"
        raise BittrueError(
            f"{place} holds {values.min()}..{values.max()}, outside its type {kind} ({fmt.low}..{fmt.high})"
        )
    return HeaderArray(str(path), name, fmt, values.astype(np.int64)), end + 1


def _dims(shape: tuple[int, ...]) -> str:
    return "".join(f"[{n}]" for n in shape)


class _Reader:
    """Hands out arrays by name and dimensions, and knows which were never asked for."""

    def __init__(self, folder: Path, arrays: Mapping[str, HeaderArray]) -> None:
        self.folder = folder
        self.arrays = arrays
        self.left = dict(arrays)

    def take(self, name: str, *dims: int | None) -> HeaderArray:
        """The array `name`, whose dimensions are `dims` where these are given."""
        if name not in self.arrays:
            raise BittrueError(f"headers {self.folder}: array {name} is missing")
        array = self.arrays[name]
        self.left.pop(name, None)
        shape = array.values.shape
        if len(shape) != len(dims) or any(d not in (None, n) for n, d in zip(shape, dims, strict=True)):
            expected = "".join("[]" if d is None else f"[{d}]" for d in dims)
            raise BittrueError(
                f"header {array.file}: array {name} has dimensions {_dims(shape)}, expected {expected} "
                "(weights are [out][in], the streaming layout)"
            )
        return array

    def requantize(self, name: str, channels: int, floor: int | None = None) -> Requantize:
        """`{name}_b` and `{name}_s`: shift, then bias, then saturate to int8."""
        bias, shift = self.take(f"{name}_b", channels), self.take(f"{name}_s", channels)
        if shift.values.min() < 0 or shift.values.max() > 31:
            raise BittrueError(
                f"header {shift.file}: array {name}_s holds shifts {shift.values.min()}..{shift.values.max()}; "
                "0 to 31 are read"
            )
        return Requantize(channels, shift.values, bias.values, format=INT8, floor=floor)

    def linear(self, name: str, kind: TensorType, outputs: int | None = None, floor: int | None = None) -> Operation:
        weight = self.take(f"{name}_w", outputs, kind.channels)
        requantize = self.requantize(name, len(weight.values), floor)
        return Linear(kind, weight.values, requantize, weight.format)

    def affine(self, name: str, kind: TensorType) -> Operation:
        weight = self.take(f"{name}_w", kind.channels)
        return Affine(kind, weight.values, self.requantize(name, kind.channels), weight.format)

    def table(self, name: str, kind: TensorType) -> Operation:
        lut = self.take(name, kind.channels, None)
        knots = lut.values.shape[1]
        if knots & (knots - 1) or knots > kind.format.levels:
            raise BittrueError(
                f"header {lut.file}: array {name} has {knots} knots a channel; expected a power of two up to "
                f"{kind.format.levels}"
            )
        return Lerp.hold(kind, lut.values, lut.format)


def read(folder: str | Path) -> Program:
    """The published INT8 model in `folder` as a program: input `x` int8 `[tokens, features]`, output `[classes]`.

    The integer pipeline, with `LIN`, `AFF` and `ADD` saturating to int8 and every bias added after its shift:

        embed = LIN(x)
        for each block i:
            r = AFF(x; res_affine);  u = AFF(LIN(AFF(x; affine_1)^T)^T; affine_2);  y = ADD(u, r)
            s = AFF(y; res_affine);  z = LIN(f2(LIN(f1(y); linear_1)); linear_2);   block{i} = ADD(z, s)
        classifier = LIN(round_shift(sum over tokens, log2 tokens))

    f1 is the identity and f2 ReLU, or both are tables of knots with the last knot held. `meta["boundaries"]`
    lists the tensors between the blocks, first `embed`, then `block0`, `block1`, ...
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise BittrueError(f"headers {folder}: no such folder; give the folder that holds {PARAMETERS}")
    arrays = parse(folder / PARAMETERS)
    tables = parse(folder / TABLES) if (folder / TABLES).exists() else {}
    for name in tables.keys() & arrays.keys():
        raise BittrueError(f"headers {folder}: array {name} is in both {PARAMETERS} and {TABLES}")
    reader = _Reader(folder, arrays | tables)
    lerp = any(re.fullmatch(r"blocks_\d{1,9}_mlp_psa_[12]_lerp_lut", name) for name in reader.arrays)
    blocks = 1 + max(
        (int(m[1]) for m in (re.match(r"blocks_(\d{1,9})_", name) for name in reader.arrays) if m), default=-1
    )
    if blocks == 0:
        raise BittrueError(f"headers {folder}: array blocks_0_token_mixer_linear_w is missing")
    if blocks > len(reader.arrays):
        raise BittrueError(
            f"headers {folder}: an array is named blocks_{blocks - 1}_..., but earlier blocks are missing"
        )

    mixing = reader.take("blocks_0_token_mixer_linear_w", None, None)
    tokens, features = mixing.values.shape[1], reader.take("embed_linear_w", None, None).values.shape[1]
    mixing = reader.take(mixing.name, tokens, tokens)
    if tokens & (tokens - 1):
        raise BittrueError(
            f"header {mixing.file}: array {mixing.name} mixes {tokens} tokens; the pooling of this format is a shift, "
            "so their number is a power of two"
        )
    build = Builder({"x": TensorType((tokens, features), INT8)})
    x = build.add("embed", reader.linear("embed_linear", build.types["x"]), "x")
    boundaries = [x]
    for i in range(blocks):
        x = _block(build, reader, i, x, lerp)
        boundaries.append(x)
    kind = build.types[x]
    shift = np.full(kind.channels, tokens.bit_length() - 1)
    pooled = build.add("mean", Mean(kind, Requantize(kind.channels, shift)), x)
    result = build.add("classifier", reader.linear("classifier_linear", build.types[pooled]), pooled)
    if reader.left:
        name, array = next(iter(sorted(reader.left.items())))
        raise BittrueError(
            f"header {array.file}: array {name} has no place in this model; headers of another design cannot be read"
        )
    return build.program(
        result,
        source="published C headers",
        nonlinearity="lerp_psa" if lerp else "relu",
        boundaries=boundaries,
    )


def _block(build: Builder, reader: _Reader, i: int, x: str, lerp: bool) -> str:
    """Append block `i`, token mixer then channel mixer, to the program; returns the name of its result."""
    name, token, channel = f"block{i}", f"blocks_{i}_token_mixer", f"blocks_{i}_mlp"
    types = build.types
    kind = types[x]
    residual = build.add(f"{name}.token.residual", reader.affine(f"{token}_res_affine", kind), x)
    u = build.add(f"{name}.token.affine1", reader.affine(f"{token}_affine_1", kind), x)
    u = build.add(f"{name}.token.transpose1", Transpose(types[u]), u)
    u = build.add(f"{name}.token.linear", reader.linear(f"{token}_linear", types[u], kind.tokens), u)
    u = build.add(f"{name}.token.transpose2", Transpose(types[u]), u)
    u = build.add(f"{name}.token.affine2", reader.affine(f"{token}_affine_2", types[u]), u)
    y = build.add(f"{name}.token", Add(types[u], types[residual]), u, residual)

    residual = build.add(f"{name}.channel.residual", reader.affine(f"{channel}_res_affine", types[y]), y)
    if lerp:
        z = build.add(f"{name}.channel.lerp1", reader.table(f"{channel}_psa_1_lerp_lut", types[y]), y)
        z = build.add(f"{name}.channel.linear1", reader.linear(f"{channel}_linear_1", types[z]), z)
        z = build.add(f"{name}.channel.lerp2", reader.table(f"{channel}_psa_2_lerp_lut", types[z]), z)
    else:
        z = build.add(f"{name}.channel.linear1", reader.linear(f"{channel}_linear_1", types[y], floor=0), y)
    z = build.add(f"{name}.channel.linear2", reader.linear(f"{channel}_linear_2", types[z], kind.channels), z)
    return build.add(name, Add(types[z], types[residual]), z, residual)


def read_samples(folder: str | Path) -> Samples:
    """The check vectors in `quant_samples.h`: `samples_input`, `samples_inter_{k}`, `samples_output`."""
    folder = Path(folder)
    reader = _Reader(folder, parse(folder / SAMPLES))
    x = reader.take("samples_input", None, None, None).values
    count = sum(1 for name in reader.arrays if re.fullmatch(r"samples_inter_\d+", name))
    boundaries = [reader.take(f"samples_inter_{k}", *x.shape[:2], None).values for k in range(count)]
    y = reader.take("samples_output", len(x), None).values
    return Samples(x.astype(np.int8), tuple(b.astype(np.int8) for b in boundaries), y.astype(np.int8))
