"""AXI4-Stream ports: which signals a tensor has at the top, and how its codes lie in TDATA.

    word[lane] = code, sign-extended to code_bytes bytes, little-endian, lane 0 in the low bits
    code_bytes = ceil(bits / 8),    width = 8 * code_bytes * lanes,    beats = size / lanes

Channels are innermost, then tokens; TLAST is on the last beat of a frame. An unsigned code is extended with zeros.
What a slave port makes of beats whose TLAST is elsewhere is the rule of `StreamPort.frames`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np

from bittrue.sim.contract import Format
from bittrue.sim.errors import BittrueError
from bittrue.sim.operation import TensorType

#: Bits of the count of framing errors of a slave port; it stays at its most.
ERROR_BITS = 16


@dataclass(frozen=True)
class StreamPort:
    """One AXI4-Stream port of the top.

    prefix   name before `_tdata`: `s_axis`, `m_axis`, or `s_axis_<input name>` with several inputs
    tensor   type of the tensor that the port carries, one frame a sample
    lanes    codes a beat; divides the channels, so that no beat holds codes of two tokens
    framed   whether its frames are counted (`rtl.bus.framing`); a port that takes TLAST its own way has none to count
    """

    prefix: str
    tensor: TensorType
    lanes: int
    framed: bool = True

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", self.prefix):
            raise BittrueError(
                f"{self.prefix!r} cannot name a stream port: use letters, digits and underscores, no digit first"
            )
        if isinstance(self.lanes, bool) or not isinstance(self.lanes, int) or self.lanes < 1:
            raise BittrueError(f"port {self.prefix}: lanes is a whole number of at least 1, not {self.lanes!r}")
        if self.tensor.channels % self.lanes:
            divisors = [n for n in range(1, self.tensor.channels + 1) if self.tensor.channels % n == 0]
            raise BittrueError(
                f"port {self.prefix}: {self.lanes} lanes do not divide the {self.tensor.channels} channels of "
                f"{self.tensor}; use one of {', '.join(map(str, divisors))}"
            )

    # -- geometry --------------------------------------------------------------------------------------
    @property
    def code_bytes(self) -> int:
        """Bytes that one code takes."""
        return -(-self.tensor.format.bits // 8)

    @property
    def beat_bytes(self) -> int:
        """Bytes of one beat."""
        return self.code_bytes * self.lanes

    @property
    def width(self) -> int:
        """Bits of TDATA."""
        return 8 * self.beat_bytes

    @property
    def beats(self) -> int:
        """Beats of one frame."""
        return self.tensor.size // self.lanes

    # -- names -----------------------------------------------------------------------------------------
    @property
    def tdata(self) -> str:
        return f"{self.prefix}_tdata"

    @property
    def tvalid(self) -> str:
        return f"{self.prefix}_tvalid"

    @property
    def tready(self) -> str:
        return f"{self.prefix}_tready"

    @property
    def tlast(self) -> str:
        return f"{self.prefix}_tlast"

    @property
    def framing_errors(self) -> str:
        """Of a slave port: the output that counts wrong TLASTs (`rtl.bus.framing`)."""
        return f"{self.prefix}_framing_errors"

    @property
    def counts_errors(self) -> bool:
        """Whether it is an input that counts them."""
        return self.framed and self.prefix.startswith("s_axis")

    @property
    def signals(self) -> dict[str, int]:
        """Every signal of the port with its width in bits."""
        wires = {self.tdata: self.width, self.tvalid: 1, self.tready: 1, self.tlast: 1}
        return wires | {self.framing_errors: ERROR_BITS} if self.counts_errors else wires

    # -- frames ----------------------------------------------------------------------------------------
    def frames(self, words: np.ndarray, last: np.ndarray) -> tuple[np.ndarray, int]:
        """What a slave port makes of any beats: whole frames, and how many of them count as framing errors.

        words   uint8 `[n, beat_bytes]`;  last   TLAST of every beat, bool `[n]`

        A frame is `beats` beats. TLAST on the last one is right; without it the frame is complete all the same, and an
        error. TLAST on an earlier one is an error, and zeros fill the frame: it has the beats up to there, and the next
        beat begins another. Beats at the end that make no whole frame are left out.
        """
        found, errors, at = [], 0, 0
        while at < len(words):
            part, ends = words[at : at + self.beats], np.flatnonzero(last[at : at + self.beats])
            length = int(ends[0]) + 1 if len(ends) else self.beats
            if len(part) < length:
                break
            errors += not (len(ends) and length == self.beats)
            found.append(np.zeros((self.beats, self.beat_bytes), np.uint8))
            found[-1][:length] = part[:length]
            at += length
        shape = (len(found), self.beats, self.beat_bytes)
        return np.array(found, np.uint8).reshape(shape), min(errors, (1 << ERROR_BITS) - 1)

    # -- codes and words -------------------------------------------------------------------------------
    def pack(self, codes: np.ndarray) -> np.ndarray:
        """Codes `[n, *shape]` to the bytes of their beats, uint8 `[n, beats, beat_bytes]`, low byte first."""
        codes = self.tensor.check(codes, f"port {self.prefix}")
        wide = codes.astype(codes.dtype.newbyteorder("<"), copy=False).reshape(-1, 1).view(np.uint8)
        return np.ascontiguousarray(wide[:, : self.code_bytes]).reshape(len(codes), self.beats, self.beat_bytes)

    def integers(self, words: np.ndarray) -> np.ndarray:
        """The whole bytes of every lane as integers `[n, *shape]` in the format's dtype, padding unchecked.

        A signed code is read as a two's complement number of `8 * code_bytes` bits, so a padding bit that is not
        the sign shows as a value outside the format.
        """
        words = np.asarray(words)
        if words.dtype != np.uint8 or words.ndim != 3 or words.shape[1:] != (self.beats, self.beat_bytes):
            raise BittrueError(
                f"port {self.prefix}: expected bytes uint8 (n, {self.beats}, {self.beat_bytes}), "
                f"got {words.dtype} {words.shape}"
            )
        lanes = words.reshape(-1, self.code_bytes)
        dtype = self.tensor.format.dtype
        wide = np.zeros((len(lanes), dtype.itemsize), np.uint8)
        wide[:, : self.code_bytes] = lanes
        if self.tensor.format.signed:
            wide[:, self.code_bytes :] = np.where(lanes[:, -1:] & 0x80, 0xFF, 0)
        return wide.view(dtype.newbyteorder("<")).astype(dtype).reshape(len(words), *self.tensor.shape)

    def padding_error(self, codes: np.ndarray) -> str | None:
        """What is wrong with the padding of the first bad code of `integers`, or None."""
        fmt: Format = self.tensor.format
        bad = (codes < fmt.low) | (codes > fmt.high)
        if not bad.any():
            return None
        frame, flat = divmod(int(bad.reshape(-1).argmax()), self.tensor.size)
        beat, lane = divmod(flat, self.lanes)
        value = int(codes.reshape(-1)[frame * self.tensor.size + flat])
        pattern = value & ((1 << 8 * self.code_bytes) - 1)
        return (
            f"{self.tdata}: frame {frame}, beat {beat}, lane {lane} holds 0x{pattern:0{2 * self.code_bytes}x}, whose "
            f"bits above {fmt.bits} do not extend a code of {fmt} "
            f"({'copy the sign' if fmt.signed else 'fill with zeros'} up to the whole byte)"
        )

    def unpack(self, words: np.ndarray) -> np.ndarray:
        """The bytes of beats, uint8 `[n, beats, beat_bytes]`, to codes `[n, *shape]`; wrong padding is an error."""
        codes = self.integers(words)
        error = self.padding_error(codes)
        if error:
            raise BittrueError(error)
        return codes
