"""Programs that belong together: the result of one is what another holds, as with a generator that writes weights.

A link writes a whole held input with every result of its source (`places` is None), or it scatters: a *boot* is a run
of the source over a fixed sequence of samples, and every code of each of them is one entry of what the target holds.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from bittrue.sim.errors import BittrueError
from bittrue.sim.held import Held, Set
from bittrue.sim.program import Program


@dataclass(frozen=True, eq=False)
class Link:
    """The result of the program `source` is written to what the program `target` holds as `held`.

    held     a held input; of a link with `places` also several, by name, in the order in which places count
    places   int64 `[samples, codes]`: where a boot writes each code of each of its samples, as an index into the flat
             entries of the held inputs, one input behind the other; -1: nowhere
    partial  whether entries may be left that no code is written to; they keep what they hold at first
    """

    source: str
    target: str
    held: str | tuple[str, ...]
    places: np.ndarray | None = None
    partial: bool = False

    def __post_init__(self) -> None:
        if self.places is None:
            return
        places = np.asarray(self.places)
        if places.dtype.kind not in "iu" or places.ndim != 2:
            raise BittrueError(
                f"system: the places of a link are integers [samples, codes], not {places.dtype} {places.shape}"
            )
        frozen = np.array(places, dtype=np.int64, order="C")
        frozen.flags.writeable = False
        object.__setattr__(self, "places", frozen)

    @property
    def names(self) -> tuple[str, ...]:
        """The held inputs."""
        return (self.held,) if isinstance(self.held, str) else tuple(self.held)

    def __str__(self) -> str:
        return f"{self.source!r} writes to {self.target!r}"


@dataclass(frozen=True, eq=False)
class System:
    """Programs by name, and links between them. A program stands behind those that write to it.

    boots    by source of a link with places, the batches `[samples, *shape]` of its inputs that a boot consists of, in
             their order

    Every sample that a source works off, or every boot of it, writes its targets once. Held inputs without a link keep
    what they hold at first.
    """

    programs: Mapping[str, Program]
    links: Sequence[Link]
    boots: Mapping[str, Sequence[np.ndarray]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        order = list(self.programs)
        taken: set[tuple[str, str]] = set()
        for link in self.links:
            for name in (link.source, link.target):
                if name not in self.programs:
                    raise BittrueError(f"system: no program is named {name!r}; it has {', '.join(order)}")
            if order.index(link.source) >= order.index(link.target):
                raise BittrueError(f"system: {link}, so it must stand before it")
            if link.places is None and len(link.names) != 1:
                raise BittrueError(f"system: {link}, {len(link.names)} held inputs; a link without places writes one")
            written = self.programs[link.target].written
            for name in link.names:
                if name not in written:
                    raise BittrueError(
                        f"system: {link.target!r} has no held input {name!r} to be written; "
                        f"it has {', '.join(written) or 'none'}"
                    )
                if (link.target, name) in taken:
                    raise BittrueError(f"system: {name!r} of {link.target!r} is written by two programs")
                taken.add((link.target, name))
                self._check_codes(link, written[name])
            self._check_places(link)
        self._check_boots()

    def _check_codes(self, link: Link, held: Held) -> None:
        """Refuse a source that makes what the held input does not take."""
        made, name = self.programs[link.source].output, held.name
        if link.places is None and made.shape != held.shape:
            raise BittrueError(
                f"system: {link.source!r} makes {made}, but {name!r} of {link.target!r} has shape {held.shape}"
            )
        if made.format.low < held.low or made.format.high > held.high or held.among is not None:
            raise BittrueError(
                f"system: {link.source!r} makes codes {made.format.low}..{made.format.high}, but {name!r} of "
                f"{link.target!r} takes {'some of ' if held.among else ''}{held.low}..{held.high}; widen its bounds"
            )

    def _check_places(self, link: Link) -> None:
        """Refuse places that are none, or that are no permutation of what is written."""
        if link.places is None:
            return
        codes = self.programs[link.source].output.size
        if link.places.shape[1] != codes or not len(link.places):
            raise BittrueError(
                f"system: {link} with places {list(link.places.shape)}, but a sample of {link.source!r} has "
                f"{codes} codes; give places [samples, {codes}]"
            )
        held = self.held(link)
        total = sum(part.size for part in held)
        wrong = np.argwhere((link.places < -1) | (link.places >= total))
        if len(wrong):
            sample, code = wrong[0]
            raise BittrueError(
                f"system: {link}, code {code} of sample {sample} to place {link.places[sample, code]}; the places of "
                f"{', '.join(link.names)} are 0 to {total - 1}, and -1 for nowhere"
            )
        often = np.bincount(link.places[link.places >= 0], minlength=total)
        if often.max(initial=0) > 1:
            place = int(often.argmax())
            first, second = np.argwhere(link.places == place)[:2, 0]
            raise BittrueError(
                f"system: {link}, entry {self._entry(link, place)} twice, with samples {first} and {second}; the "
                "places of a boot are a permutation, each entry once"
            )
        if not link.partial and (often == 0).any():
            place = int(often.argmin())
            raise BittrueError(
                f"system: {link}, but nothing to entry {self._entry(link, place)} ({int((often == 0).sum())} are left "
                "out); write every entry once, or say partial=True for those to keep what they hold at first"
            )

    def _check_boots(self) -> None:
        for name, batches in self.boots.items():
            samples = {len(link.places) for link in self.links if link.source == name and link.places is not None}
            if name not in self.programs or not samples:
                raise BittrueError(f"system: {name!r} has samples for a boot, but no link with places begins there")
            inputs = self.programs[name].inputs
            if len(batches) != len(inputs):
                raise BittrueError(f"system: a boot of {name!r} has {len(batches)} batches for {len(inputs)} inputs")
            for (tensor, kind), batch in zip(inputs.items(), batches, strict=True):
                if samples != {len(batch)}:
                    raise BittrueError(
                        f"system: a boot of {name!r} has {len(batch)} samples of {tensor!r}, but places for "
                        f"{' and '.join(map(str, sorted(samples)))}"
                    )
                kind.check(np.asarray(batch), f"{tensor!r} of a boot of {name!r}")

    def _entry(self, link: Link, place: int) -> str:
        """An entry, for people."""
        for part in self.held(link):
            if place < part.size:
                index = ", ".join(str(int(k)) for k in np.unravel_index(place, part.shape))
                return f"[{index}] of {part.name!r}"
            place -= part.size
        raise AssertionError

    def held(self, link: Link) -> list[Held]:
        """The held inputs that a link writes, in the order in which its places count."""
        return [self.programs[link.target].written[name] for name in link.names]

    @property
    def boot_link(self) -> Link:
        """The only link, of a system that can be built: a generator that boots a network."""
        if len(self.links) != 1 or len(self.programs) != 2 or self.links[0].places is None:
            raise BittrueError(
                f"boot: hardware of a system has two programs and one link with places, this one has "
                f"{len(self.programs)} and {len(self.links)}; make a system of one generator and one network"
            )
        (link,) = self.links
        if link.source not in self.boots:
            raise BittrueError(f"boot: the system does not say with which samples {link.source!r} boots; give `boots`")
        if len(self.programs[link.source].results) != 1:
            raise BittrueError(f"boot: {link.source!r} has several results; a generator has one")
        return link

    # -- runs ------------------------------------------------------------------------------------------
    def __call__(
        self,
        inputs: Mapping[str, Sequence[np.ndarray]],
        at: Mapping[str, Sequence[int]] | None = None,
        held: Mapping[str, Sequence[Set]] | None = None,
    ) -> dict[str, np.ndarray]:
        """Run every program on its batches and return what each makes, by name.

        inputs  by program, one batch `[n, *shape]` for each of its inputs; a source with `boots` needs none
        at      by source, the samples of its targets (their index) from which on each of its results, or boots, holds,
                ascending; without it there is one, which holds from the first sample on
        held    by source with `boots`, what it holds itself in each of its boots, a set a boot; without it what it
                holds at first
        """
        at, held = at or {}, held or {}
        expected = [name for name in self.programs if name in inputs or name not in self.boots]
        if set(inputs) != set(expected):
            raise BittrueError(f"system: give inputs of {', '.join(expected)}; given were {', '.join(inputs)}")
        if unknown := [name for name in held if name not in self.boots]:
            raise BittrueError(f"system: sets are given for the boots of {unknown[0]!r}, which has none")
        results: dict[str, np.ndarray] = {}
        for name, program in self.programs.items():
            sets, batches = self._sets(name, at, results), inputs.get(name)
            if name in self.boots:
                samples, count = len(self.boots[name][0]), len(at.get(name, (0,)))
                if batches is None:
                    batches = [np.concatenate([np.asarray(batch)] * count) for batch in self.boots[name]]
                if name in held:
                    if len(held[name]) != count:
                        raise BittrueError(
                            f"system: {name!r} boots {count} times, but {len(held[name])} sets are given for it"
                        )
                    sets = [(k * samples, values) for k, values in enumerate(held[name])]
            results[name] = program(*batches, held=sets)
        return results

    def boot(self, source: str, held: Set | None = None) -> np.ndarray:
        """The codes of one boot of a source, `[samples, codes]`; `held` is what it holds itself."""
        if source not in self.boots:
            raise BittrueError(f"system: {source!r} has no boot; those that have are {', '.join(self.boots) or 'none'}")
        made = self.programs[source](*self.boots[source], held=held)
        return made.reshape(len(made), -1).astype(np.int64)

    def booted(self, target: str, held: Mapping[str, Set] | None = None) -> dict[str, np.ndarray]:
        """What a program holds when all that boot have booted once: a whole set; `held` is what these hold, by name."""
        current = dict(self.programs[target].initial)
        for link in self.links:
            if link.target == target and link.places is not None:
                current |= self.scattered(link, self.boot(link.source, (held or {}).get(link.source)))
        return current

    def scattered(self, link: Link, codes: np.ndarray) -> dict[str, np.ndarray]:
        """The held inputs of a link after a boot whose codes are `[samples, codes]`, by name."""
        parts = self.held(link)
        flat = np.concatenate([part.initial.reshape(-1) for part in parts])  # type: ignore[union-attr]
        written = link.places >= 0
        flat[link.places[written]] = codes[written]
        ends = np.cumsum([part.size for part in parts])[:-1]
        return {p.name: p.check(v.reshape(p.shape)) for p, v in zip(parts, np.split(flat, ends), strict=True)}

    def checksum(self, link: Link, codes: np.ndarray) -> int:
        """The CRC-32 (ISO-HDLC, that of zlib) of the codes of a boot that are written, sample after sample, each in
        whole bytes, two's complement, the lowest byte first."""
        width = -(-self.programs[link.source].output.format.bits // 8)
        written = codes[link.places >= 0].astype("<i8")
        return zlib.crc32(np.ascontiguousarray(written.view(np.uint8).reshape(-1, 8)[:, :width]).tobytes())

    def _sets(
        self, target: str, at: Mapping[str, Sequence[int]], results: Mapping[str, np.ndarray]
    ) -> list[tuple[int, Set]] | None:
        """What a program holds, and from which sample on."""
        writes: dict[int, dict[str, np.ndarray]] = {}
        for link in self.links:
            if link.target != target:
                continue
            made, frames = results[link.source], list(at.get(link.source, (0,)))
            if link.places is not None:
                samples = len(link.places)
                if len(made) % samples:
                    raise BittrueError(
                        f"system: {link.source!r} made {len(made)} results, and a boot is one of {samples}; give whole "
                        "boots"
                    )
                made = made.reshape(-1, *link.places.shape).astype(np.int64)
            if len(made) != len(frames):
                what = "results" if link.places is None else "boots"
                raise BittrueError(
                    f"system: {link.source!r} made {len(made)} {what} for {len(frames)} places in the run of its "
                    "targets; say in `at` from which sample on each holds"
                )
            for frame, values in zip(frames, made, strict=True):
                parts = {link.names[0]: values} if link.places is None else self.scattered(link, values)
                writes.setdefault(frame, {}).update(parts)
        current, sets = self.programs[target].initial, []
        for frame in sorted(writes):
            current = current | writes[frame]
            sets.append((frame, current))
        return sets or None
