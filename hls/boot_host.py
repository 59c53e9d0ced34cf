"""A system that boots, compiled for a host: the boot makes what the network's kernels then hold."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bittrue.hls import host
from bittrue.hls.generated import array, first
from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Set, Sets, check_set
from bittrue.sim.program import alone


@dataclass(frozen=True, eq=False)
class Again:
    """A boot in the course of a run.

    frame     from which one on what it makes holds
    held      what the generator holds itself from then on, a whole set; None: what it held before
    expected  the checksum of what it is to make; None: the one of before
    """

    frame: int
    held: Set | None = None
    expected: int | None = None


def build(folder: str | Path) -> BootedKernel:
    """Compile both projects of `hls.boot.write`, or take them from the cache; errors are those of `hls.host.build`."""
    folder = Path(folder)
    (boot, _), (network, _) = (host.read_project(folder / name) for name in ("boot", "network"))
    if boot.get("network") != network.get("sha256"):
        raise BittrueError(f"{folder} holds a boot and a network that do not belong together; write both again")
    return BootedKernel(*host.library(folder / "boot"), host.build(folder / "network"))


class BootedKernel:
    """Boot and network, with the verbs of `hls.host.HostKernel`: every run begins with a boot.

    network   the kernels that hold what is made;  written  what it makes
    own       the held inputs of the generator itself;  checksum  of what it makes with what it holds at first
    """

    def __init__(self, library: Path, project: Mapping[str, Any], network: host.HostKernel) -> None:
        self.network, self.checksum = network, int(project["checksum"])
        self.own, self.written = host.held_of(project["held"]), host.held_of(project["made"])
        self._library = ctypes.CDLL(str(library))

    def boot(self, held: Set | None = None, expected: int | None = None) -> dict[str, np.ndarray]:
        """One boot: what it makes, a whole set of the network by name.

        Raises BittrueError when the checksum is not the one that is `expected` (by default that of the generator as it
        is at first): nothing may be computed with what was made.
        """
        own = check_set(self.own, {name: one.initial for name, one in self.own.items()} if held is None else held)
        expected = self.checksum if expected is None else expected
        given = [np.ascontiguousarray(own[name], np.int64) for name in self.own]
        made = {name: np.array(one.initial, np.int64) for name, one in self.written.items()}
        found, ready = ctypes.c_uint(), ctypes.c_int()
        message = ctypes.create_string_buffer(1000)
        failed = self._library.bittrue_boot_run(
            host.pointers(given),
            host.pointers(list(made.values())),
            ctypes.c_uint(expected),
            ctypes.byref(found),
            ctypes.byref(ready),
            message,
            ctypes.c_long(len(message)),
        )
        if failed:
            raise BittrueError(f"HLS boot: {message.value.decode(errors='replace')}")
        if not ready.value:
            raise BittrueError(
                f"HLS boot: what was made has the checksum {found.value:08x}, and {expected:08x} was expected, so it "
                "is not used; boot the right generator, or say what is expected of this one"
            )
        return made

    def predict(self, *x: np.ndarray, **options: Any) -> Any:
        """`run`, a single result alone."""
        return alone(self.run(*x, **options))

    def run(
        self, *x: np.ndarray, first: int = 0, held: Sets | None = None, boots: Sequence[Again] = ()
    ) -> tuple[np.ndarray, ...]:
        """Boot, then run a batch of the network; `held` are sets that are written in place of a boot, and `boots` those
        that are made, each from its frame on."""
        return self.network.run(*x, first=first, held=self._sets(held, boots))

    def run_in_parts(
        self, *x: np.ndarray, progress: Callable[[int, int], None], held: Sets | None = None
    ) -> tuple[np.ndarray, ...]:
        """Boot, then run a batch in parts, as `HostKernel.run_in_parts` does."""
        return self.network.run_in_parts(*x, progress=progress, held=self._sets(held, ()))

    def trace(
        self, *x: np.ndarray, first: int = 0, held: Sets | None = None, boots: Sequence[Again] = ()
    ) -> dict[str, np.ndarray]:
        """The same, with every tensor of the network."""
        return self.network.trace(*x, first=first, held=self._sets(held, boots))

    def _sets(self, held: Sets | None, boots: Sequence[Again]) -> list[tuple[int, Set]]:
        written = [(0, held)] if isinstance(held, Mapping) else list(held or ())
        sets: list[tuple[int, Set]] = [(0, self.boot())]
        own, expected = None, None
        for one in sorted(boots, key=lambda again: again.frame):
            own = own if one.held is None else one.held
            expected = expected if one.expected is None else one.expected
            sets.append((one.frame, self.boot(own, expected)))
        return list(dict(sorted([*sets, *written], key=lambda part: part[0])).items())


def entry_point(held: Mapping[str, Held], made: Mapping[str, Held]) -> str:
    """`host/batch.cpp` of a boot: a C function that fills what the generator holds, boots, and reads what was made."""
    arrays = "".join(f"    static {array(name, one)};\n" for name, one in (*held.items(), *made.items()))
    fills = "".join(
        f"        bittrue::fill({first(name, one)}, {values}[{k}], {one.size});\n"
        for values, names in (("held", held), ("made", made))
        for k, (name, one) in enumerate(names.items())
    )
    reads = "".join(
        f"        for (int i = 0; i < {one.size}; ++i) {{\n            made[{k}][i] = ({first(name, one)})[i];\n"
        "        }\n"
        for k, (name, one) in enumerate(made.items())
    )
    call = ", ".join((*held, *made, "expected", "sum", "may"))
    return ENTRY.format(arrays=arrays, fills=fills, reads=reads, call=call)


ENTRY = """\
// A boot as a shared library for a host. Compiled with BITTRUE_HOST.
#include <cstdio>

#include "../top.cpp"
#include "../frames.hpp"

// `held` has what the generator holds; `made` has what the network held before, and then what it holds after the boot.
// Returns 0, or 1 with a sentence in `message` (room for `room` characters).
extern "C" int bittrue_boot_run(const long long* const* held, long long* const* made, unsigned expected,
                                unsigned* found, int* ready, char* message, long room) {{
    (void)held;
{arrays}    bittrue::traced() = nullptr;
    ++hls::host_run::number();
    hls::host_run::first() = 0;
    hls::stream_record::leftover() = 0;
    try {{
{fills}        ap_uint<32> sum = 0;
        bool may = false;
        bittrue_boot({call});
        *found = static_cast<unsigned>(sum);
        *ready = may;
{reads}    }} catch (const std::exception& error) {{
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
"""
