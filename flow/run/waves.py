"""Waveforms while they are written: a pipe from the compiled RTL to a reader, so that a large one is never stored.

A reader is given whole lines of the VCD file in large parts and works them off in compiled code.
"""

from __future__ import annotations

import os
import select
import tempfile
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from bittrue.flow.run.result import RtlRun
from bittrue.sim.errors import BittrueError
from bittrue.sim.kernels.jit import jit

_BASE, _FIRST = 94, 33  # a VCD code is a number in the printable characters, its low digit first
_READ = 1 << 20


def number(code: str) -> int:
    """A VCD code as an index that is dense, as Verilator gives its codes in order."""
    return sum((ord(c) - _FIRST + 1) * _BASE**k for k, c in enumerate(code))


@dataclass(frozen=True)
class Names:
    """What a VCD header declares: (scope, name) -> code, and the width of every code."""

    codes: Mapping[tuple[tuple[str, ...], str], str]
    widths: Mapping[str, int]

    @staticmethod
    def of_header(header: str) -> Names:
        scope: list[str] = []
        codes, widths = {}, {}
        for line in header.splitlines():
            words = line.split()
            if not words:
                continue
            if words[0] == "$scope":
                scope.append(words[2])
            elif words[0] == "$upscope":
                scope.pop()
            elif words[0] == "$var":
                codes[tuple(scope), words[4]] = words[3]
                widths[words[3]] = int(words[2])
        return Names(codes, widths)

    def below(self, scope: tuple[str, ...]) -> dict[tuple[tuple[str, ...], str], str]:
        """Every net in a scope and in those within."""
        return {key: code for key, code in self.codes.items() if key[0][: len(scope)] == scope}

    def lookup(self, codes: Iterable[str]) -> np.ndarray:
        """By the number of a code, its place among `codes`; -1 for all others."""
        numbers = [number(code) for code in codes]
        table = np.full(max(map(number, self.widths), default=0) + 1, -1, np.int64)
        table[numbers] = np.arange(len(numbers))
        return table


class Reader(ABC):
    """Reads a VCD file that comes in parts: `feed` them in order, then `finish`."""

    names: Names

    def __init__(self) -> None:
        self._header: bytes | None = b""
        self._rest = b""

    @abstractmethod
    def begin(self, names: Names, header: bytes) -> None:
        """The header is complete."""

    @abstractmethod
    def lines(self, text: np.ndarray) -> int:
        """Work off the whole lines of a text, uint8; returns how many bytes that was."""

    def feed(self, part: bytes) -> None:
        """Take the next bytes of the file."""
        if self._header is not None:
            self._header += part
            head, mark, part = self._header.partition(b"$enddefinitions $end")
            if not mark:
                return
            self._header, self.names = None, Names.of_header(head.decode("ascii"))
            self.begin(self.names, head + mark)
        text = self._rest + part
        self._rest = text[self.lines(np.frombuffer(text, np.uint8)) :]

    def finish(self) -> None:
        """Refuse a file that is not whole."""
        if self._header is not None or self._rest.strip():
            raise BittrueError("the waveform ends early; run it again")


class Sieve(Reader):
    """Writes what belongs to the wanted signals, and the times, to a smaller VCD file."""

    def __init__(self, path: Path, wanted: Callable[[tuple[str, ...], str], bool]) -> None:
        super().__init__()
        self._path, self._wanted = path, wanted

    def begin(self, names: Names, header: bytes) -> None:
        kept = {code for (scope, name), code in names.codes.items() if self._wanted(scope, name)}
        self._table = names.lookup(sorted(kept))
        self._file = self._path.open("wb")
        self._file.write(header)

    def lines(self, text: np.ndarray) -> int:
        kept = np.empty_like(text)
        used, size = _sift(text, self._table, kept)
        self._file.write(kept[:size].tobytes())
        return used

    def finish(self) -> None:
        super().finish()
        self._file.close()


@partial(jit, nogil=True)
def _sift(text, table, kept):  # pragma: no cover  (compiled)
    """Copy the times and the changes of signals in the table; bytes used and bytes kept."""
    start, size, out = 0, len(text), 0
    while True:
        end = start
        while end < size and text[end] != 10:
            end += 1
        if end == size:
            return start, out
        mark = text[start]
        keep = mark == 35 or end == start  # '#'
        code = start + 1
        if mark == 98 or mark == 66:  # b, B
            while code < end and text[code] != 32:
                code += 1
            code += 1
        if not keep:
            place, scale = 0, 1
            for k in range(code, end):
                if text[k] <= 32:
                    break
                place += (np.int64(text[k]) - 32) * scale
                scale *= 94
            keep = place < len(table) and table[place] >= 0
        if keep:
            kept[out : out + end + 1 - start] = text[start : end + 1]
            out += end + 1 - start
        start = end + 1


def read(path: Path, reader: Reader) -> None:
    """Have a reader read a file."""
    with open(path, "rb") as file:
        while part := file.read(_READ):
            reader.feed(part)
    reader.finish()


def piped(run: Callable[[Path], RtlRun], reader: Reader) -> RtlRun:
    """Have `run` write its waveform into a pipe and the reader read it meanwhile."""
    result: list[RtlRun] = []
    failure: list[BaseException] = []

    def work(waves: Path) -> None:
        try:
            result.append(run(waves))
        except BaseException as error:  # noqa: BLE001  (raised again by the thread that waits)
            failure.append(error)

    with tempfile.TemporaryDirectory(prefix="bittrue-") as folder:
        pipe = Path(folder) / "waves.vcd"
        os.mkfifo(pipe)
        end = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
        try:
            thread = threading.Thread(target=work, args=(pipe,), daemon=True)
            thread.start()
            for part in _parts(end, thread):
                reader.feed(part)
            thread.join()
        finally:
            os.close(end)
    if failure:
        raise failure[0]
    reader.finish()
    return result[0]


def _parts(end: int, writer: threading.Thread) -> Iterator[bytes]:
    """What comes out of a pipe until its writer has ended."""
    while True:
        alive = writer.is_alive()
        ready, _, _ = select.select([end], [], [], 0.05)
        try:
            part = os.read(end, _READ) if ready else b""
        except BlockingIOError:
            part = b""
        if part:
            yield part
        elif not alive:
            return
        elif ready:
            writer.join(0.01)  # nobody has opened the pipe yet, or the writer is about to end
