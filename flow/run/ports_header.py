"""The C++ that binds the ports of a design, by name and width, for the batch loop."""

from __future__ import annotations

from collections.abc import Sequence

from bittrue.flow.run.sets import ERRORS, SETS
from bittrue.flow.run.surroundings import Surroundings
from bittrue.flow.run.verilate import mangle
from bittrue.rtl.bus.ports import StreamPort

#: Name of the class that Verilator makes of the design.
PREFIX = "Vbittrue"


def ports_header(
    inputs: Sequence[StreamPort], outputs: Sequence[StreamPort], weights: StreamPort | None, around: Surroundings
) -> str:
    """The text of `batch_ports.h`: what batch_loop.cpp calls by fixed names."""
    lines = [
        f'#include "{PREFIX}.h"',
        "#include <cstdint>",
        "#include <cstring>",
        f"using Model = {PREFIX};",
        f"constexpr int INPUTS = {len(inputs)}, FEEDS = {len(around.feeds)}, OUTPUTS = {len(outputs)};",
        f"#define BUS {int(around.map is not None)}",
        f"constexpr int OUTPUT_BYTES[] = {{{', '.join(str(port.beat_bytes) for port in outputs)}}};",
        f"constexpr int MOST_BYTES = {max(port.beat_bytes for port in outputs)};",
        "// Little-endian host: the low bytes of a port are its first bytes, also of a VlWide.",
        "template <int BYTES, class Port> inline void put(Port& port, const uint8_t* beat) {",
        "    Port value{}; std::memcpy(static_cast<void*>(&value), beat, BYTES); port = value;",
        "}",
    ]
    cases: dict[str, list[str]] = {"drive": [], "withdraw": [], "ready": []}
    streams = [(port.prefix, port.beat_bytes) for port in inputs]
    streams += [(feed.prefix, feed.words.shape[1]) for feed in around.feeds]
    for k, (prefix, size) in enumerate(streams):
        data, valid, ready, last = _wires(prefix)
        cases["drive"].append(f"case {k}: put<{size}>({data}, all + at * {size}); {last} = last; {valid} = 1; break;")
        cases["withdraw"].append(f"case {k}: {valid} = 0; {last} = 0; break;")
        cases["ready"].append(f"case {k}: return {ready};")
    for name in ("set", "valid", "last", "data"):
        cases[name] = []
    for k, port in enumerate(outputs):
        data, valid, ready, last = _wires(port.prefix)
        cases["set"].append(f"case {k}: {ready} = value; break;")
        cases["valid"].append(f"case {k}: return {valid};")
        cases["last"].append(f"case {k}: return {last};")
        cases["data"].append(f"case {k}: std::memcpy(word, &{data}, OUTPUT_BYTES[{k}]); break;")
    counted = [(k, port) for k, port in enumerate(inputs) if port.counts_errors]
    ties = [f"m.{mangle(port.name)} = {port.idle}u;" for port in around.others if port.direction == "input"]
    lines += [
        "inline void drive(Model& m, int k, const uint8_t* all, int64_t at, bool last) { switch (k) {",
        *cases["drive"],
        "} }",
        "inline void withdraw(Model& m, int k) { switch (k) {",
        *cases["withdraw"],
        "} }",
        "inline bool input_ready(Model& m, int k) { switch (k) {",
        *cases["ready"],
        "} return false; }",
        "inline int64_t framing_errors(Model& m, int k) { switch (k) {",
        *(f"case {k}: return m.{mangle(port.framing_errors)};" for k, port in counted),
        "} return 0; }",
        f"inline void tie(Model& m) {{ (void)m; {' '.join(ties)} }}",
        "inline void set_ready(Model& m, int k, bool value) { switch (k) {",
        *cases["set"],
        "} }",
        "inline bool output_valid(Model& m, int k) { switch (k) {",
        *cases["valid"],
        "} return false; }",
        "inline bool output_last(Model& m, int k) { switch (k) {",
        *cases["last"],
        "} return false; }",
        "inline void output_data(Model& m, int k, uint8_t* word) { switch (k) {",
        *cases["data"],
        "} }",
    ]
    return "\n".join([*lines, *_weights(weights)]) + "\n"


def _weights(weights: StreamPort | None) -> list[str]:
    """The port at which sets of weights are written, if there is one."""
    if weights is None:
        return [
            "constexpr bool WEIGHTS = false;",
            "inline void drive_weight(Model&, const uint8_t*, int64_t, bool) {}",
            "inline void withdraw_weight(Model&) {}",
            "inline bool weight_ready(Model&) { return false; }",
            "inline int weight_sets(Model&) { return 0; }",
            "inline int weight_errors(Model&) { return 0; }",
        ]
    data, valid, ready, last = _wires(weights.prefix)
    return [
        "constexpr bool WEIGHTS = true;",
        "inline void drive_weight(Model& m, const uint8_t* all, int64_t at, bool last) {",
        f"    put<{weights.beat_bytes}>({data}, all + at * {weights.beat_bytes}); {last} = last; {valid} = 1;",
        "}",
        f"inline void withdraw_weight(Model& m) {{ {valid} = 0; {last} = 0; }}",
        f"inline bool weight_ready(Model& m) {{ return {ready}; }}",
        f"inline int weight_sets(Model& m) {{ return m.{mangle(SETS)}; }}",
        f"inline int weight_errors(Model& m) {{ return m.{mangle(ERRORS)}; }}",
    ]


def _wires(prefix: str) -> list[str]:
    return [f"m.{mangle(f'{prefix}_{wire}')}" for wire in ("tdata", "tvalid", "tready", "tlast")]
