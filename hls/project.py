"""Write a program as a Vitis HLS project: kernels, parameters, top, test bench with vectors, script.

The text is a function of the program alone: the same program gives the same bytes. Parameter structs are made from
`operation.constants`, `inputs`, `output` and `accumulator` without knowing the operation, so that a new operation
needs nothing but its kernel `hls/kernels/<stem>.hpp`.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from bittrue.hls.network import KernelGraph, beat_bits, code_type
from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, bounds
from bittrue.sim.operation import Operation
from bittrue.sim.program import Node, Program
from bittrue.sim.storage import write_whole

HERE = Path(__file__).parent
#: Sources that every project contains: name in this folder -> name in the project.
COMMON = {
    "kernels/contract.hpp": "contract.hpp",
    "kernels/axis.hpp": "axis.hpp",
    "kernels/frames.hpp": "frames.hpp",
    "hls_stream.h": "host/hls_stream.h",
    "kernels/probe.hpp": "host/probe.hpp",
}
#: Frames of the test bench when the caller gives none; the first two are all low and all high.
FRAMES = 8
#: Kernels that take their arrays as arguments, so that these can be held inputs.
HOLDING = ("affine", "linear")


def write(program: Program, folder: str | Path, x: Sequence[np.ndarray] | None = None, interval: int = 0) -> Path:
    """Write the project and return its folder.

    `x` holds the test bench's frames, one array `[n, *shape]` per input; None draws `FRAMES` from a fixed seed.
    The expected results are the golden simulator's. `interval` is the wanted number of cycles between frames: each
    matrix kernel forms `ceil(macs / interval)` products a cycle. Streams carry one code a cycle, so the size of the
    largest tensor is the least that can be had, and the default.
    Raises BittrueError when an operation has no kernel, before anything is written.
    """
    kernels = [kernel_of(node) for node in program.nodes]
    for node, kernel in zip(program.nodes, kernels, strict=True):
        if kernel not in HOLDING and any(not held.counts for held in node.operation.held.values()):
            raise BittrueError(
                f"operation {node.name!r}: the HLS kernel of {type(node.operation).__name__} takes no held inputs "
                f"({', '.join(node.operation.held)}); leave them constant"
            )
    network = KernelGraph.of(program, kernels)
    interval = max(interval, *(kind.size for kind in program.types.values()))
    frames = program.check(*(random_frames(program) if x is None else x))
    files = {target: (HERE / source).read_text() for source, target in COMMON.items()}
    files |= {f"{kernel}.hpp": (HERE / "kernels" / f"{kernel}.hpp").read_text() for kernel in kernels}
    files["parameters.h"] = parameters(program, network, interval)
    files["top.hpp"], files["top.cpp"] = top_header(network), top(program, network, kernels)
    files["tb.cpp"], files["host/batch.cpp"] = test_bench(network), batch(network)
    files["run_hls.tcl"] = (HERE / "run_hls.tcl").read_text()
    for (port, _), codes in zip(network.ports, (*frames, program(*frames)), strict=True):
        files[f"vectors/{port}.txt"] = vectors(codes)
    for argument, held in network.held.items():
        files[f"vectors/{argument}.txt"] = vectors(held.initial[None])
    files["project.json"] = describe(program, network, files)
    folder = Path(folder)
    for name, text in files.items():
        write_whole(folder / name, text.encode())
    return folder


def kernel_of(node: Node) -> str:
    """The stem of the operation's module, which names its kernel and the file that holds it."""
    kind = type(node.operation)
    stem = kind.__module__.rsplit(".", 1)[-1]
    if not (HERE / "kernels" / f"{stem}.hpp").is_file():
        raise BittrueError(
            f"operation {node.name!r} ({kind.__name__}, {kind.__module__.replace('.', '/')}.py) has no HLS kernel; "
            f"write template <class P> void {stem}(...) in hls/kernels/{stem}.hpp"
        )
    return stem


def random_frames(program: Program) -> list[np.ndarray]:
    """`FRAMES` frames of every input, full range, from a fixed seed; the first all low, the second all high."""
    rng = np.random.default_rng(0)
    drawn = []
    for kind in program.inputs.values():
        codes = rng.integers(kind.format.low, kind.format.high + 1, (FRAMES, *kind.shape))
        codes[0], codes[1] = kind.format.low, kind.format.high
        drawn.append(codes)
    return drawn


def vectors(codes: np.ndarray) -> str:
    """One frame a line, decimal."""
    return "".join(" ".join(map(str, frame)) + "\n" for frame in codes.reshape(len(codes), -1).tolist())


def describe(program: Program, network: KernelGraph, files: dict[str, str]) -> str:
    """What a caller needs to know to run the project: hash, sources, types of the tensors, the network."""
    record = {
        "sha256": program.sha256,
        "inputs": list(program.inputs),
        "result": program.result,
        "tensors": [[name, list(kind.shape), str(kind.format)] for name, kind in program.types.items()],
        "held": {
            name: {"shape": list(h.shape), "low": h.low, "high": h.high, "initial": h.initial.reshape(-1).tolist()}
            for name, h in program.written.items()
        },
        "ports": [port for port, _ in network.ports],
        "streams": {stream.name: stream.depth for stream in network.streams},
        "processes": [[p.call, list(p.reads), list(p.writes)] for p in network.processes],
        "sources": sorted(name for name in files if name.endswith((".h", ".hpp", ".cpp"))),
    }
    return json.dumps(record, indent=1) + "\n"


# -- generated C++ -----------------------------------------------------------------------------------------
def parameters(program: Program, network: KernelGraph, interval: int) -> str:
    """`parameters.h`: one struct an operation."""
    structs = [
        struct(name, node.operation, interval) for name, node in zip(network.structs, program.nodes, strict=True)
    ]
    return guarded("BITTRUE_PARAMETERS_H", '#include "contract.hpp"\n\n' + "\n".join(structs))


def struct(name: str, operation: Operation, interval: int) -> str:
    """The parameter struct of one operation, and the definition of its arrays."""
    types = {f"input{k}": kind for k, kind in enumerate(operation.inputs)} | {"output": operation.output}
    members, arrays = [], []
    for key, kind in types.items():
        members += [format_member(key, kind.format), integer(f"{key}_low", kind.format.low)]
        members.append(integer(f"{key}_size", kind.size))
    members.append(f"typedef ap_int<{operation.accumulator.bits}> accumulator_t;")
    members.append(integer("parallel", max(1, -(-operation.macs // interval))))
    for key, value in operation.constants.items():
        if isinstance(value, Format):
            members.append(format_member(key, value))
        elif isinstance(value, tuple):
            fmt, codes = value
            fmt = codes.format if isinstance(codes, Held) else fmt
            extent = "".join(f"[{n}]" for n in codes.shape)
            low, high = bounds(codes)
            members += [format_member(key, fmt), f"typedef {rom(fmt)} {key}_rom;"]
            members += [integer(f"{key}_low", int(low.min())), integer(f"{key}_high", int(high.max()))]
            if isinstance(codes, Held):  # an argument of the kernel
                continue
            members.append(f"static const {key}_rom {key}{extent};")
            arrays.append(f"const {name}::{key}_rom {name}::{key}{extent} = {initializer(codes)};\n")
        else:
            members.append(integer(key, value))
    signature = ", ".join(str(kind) for kind in operation.inputs)
    head = f"// {type(operation).__name__}: {signature} -> {operation.output}; accumulator {operation.accumulator}\n"
    return head + f"struct {name} {{\n" + "".join(f"    {m}\n" for m in members) + "};\n" + "".join(arrays)


def rom(fmt: Format) -> str:
    """The C++ type in which an array of these numbers is stored."""
    return f"bittrue::rom<{fmt.bits}, {str(fmt.signed).lower()}>::type"


def array(name: str, held: Held) -> str:
    """The declaration of an array that holds a held input."""
    return f"{rom(held.format)} {name}{''.join(f'[{n}]' for n in held.shape)}"


def format_member(key: str, fmt: Format) -> str:
    return f"typedef {code_type(fmt)} {key}_t;"


def integer(key: str, value: int) -> str:
    small = -(1 << 31) < value < 1 << 31
    return f"static const {'int' if small else 'long long'} {key} = {value}{'' if small else 'LL'};"


def initializer(codes: np.ndarray) -> str:
    """A brace-enclosed list, 24 numbers a line."""
    if codes.ndim > 1:
        return "{" + ",\n".join(initializer(part) for part in codes) + "}"
    numbers = [f"{v}LL" if abs(v) >= 1 << 31 else str(v) for v in codes.tolist()]
    return "{" + ",\n ".join(", ".join(numbers[k : k + 24]) for k in range(0, len(numbers), 24)) + "}"


def guarded(macro: str, text: str) -> str:
    return f"#ifndef {macro}\n#define {macro}\n\n{text}\n#endif\n"


def signature(network: KernelGraph) -> str:
    ports = [f"hls::stream<{port}_beat>& {port}" for port, _ in network.ports]
    ports += [f"const {array(name, held)}" for name, held in network.held.items()]
    ports += [f"bittrue::framing_errors_t& {name}" for name in network.reports]
    return "void bittrue_top(" + ",\n                 ".join(ports) + ")"


def top_header(network: KernelGraph) -> str:
    """`top.hpp`: the types of the ports and the signature of the top function."""
    lines = ['#include "ap_int.h"\n#include "axis.hpp"\n#include "contract.hpp"\n#include "hls_stream.h"\n']
    if network.held:
        lines.append("// The arrays are held inputs: they are written between two calls, never within one.\n")
    for port, kind in network.ports:
        lines.append(f"// {port}: {kind}, one code a beat, `last` on the last of a frame")
        lines.append(f"typedef {code_type(kind.format)} {port}_code;")
        lines.append(f"typedef bittrue::axis<{beat_bits(kind.format)}>::type {port}_beat;")
        lines.append(f"const int {port}_size = {kind.size};\n")
    return guarded("BITTRUE_TOP_HPP", "\n".join(lines) + signature(network) + ";\n")


def top(program: Program, network: KernelGraph, kernels: list[str]) -> str:
    """`top.cpp`: the DATAFLOW region."""
    lines = [f"// Program {program.sha256}, generated; a call processes one frame.", '#include "top.hpp"']
    lines += [f'#include "{kernel}.hpp"' for kernel in sorted(set(kernels))]
    lines += ['#include "parameters.h"', "", "#ifdef BITTRUE_HOST", '#include "probe.hpp"', "#else"]
    lines += ["#define BITTRUE_PROBE(tensor, stream)", "#define BITTRUE_PROCESS_END", "#endif", ""]
    lines.append(signature(network) + " {")
    lines += [f"#pragma HLS INTERFACE axis port={port}" for port, _ in network.ports]
    for name in network.held:
        lines += [f"#pragma HLS INTERFACE ap_memory port={name}", f"#pragma HLS STABLE variable={name}"]
    lines += [f"#pragma HLS INTERFACE ap_none port={name}" for name in network.reports]
    lines += ["#pragma HLS INTERFACE ap_ctrl_none port=return", "#pragma HLS DATAFLOW"]
    for stream in network.streams:
        lines.append(f'    hls::stream<{code_type(stream.tensor.format)} > {stream.name}("{stream.name}");')
        lines.append(f"#pragma HLS STREAM variable={stream.name} depth={stream.depth}")
    for process in network.processes:
        lines.append(f"    {process.call}({', '.join((*process.reads, *process.writes, *process.parameters))});")
        lines.append("    BITTRUE_PROCESS_END")
        if process.probe is not None:
            lines.append(f"    BITTRUE_PROBE({process.probe}, {process.writes[0]})")
    return "\n".join([*lines, "}", ""])


def test_bench(network: KernelGraph) -> str:
    """`tb.cpp`: sends the frames of `vectors/`, compares every code of the result; for csim and cosim alike."""
    *inputs, (output, _) = network.ports
    lines = ["// Reads vectors/<port>.txt (one frame a line) from the folder given as the argument."]
    lines += ["#include <cstdio>"]
    lines += ["#include <fstream>", "#include <string>", "#include <vector>", ""]
    lines += ['#include "frames.hpp"', '#include "top.hpp"', "", TEST_BENCH_READ]
    lines += ["int main(int argc, char** argv) {", '    const std::string folder = argc > 1 ? argv[1] : "vectors";']
    for port, _ in network.ports:
        lines.append(f'    const std::vector<long long> {port}_codes = numbers(folder + "/{port}.txt");')
    for name, held in network.held.items():
        lines.append(f"    static {array(name, held)};")
        lines.append(f'    const std::vector<long long> {name}_values = numbers(folder + "/{name}.txt");')
        lines.append(f"    if ({name}_values.size() != {held.size}) {{")
        lines.append(f'        std::printf("%s/{name}.txt is missing or has a wrong length\\n", folder.c_str());')
        lines += ["        return 2;", "    }"]
        lines.append(f"    bittrue::fill({first(name, held)}, {name}_values.data(), {held.size});")
    lines.append(f"    const std::size_t frames = {output}_codes.size() / {output}_size;")
    for port, _ in network.ports:
        lines.append(f"    if (frames == 0 || {port}_codes.size() != frames * {port}_size) {{")
        lines.append(f'        std::printf("%s/{port}.txt is missing or has a wrong length\\n", folder.c_str());')
        lines += ["        return 2;", "    }"]
    lines += [f"    bittrue::framing_errors_t {name} = 0;" for name in network.reports]
    lines += ["    long mismatches = 0;", "    for (std::size_t f = 0; f < frames; ++f) {"]
    lines += [f"        hls::stream<{port}_beat> {port};" for port, _ in network.ports]
    for port, _ in inputs:
        lines.append(f"        bittrue::send_frame<{port}_code>({port}, &{port}_codes[f * {port}_size], {port}_size);")
    lines.append(f"        bittrue_top({network.arguments});")
    lines.append(f"        std::vector<long long> got({output}_size);")
    lines.append(f"        if (!bittrue::receive_frame<{output}_code>({output}, got.data(), {output}_size)) {{")
    lines += ['            std::printf("frame %zu: TLAST is not on the last beat\\n", f);', "            ++mismatches;"]
    lines += ["        }", f"        for (int i = 0; i < {output}_size; ++i) {{"]
    lines.append(f"            const long long expected = {output}_codes[f * {output}_size + i];")
    lines += ["            if (got[i] != expected && ++mismatches <= 10) {"]
    report = '"frame %zu, code %d: expected %lld, got %lld\\n", f, i, expected, got[i]'
    lines.append(f"                std::printf({report});")
    lines += ["            }", "        }", "    }"]
    for name in network.reports:
        lines.append(f"    if ({name} != 0) {{")
        lines.append(f'        std::printf("{name} counts %d, 0 were made\\n", int({name}));')
        lines += ["        ++mismatches;", "    }"]
    lines.append('    std::printf("%zu frames, %ld mismatches\\n", frames, mismatches);')
    return "\n".join([*lines, "    return mismatches == 0 ? 0 : 1;", "}", ""])


TEST_BENCH_READ = """\
static std::vector<long long> numbers(const std::string& path) {
    std::ifstream file(path.c_str());
    std::vector<long long> values;
    long long value;
    while (file >> value) {
        values.push_back(value);
    }
    return values;
}
"""


def first(name: str, held: Held) -> str:
    """The address of the first value of an array."""
    return f"&{name}{'[0]' * held.ndim}"


def batch(network: KernelGraph) -> str:
    """`host/batch.cpp`: the C functions that hls/host.py calls, in one translation unit with the top."""
    *inputs, (output, _) = network.ports
    streams = "\n".join(f'            hls::stream<{port}_beat> {port}("{port}");' for port, _ in network.ports)
    sends = "\n".join(
        f"            bittrue::send_frame<{port}_code>({port}, inputs[{k}] + f * {port}_size, {port}_size);"
        for k, (port, _) in enumerate(inputs)
    )
    beats = "\n".join(
        f"        for (long i = 0; i < beats[{k}]; ++i) {{\n"
        f"            bittrue::send_beat<{port}_code>({port}, inputs[{k}][i], last[{k}][i] != 0);\n"
        "        }"
        for k, (port, _) in enumerate(inputs)
    )
    errors = "\n".join(f"    bittrue::framing_errors_t {name} = 0;" for name in network.reports)
    counts = "\n".join(f"        errors[{k}] = static_cast<long>({name});" for k, name in enumerate(network.reports))
    refuse = "\n".join(
        f"        if ({name} != 0) {{\n"
        f'            throw std::runtime_error("{name} is not 0 for right frames");\n'
        "        }"
        for name in network.reports
    )
    held = "".join(
        f"    static {array(name, h)};\n    bittrue::fill({first(name, h)}, held[{k}], {h.size});\n"
        for k, (name, h) in enumerate(network.held.items())
    )
    call = f"            bittrue_top({network.arguments});"
    parts = {
        "errors": errors,
        "held": held,
        "outer": streams.replace("            ", "        "),
        "counts": counts,
        "refuse": refuse,
        "beats": beats,
    }
    return BATCH.format(streams=streams, sends=sends, call=call, output=output, **parts)


BATCH = """\
// The kernels as a shared library for a host: frames in, codes out. Compiled with BITTRUE_HOST.
#include <cstdio>

#include "../top.cpp"
#include "../frames.hpp"

// Runs `frames` frames from reset; the index of the first is `first`. `held` has the values of every held input that is
// written. `tensors` is null, or one pointer a tensor to
// room for all its codes. Returns 0, or 1 with a sentence in `message` (room for `room` characters).
extern "C" int bittrue_batch(long frames, long first, const long long* const* inputs,
                             const long long* const* held, long long* result, long long** tensors,
                             char* message, long room) {{
    (void)held;
{held}{errors}
    bittrue::traced() = tensors;
    ++hls::host_run::number();
    hls::host_run::first() = first;
    hls::stream_record::leftover() = 0;
    try {{
        for (long f = 0; f < frames; ++f) {{
{streams}
{sends}
{call}
            if (!bittrue::receive_frame<{output}_code>({output}, result + f * {output}_size, {output}_size)) {{
                throw std::runtime_error("TLAST is not on the last beat of the frame, or on an earlier one too");
            }}
            if (!{output}.empty()) {{
                throw std::runtime_error("more codes come out than a frame has");
            }}
        }}
{refuse}
    }} catch (const std::exception& error) {{
        std::snprintf(message, room, "%s", error.what());
        return 1;
    }}
    if (hls::stream_record::leftover() != 0) {{
        std::snprintf(message, room, "%zu codes were written to streams and never read",
                      hls::stream_record::leftover());
        return 1;
    }}
    return 0;
}}

// The same for any beats: `beats[k]` codes of input k with their `last`, of which `frames` frames come. What each input
// counts goes to `errors`.
extern "C" int bittrue_beats(long frames, const long* beats, const long long* const* inputs,
                             const long long* const* held, const unsigned char* const* last, long long* result,
                             long* errors, char* message, long room) {{
    (void)held;
{held}{errors}
    bittrue::traced() = nullptr;
    ++hls::host_run::number();
    hls::host_run::first() = 0;
    hls::stream_record::leftover() = 0;
    try {{
{outer}
{beats}
        for (long f = 0; f < frames; ++f) {{
{call}
            if (!bittrue::receive_frame<{output}_code>({output}, result + f * {output}_size, {output}_size)) {{
                throw std::runtime_error("TLAST is not on the last beat of the frame, or on an earlier one too");
            }}
        }}
{counts}
    }} catch (const std::exception& error) {{
        std::snprintf(message, room, "%s", error.what());
        return 1;
    }}
    if (hls::stream_record::leftover() != 0) {{
        std::snprintf(message, room, "%zu codes were written to streams and never read",
                      hls::stream_record::leftover());
        return 1;
    }}
    return 0;
}}

// The accesses to streams of all calls since the library was loaded (BITTRUE_LOG), as hls_stream.h describes.
extern "C" long bittrue_log(const int** entries) {{
    *entries = hls::stream_record::log().data();
    return static_cast<long>(hls::stream_record::log().size());
}}
"""
