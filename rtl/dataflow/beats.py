"""The compiled part of the recurrence over beats (`recurrence.py` says what it computes, and makes its tables).

A stage is visited when something that it waits for may have become known, and then gets as far as it can. Where the
ring of an operand is full, the run stops; it goes on from there when the ring is larger.
"""

from __future__ import annotations

from bittrue.sim.kernels.jit import jit

#: Room that never fills.
UNLIMITED = 1 << 40

# Columns of the table of stages: constants, then the state of the run.
DEPTH, CREDITS, READERS, RING, MASK, DIRECT, FIRST_PHASE, LAST_PHASE = range(8)
PHASE, DONE, END, ISSUED, GONE, SEEN, LATEST, LEFT, TOLD, TOLD_END = range(8, 18)
# Columns of the table of operands, likewise; a ring holds the times of beats taken, another those of beats freed.
SOURCE, ROOM = range(2)
TAKEN, NEEDED, TAKE, TAKES, TAKES_MASK, FREES, FREES_MASK, HEAD, TAIL, FREED = range(2, 12)
# Columns of the table of phases; the operands' `needed` and then their `freed` follow.
CYCLES, EMITS, TIMES, IS_TOLD, COUNTS = range(5)
# Where the round of visits is and how many stages are due; and the operand whose ring is full, if one is.
FIRST_DUE, COUNT_DUE, FULL_TAKES, FULL_FREES = range(4)
# How the compiled part ends.
DEADLOCK, COMPLETE, MISSED, FULL = range(4)


def _compiled(function):
    """Compiled without reference counts, which would take most of the time."""
    return jit(function, _nrt=False, error_model="numpy")


def _inlined(function):
    """The same, pasted into its callers: every array is seven arguments of a call."""
    return jit(function, _nrt=False, error_model="numpy", inline="always")


@_inlined
def _offered(table, issues, p, j):
    """When beat j of stage p is offered to a reader that has had j beats, -1 while that is not known."""
    if table[p, GONE] != j or table[p, ISSUED] <= j:
        return -1
    return max(issues[table[p, RING] + (j & table[p, MASK])] + table[p, DEPTH], table[p, LEFT] + 1)


@_inlined
def _wake(due, woken, n):
    """Something that stage n waits for may be known."""
    if not woken[n]:
        woken[n] = True
        due[COUNT_DUE] += 1


@_inlined
def _take(table, leaves, reader_at, readers, due, woken, p, now):
    """A reader takes the beat that stage p offers; after the last of its readers the next one may be known."""
    table[p, LATEST] = max(table[p, LATEST], now)
    table[p, SEEN] += 1
    if table[p, SEEN] == table[p, READERS]:
        leaves[table[p, RING] + (table[p, GONE] & table[p, MASK])] = table[p, LATEST]
        table[p, LEFT] = table[p, LATEST]
        table[p, LATEST] = -1
        table[p, SEEN] = 0
        table[p, GONE] += 1
        _wake(due, woken, p)
        if table[p, ISSUED] > table[p, GONE] and table[p, READERS] > 1:
            for at in range(reader_at[p], reader_at[p + 1]):
                _wake(due, woken, readers[at])


@_inlined
def _direct(table, operands, begin, stop, phases, issues, leaves, reader_at, readers, due, woken, n):
    """All phases of a direct stage whose time is known."""
    q, done, end, i = table[n, PHASE], table[n, DONE], table[n, END], table[n, ISSUED]
    gone, credits = table[n, GONE], table[n, CREDITS]  # which do not change during the visit
    ring, mask = table[n, RING], table[n, MASK]
    while i - gone < credits:
        now = max(end + 1, leaves[ring + ((i - credits) & mask)] + 1) if i >= credits else end + 1
        known = True
        for o in range(begin, stop):
            if phases[q, COUNTS + o - begin]:
                offered = _offered(table, issues, operands[o, SOURCE], operands[o, TAKEN])
                now = max(now, offered)
                if offered < 0:
                    known = False
                    break
        if not known:
            break
        for o in range(begin, stop):
            if phases[q, COUNTS + o - begin]:
                operands[o, TAKEN] += 1
                _take(table, leaves, reader_at, readers, due, woken, operands[o, SOURCE], now)
        end = now
        if phases[q, EMITS]:  # of a direct stage, one
            issues[ring + (i & mask)] = now
            i += 1
        done += 1
        if done == phases[q, TIMES]:
            done = 0
            q = q + 1 if q < table[n, LAST_PHASE] else table[n, FIRST_PHASE]
    table[n, PHASE], table[n, DONE], table[n, END], table[n, ISSUED] = q, done, end, i


@_inlined
def _fill(table, operands, o, issues, leaves, reader_at, readers, due, woken, takes, frees, freed):
    """All beats of a buffered stage's operand whose taking is known; whether there were any."""
    p, room, i, last = operands[o, SOURCE], operands[o, ROOM], operands[o, TAKEN], operands[o, TAKE]
    start, mask, most = operands[o, TAKES], operands[o, TAKES_MASK], operands[o, NEEDED] + operands[o, TAKES_MASK]
    first = i
    while True:
        now = _offered(table, issues, p, i)
        if now < 0:
            break
        if i >= room:
            at, tail, frees_mask = operands[o, HEAD], operands[o, TAIL], operands[o, FREES_MASK]
            while at < tail and freed[operands[o, FREES] + (at & frees_mask)] <= i - room:
                at += 1
            operands[o, HEAD] = at
            if at == tail:
                break
            now = max(now, frees[operands[o, FREES] + (at & frees_mask)] + 1)
        now = max(now, last + 1)
        if i > most:
            due[FULL_TAKES] = o
            break
        takes[start + (i & mask)] = last = now
        i += 1
        _take(table, leaves, reader_at, readers, due, woken, p, now)
    operands[o, TAKEN], operands[o, TAKE] = i, last
    return i > first


@_inlined
def _work(table, operands, begin, stop, phases, widest, told, issues, leaves, due, takes, frees, freed, n):
    """All phases of a buffered stage whose time is known; whether there were any."""
    q, done, end, i = table[n, PHASE], table[n, DONE], table[n, END], table[n, ISSUED]
    gone, credits = table[n, GONE], table[n, CREDITS]  # which do not change during the visit
    ring, mask = table[n, RING], table[n, MASK]
    moved = False
    while True:
        now = end + 1
        known = True
        for o in range(begin, stop):
            more = phases[q, COUNTS + o - begin]
            if more:
                needed = operands[o, NEEDED] + more
                if operands[o, TAKEN] < needed:
                    known = False
                    break
                now = max(now, takes[operands[o, TAKES] + ((needed - 1) & operands[o, TAKES_MASK])] + 1)
        if not known:
            break
        is_told = phases[q, IS_TOLD] and table[n, TOLD] < table[n, TOLD_END]
        now += (told[table[n, TOLD]] if is_told else phases[q, CYCLES]) - 1
        issued = i + phases[q, EMITS]
        if issued > i:
            if issued - gone > credits:
                break
            if issued > credits:
                now = max(now, leaves[ring + ((issued - 1 - credits) & mask)] + 1)
        for o in range(begin, stop):
            if phases[q, COUNTS + widest + o - begin] and operands[o, ROOM] < UNLIMITED:
                if operands[o, TAIL] - operands[o, HEAD] > operands[o, FREES_MASK]:
                    due[FULL_FREES] = o
        if due[FULL_FREES] >= 0:
            break
        for o in range(begin, stop):
            operands[o, NEEDED] += phases[q, COUNTS + o - begin]
            count = phases[q, COUNTS + widest + o - begin]
            if count and operands[o, ROOM] < UNLIMITED:
                operands[o, FREED] += count
                at = operands[o, FREES] + (operands[o, TAIL] & operands[o, FREES_MASK])
                frees[at], freed[at] = now, operands[o, FREED]
                operands[o, TAIL] += 1
        end = now
        while i < issued:
            issues[ring + (i & mask)] = now
            i += 1
        if phases[q, IS_TOLD]:
            table[n, TOLD] += 1
        done += 1
        if done == phases[q, TIMES]:
            done = 0
            q = q + 1 if q < table[n, LAST_PHASE] else table[n, FIRST_PHASE]
        moved = True
    table[n, PHASE], table[n, DONE], table[n, END], table[n, ISSUED] = q, done, end, i
    return moved


@_compiled
def run(
    count, table, operand_at, operands, reader_at, readers, phases, widest,  # fixed
    issues, leaves, due, woken,  # state
    takes, frees, freed,  # rings
    beats, goal, early, told, got, first, ends,  # output
):  # fmt: skip
    outputs, frames = ends.shape
    while due[COUNT_DUE]:
        n = due[FIRST_DUE]
        while not woken[n]:
            n = n + 1 if n + 1 < len(woken) else 0
        due[FIRST_DUE] = n + 1 if n + 1 < len(woken) else 0
        due[COUNT_DUE] -= 1
        woken[n] = False
        begin, stop = operand_at[n], operand_at[n + 1]
        if n < count:
            issued = table[n, ISSUED]
            if table[n, DIRECT]:
                _direct(table, operands, begin, stop, phases, issues, leaves, reader_at, readers, due, woken, n)
            else:
                moved = True
                while moved and due[FULL_TAKES] < 0 and due[FULL_FREES] < 0:
                    moved = False
                    for o in range(begin, stop):
                        if _fill(
                            table, operands, o, issues, leaves, reader_at, readers, due, woken, takes, frees, freed
                        ):
                            moved = True
                    if _work(
                        table,
                        operands,
                        begin,
                        stop,
                        phases,
                        widest,
                        told,
                        issues,
                        leaves,
                        due,
                        takes,
                        frees,
                        freed,
                        n,
                    ):
                        moved = True
            if table[n, ISSUED] > issued:
                for at in range(reader_at[n], reader_at[n + 1]):
                    _wake(due, woken, readers[at])
            if due[FULL_TAKES] >= 0 or due[FULL_FREES] >= 0:
                _wake(due, woken, n)
                return FULL
        elif n < count + outputs:
            # An output, always ready.
            out, p = n - count, operands[begin, SOURCE]
            while True:
                now = _offered(table, issues, p, operands[begin, TAKEN])
                if now < 0:
                    break
                operands[begin, TAKEN] += 1
                _take(table, leaves, reader_at, readers, due, woken, p, now)
                if got[out] < frames * beats[out]:
                    if got[out] == 0:
                        first[out] = now
                    got[out] += 1
                    if got[out] % beats[out] == 0:
                        frame = got[out] // beats[out] - 1
                        ends[out, frame] = now
                        if goal.shape[1] > 0 and (now > goal[out, frame] or (now < goal[out, frame] and not early)):
                            return MISSED
            missing = 0
            for k in range(outputs):
                missing += frames * beats[k] - got[k]
            if missing == 0:
                return COMPLETE
    return DEADLOCK
