"""The generated C++ of an HLS project: parameters, top, test bench, and the entry of the host build.

Parameter structs are made from `operation.constants`, `inputs`, `output` and `accumulator` without knowing the
operation.
"""

from __future__ import annotations

import numpy as np

from bittrue.hls.network import KernelGraph, beat_bits, code_type
from bittrue.sim.contract import Format
from bittrue.sim.held import Held, bounds
from bittrue.sim.operation import Operation
from bittrue.sim.program import Program


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
    (output, _), *_ = network.masters
    lines = ["// Reads vectors/<port>.txt (one frame a line) from the folder given as the argument."]
    lines += ["#include <cstdio>"]
    lines += ["#include <fstream>", "#include <string>", "#include <vector>", ""]
    lines += ['#include "frames.hpp"', '#include "top.hpp"', "", TEST_BENCH_TOOLS]
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
    for port, _ in network.slaves:
        lines.append(f"        bittrue::send_frame<{port}_code>({port}, &{port}_codes[f * {port}_size], {port}_size);")
    lines.append(f"        bittrue_top({network.arguments});")
    for port, _ in network.masters:
        lines.append(f'        mismatches += compare<{port}_code>("{port}", {port}, &{port}_codes[f * {port}_size], ')
        lines[-1] += f"{port}_size, f, mismatches);"
    lines.append("    }")
    for name in network.reports:
        lines.append(f"    if ({name} != 0) {{")
        lines.append(f'        std::printf("{name} counts %d, 0 were made\\n", int({name}));')
        lines += ["        ++mismatches;", "    }"]
    lines.append('    std::printf("%zu frames, %ld mismatches\\n", frames, mismatches);')
    return "\n".join([*lines, "    return mismatches == 0 ? 0 : 1;", "}", ""])


TEST_BENCH_TOOLS = """\
static std::vector<long long> numbers(const std::string& path) {
    std::ifstream file(path.c_str());
    std::vector<long long> values;
    long long value;
    while (file >> value) {
        values.push_back(value);
    }
    return values;
}

// Receives a frame; prints and counts what differs from the expected codes, the first ten of all.
template <class Code, class Beat>
static long compare(const char* port, hls::stream<Beat>& stream, const long long* expected, int size, std::size_t frame,
                    long before) {
    std::vector<long long> got(size);
    long mismatches = 0;
    if (!bittrue::receive_frame<Code>(stream, got.data(), size)) {
        std::printf("%s, frame %zu: TLAST is not on the last beat\\n", port, frame);
        ++mismatches;
    }
    for (int i = 0; i < size; ++i) {
        if (got[i] != expected[i] && before + ++mismatches <= 10) {
            std::printf("%s, frame %zu, code %d: expected %lld, got %lld\\n", port, frame, i, expected[i], got[i]);
        }
    }
    return mismatches;
}
"""


def first(name: str, held: Held) -> str:
    """The address of the first value of an array."""
    return f"&{name}{'[0]' * held.ndim}"


def batch(network: KernelGraph) -> str:
    """`host/batch.cpp`: the C functions that hls/host.py calls, in one translation unit with the top."""
    streams = "\n".join(f'            hls::stream<{port}_beat> {port}("{port}");' for port, _ in network.ports)
    sends = "\n".join(
        f"            bittrue::send_frame<{port}_code>({port}, inputs[{k}] + f * {port}_size, {port}_size);"
        for k, (port, _) in enumerate(network.slaves)
    )
    beats = "\n".join(
        f"        for (long i = 0; i < beats[{k}]; ++i) {{\n"
        f"            bittrue::send_beat<{port}_code>({port}, inputs[{k}][i], last[{k}][i] != 0);\n"
        "        }"
        for k, (port, _) in enumerate(network.slaves)
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
    receives = "\n".join(RECEIVE.format(port=port, k=k) for k, (port, _) in enumerate(network.masters))
    ends = "".join(END.format(port=port) for port, _ in network.masters)
    parts = {
        "receives": receives,
        "ends": ends,
        "errors": errors,
        "held": held,
        "outer": streams.replace("            ", "        "),
        "counts": counts,
        "refuse": refuse,
        "beats": beats,
    }
    return BATCH.format(streams=streams, sends=sends, call=call, **parts)


RECEIVE = """\
            if (!bittrue::receive_frame<{port}_code>({port}, results[{k}] + f * {port}_size, {port}_size)) {{
                throw std::runtime_error("{port}: TLAST is not on a frame's last beat, or on an earlier one too");
            }}"""
END = """
            if (!{port}.empty()) {{
                throw std::runtime_error("{port}: more codes come out than a frame has");
            }}"""


BATCH = """\
// The kernels as a shared library for a host: frames in, codes out. Compiled with BITTRUE_HOST.
#include <cstdio>

#include "../top.cpp"
#include "../frames.hpp"

// Runs `frames` frames from reset; the index of the first is `first`. `held` has the values of every held input that is
// written. `tensors` is null, or one pointer a tensor to
// room for all its codes. Returns 0, or 1 with a sentence in `message` (room for `room` characters).
extern "C" int bittrue_batch(long frames, long first, const long long* const* inputs,
                             const long long* const* held, long long* const* results, long long** tensors,
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
{receives}{ends}
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
                             const long long* const* held, const unsigned char* const* last, long long* const* results,
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
{receives}
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
