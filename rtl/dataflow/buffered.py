"""Buffered stages: fill one block while another is worked through, without a bubble between blocks."""

from __future__ import annotations

from dataclasses import dataclass

from amaranth.hdl import Const, Module, Mux, Signal, Value

from bittrue.rtl.dataflow.stage import Outlet, Stage, Structure, advance, counting, tally

#: Most blocks that are counted by an addition which the next state waits for; more of them would be a long one.
FEW = 4


@dataclass(frozen=True)
class Steps:
    """The work of a stage that spends several steps on a beat of output, and several of these on a block.

    advance       one step of work is issued in this cycle
    word          counts the steps of a block, 0 .. beats_out * steps - 1
    complete      the step is the last of its output beat
    issue         and the beat is given out
    release       the step is the last of its block
    """

    advance: Signal
    word: Signal
    complete: Signal
    issue: Signal
    release: Signal


@dataclass(frozen=True)
class Control(Steps):
    """The control signals of a buffered stage.

    write         an input beat is stored in this cycle, at (`write_block`, `write_beat`)
    advance       one step of work is issued in this cycle, for (`read_block`, `word`, `step`)
    step          counts the steps of an output beat, 0 .. steps - 1
    issue         the step is the last of its output beat, in the last of `gather` blocks, of a block that gives any
    word_last     whether `word` is that of the last step, issued or not
    fresh         of two blocks, another is the next to be worked on from here on, and whole
    turn          counts the blocks that make one block of output, 0 .. gather - 1
    """

    write: Signal
    write_block: Signal
    write_beat: Signal
    write_full: Signal
    read_block: Signal
    step: Signal
    word_last: Signal
    turn: Signal
    fresh: Signal


class BufferedStage(Stage):
    """A stage that holds `timing.blocks` blocks of input; see `rtl.dataflow.stage` for the protocol."""

    def structure(self) -> Structure:
        t, built = self.timing, super().structure()
        built.count(t.blocks, t.blocks - 1, t.blocks - 1, t.beats_in - 1, t.beats_out * t.steps - 1, t.steps - 1)
        built.count(t.gather - 1)
        built.registers += 2  # room, active
        return built

    def control(
        self,
        m: Module,
        outlet: Outlet,
        may: Value | None = None,
        gives: Value | None = None,
        last_step: Value | None = None,
    ) -> Control:
        """The counters of the blocks, and when a step is issued.

        may        whether the block at hand may be worked on
        gives      whether it gives out any beats
        last_step  the number of the last step of an output beat, where that changes from block to block
        """
        t = self.timing
        held = Signal(range(t.blocks + 1))
        room, active = Signal(init=1, name="room"), Signal(name="active")
        write, write_full = Signal(), Signal()
        write_block, write_beat = Signal(counting(t.blocks)), Signal(counting(t.beats_in))
        go, complete, issue, release = Signal(name="advance"), Signal(), Signal(), Signal()
        read_block = Signal(counting(t.blocks))
        word = Signal(counting(t.beats_out * t.steps))
        step = Signal(counting(t.steps) if last_step is None else last_step.shape())

        m.d.comb += [self.i.ready.eq(room), write.eq(self.i.valid & room)]
        m.d.comb += write_full.eq(write & advance(m, write_beat, t.beats_in - 1, write))
        advance(m, write_block, t.blocks - 1, write_full)

        turn, final, fresh = Signal(counting(t.gather)), Signal(), Signal(name="fresh")
        step_last = step == (t.steps - 1 if last_step is None else last_step)
        m.d.comb += final.eq(step_last & (turn == t.gather - 1) & (Const(1) if gives is None else gives))
        # What is final needs a credit.
        m.d.comb += go.eq(active & (Const(1) if may is None else may) & (outlet.available | ~final))
        m.d.comb += [issue.eq(go & final), outlet.issue.eq(issue), complete.eq(go & step_last)]
        if last_step is None:
            advance(m, step, t.steps - 1, go)
        else:
            with m.If(go):
                m.d.sync += step.eq(Mux(step_last, 0, step + 1))
        word_last = advance(m, word, t.beats_out * t.steps - 1, go)
        m.d.comb += release.eq(go & word_last)
        advance(m, read_block, t.blocks - 1, release)
        advance(m, turn, t.gather - 1, release)

        if t.blocks > FEW:
            some, more = tally(m, held, t.blocks, write_full, release)
            m.d.sync += [room.eq(more), active.eq(some)]
        else:
            after = Signal.like(held)
            m.d.comb += after.eq(held + write_full - release)
            m.d.sync += [held.eq(after), room.eq(after != t.blocks), active.eq(after != 0)]
            m.d.comb += fresh.eq((write_full | release) & (after == 1))
        return Control(
            write=write,
            write_block=write_block,
            write_beat=write_beat,
            write_full=write_full,
            advance=go,
            read_block=read_block,
            word=word,
            step=step,
            complete=complete,
            issue=issue,
            release=release,
            word_last=word_last,
            turn=turn,
            fresh=fresh,
        )
