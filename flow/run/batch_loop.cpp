// The batch loop of the compiled RTL: whole arrays in, whole arrays out, one call for many cycles.
//
// Compiled together with what Verilator makes of the design and with batch_ports.h, which names its ports:
//   Model, INPUTS, FEEDS, OUTPUTS, OUTPUT_BYTES, MOST_BYTES, BUS; drive, withdraw, input_ready, framing_errors;
//   set_ready, output_valid, output_last, output_data; tie: ports that nobody drives.
// Behind the inputs come the feeds: streams that go in again and again (their number is INPUTS + k).
// flow/run/compiled.py writes that header and mirrors Job and the enums.
//
// A cycle: drive inputs and the ready of outputs with the clock low, settle, look at all handshakes, raise the clock.
#include <algorithm>
#include <cstdint>
#include <cstring>
#include <memory>
#include <utility>
#include <verilated.h>

#include "batch_ports.h"
#include "batch_job.h"
#if VM_TRACE
#include <verilated_vcd_c.h>
#endif

namespace {

constexpr int64_t RESET_CYCLES = 8;

enum Event : int64_t {
    LAST_MISSING = 1,       // value: output beat
    LAST_EARLY = 2,         // value: output beat
    DATA_CHANGED = 3,       // value: output beat
    VALID_WITHDRAWN = 4,    // value: output beat
    EXTRA_BEAT = 5,         // value: output beat
    VALID_IN_RESET = 6,
    VALID_AFTER_READY = 7,  // value: output beat
};
enum State : int64_t { RUNNING = 0, DONE = 1, DEADLOCK = 2, CYCLE_LIMIT = 3, BROKEN = 4 };

// Where the event counters of the design that is about to end write (flow/run/monitors.py).
thread_local int64_t* reported = nullptr;

}  // namespace

// Called by the counters' final blocks, in the thread that ends the simulation.
extern "C" void bittrue_ones(int index, long long total) { reported[index] = total; }

#if BUS
#include "bus_master.h"
#else
// No registers: nothing to wait for.
struct BusMaster {
    BusMaster(Job&, Model&) {}
    static bool idle() { return true; }
    static bool open(int64_t) { return true; }
    static void drive(int) {}
    static void look() {}
    static bool withdraw() { return false; }
};
#endif

namespace {

constexpr int STREAMS = INPUTS + FEEDS;

struct Bench {
    Job& job;
    VerilatedContext context;
    std::unique_ptr<Model> model;
    Random output_random[OUTPUTS];
    Random input_random[STREAMS];
    std::unique_ptr<BusMaster> bus;
    bool pending[STREAMS] = {};  // a beat is on the port and not yet accepted
    int64_t feed_at[FEEDS + 1] = {};
    struct Outlet {
        bool stalled = false;  // it was valid and not accepted in the last cycle
        bool open = false, valid = false;
        bool held_last = false;
        uint8_t held[MOST_BYTES];
    } outlet[OUTPUTS];
    uint8_t word[MOST_BYTES];
    int64_t last_handshake = 0;
    Random weight_random;
    bool weight_pending = false;
    int64_t begun = 0;     // frames of which a beat was accepted
    int64_t effective = 0;  // sets that have taken effect
    int64_t finish = -1;  // cycle in which the drain after the last expected beat ends
#if VM_TRACE
    VerilatedVcdC trace;
#endif

    template <size_t... K, size_t... O>
    Bench(Job& j, std::index_sequence<K...>, std::index_sequence<O...>)
        : job(j), output_random{Random(j.seed * 64 + 63 + (uint64_t(O) << 40))...},
          input_random{Random(j.seed * 64 + K)...}, weight_random(j.seed * 64 + 62) {
        // Registers without an initial value start at random, as silicon does.
        context.randReset(2);
        // $fatal and $stop must not end the process; cycle() sees them.
        context.fatalOnError(false);
        context.randSeed(1 + int(j.seed & 0x3fffffff));
#if VM_TRACE
        context.traceEverOn(true);
#endif
        model = std::make_unique<Model>(&context);
#if VM_TRACE
        if (job.waves) {
            model->trace(&trace, 99);
            trace.open(job.waves);
        }
#endif
        job.cycles = job.event_count = 0;
        job.first_input_cycle = -1;
        job.weight_beats = job.refused = 0;
        withdraw_weight(*model);
        for (int k = 0; k < INPUTS; k++) job.accepted[k] = 0;
        for (int k = 0; k < STREAMS; k++) withdraw(*model, k);
        for (int k = 0; k < OUTPUTS; k++) {
            job.produced[k] = 0;
            set_ready(*model, k, false);
        }
        tie(*model);
        bus = std::make_unique<BusMaster>(job, *model);
        for (int64_t c = 0; c < RESET_CYCLES + RESET_REGISTERED; c++) {  // flow/run/registered.py
            model->aresetn = c >= RESET_CYCLES;
            low();
            for (int k = 0; k < OUTPUTS; k++)
                if (c == RESET_CYCLES - 1 && output_valid(*model, k)) event(VALID_IN_RESET, k);
            high();
        }
        model->aresetn = 1;
    }

    ~Bench() {
        reported = job.ones;
        model->final();
#if VM_TRACE
        if (job.waves) trace.close();
#endif
    }

    void low() {
        model->aclk = 0;
        step();
    }
    void high() {
        model->aclk = 1;
        step();
    }
    void step() {
        model->eval();
#if VM_TRACE
        if (job.waves) trace.dump(context.time());
        context.timeInc(5);
#endif
    }

    // Of an output, at the beat that it is at.
    void event(Event kind, int k) {
        if (job.event_count < MAX_EVENTS) {
            int64_t* e = job.events[job.event_count];
            e[0] = kind, e[1] = job.cycles, e[2] = job.produced[k], e[3] = k;
        }
        job.event_count++;
    }

    // Whether a frame waits for a set that has not yet taken effect.
    bool waits(int64_t frame) const {
        for (int64_t s = effective + job.refused; s < job.weight_sets; s++)
            if (frame >= job.weight_by[s]) return true;
        return false;
    }

    void offer_weight() {
        if (weight_pending) return;
        const int64_t at = job.weight_beats, set = at / job.weight_words;
        if (set < job.weight_sets && begun >= job.weight_after[set] && !(job.idle && weight_random.below(job.idle))) {
            drive_weight(*model, job.weights, at, (at + 1) % job.weight_words == 0);
            weight_pending = true;
        } else {
            withdraw_weight(*model);
        }
    }

    // What is on an output, compared with what was there while it waited.
    void look(int k) {
        Outlet& at = outlet[k];
        at.valid = output_valid(*model, k);
        if (at.valid) {
            output_data(*model, k, word);
            const bool last = output_last(*model, k);
            if (at.stalled && (std::memcmp(word, at.held, OUTPUT_BYTES[k]) || last != at.held_last))
                event(DATA_CHANGED, k);
            std::memcpy(at.held, word, OUTPUT_BYTES[k]);
            at.held_last = last;
        } else if (at.stalled) {
            event(VALID_WITHDRAWN, k);
        }
        at.stalled = at.valid && !at.open;
    }

    // Takes every ready away and looks again: a valid or a word that changes with it deadlocks or lies elsewhere.
    void without_ready() {
        for (int k = 0; k < OUTPUTS; k++) set_ready(*model, k, false);
        model->eval();
        for (int k = 0; k < OUTPUTS; k++) {
            const Outlet& at = outlet[k];
            bool same = output_valid(*model, k) == at.valid;
            if (same && at.valid) {
                output_data(*model, k, word);
                same = output_last(*model, k) == at.held_last && !std::memcmp(word, at.held, OUTPUT_BYTES[k]);
            }
            if (!same) event(VALID_AFTER_READY, k);
        }
        for (int k = 0; k < OUTPUTS; k++) set_ready(*model, k, outlet[k].open);
        model->eval();
    }

    // A beat is handed over.
    void take(int k) {
        const int64_t at = job.produced[k];
        if (at >= job.output_beats[k]) {
            event(EXTRA_BEAT, k);
            job.produced[k]++;
            return;
        }
        const bool last = (at + 1) % job.output_frame_beats[k] == 0;
        if (outlet[k].held_last != last) event(last ? LAST_MISSING : LAST_EARLY, k);
        std::memcpy(job.output[k] + at * OUTPUT_BYTES[k], outlet[k].held, OUTPUT_BYTES[k]);
        job.beat_cycles[k][at] = job.cycles;
        // A surplus beat may come a while later: wait for it as long as the first beat took, up to a limit.
        if (++job.produced[k] == job.output_beats[k] && job.all_out()) {
            int64_t first = 0;
            for (int o = 0; o < OUTPUTS; o++) first = std::max(first, job.beat_cycles[o][0]);
            finish = job.cycles + 64 + std::min<int64_t>(first - job.first_input_cycle, 4096);
        }
    }

    State cycle() {
        for (int k = 0; k < INPUTS; k++) {
            if (pending[k]) continue;
            const int64_t at = job.accepted[k];
            const bool more = at < job.input_beats[k] && !waits(at / job.frame_beats[k]) &&
                              (at % job.frame_beats[k] || bus->open(at / job.frame_beats[k]));
            if (more && !(job.idle && input_random[k].below(job.idle))) {
                drive(*model, k, job.input[k], at, job.last[k][at]);
                pending[k] = true;
            } else {
                withdraw(*model, k);
            }
        }
        if (WEIGHTS) offer_weight();
        for (int s = 0; s < FEEDS; s++) {
            const int k = INPUTS + s;
            if (pending[k]) continue;
            pending[k] = !(job.idle && input_random[k].below(job.idle));
            if (pending[k])
                drive(*model, k, job.feed[s], feed_at[s], feed_at[s] + 1 == job.feed_beats[s]);
            else
                withdraw(*model, k);
        }
        bus->drive(INPUTS);
        for (int k = 0; k < OUTPUTS; k++) {
            outlet[k].open = !(job.backpressure && output_random[k].below(job.backpressure));
            set_ready(*model, k, outlet[k].open);
        }
        low();

        bool leaves = false;
        for (int k = 0; k < OUTPUTS; k++) {
            look(k);
            leaves |= outlet[k].valid && outlet[k].open;
        }

        bool handshake = leaves;
        bool taken[STREAMS];
        for (int k = 0; k < STREAMS; k++) taken[k] = pending[k] && input_ready(*model, k);
        if (WEIGHTS) {
            effective += (weight_sets(*model) - effective) & 0xff;
            job.refused = weight_errors(*model);
            if (weight_pending && weight_ready(*model)) {
                weight_pending = false;
                job.weight_beats++;
                handshake = true;
            }
        }
        bus->look();

        if (leaves && job.backpressure) without_ready();
        for (int k = 0; k < OUTPUTS; k++)
            if (outlet[k].valid && outlet[k].open) take(k);
        for (int k = 0; k < INPUTS; k++) {
            if (!taken[k]) continue;
            handshake = true;
            pending[k] = false;
            if (job.accepted[k] == begun * job.frame_beats[k]) job.meets[begun++] = effective;
            job.accepted[k]++;
            if (job.first_input_cycle < 0) job.first_input_cycle = job.cycles;
        }
        for (int s = 0; s < FEEDS; s++) {  // no sign of life: a design may take them for ever
            if (!taken[INPUTS + s]) continue;
            pending[INPUTS + s] = false;
            feed_at[s] = (feed_at[s] + 1) % job.feed_beats[s];
        }
        high();
        if (bus->withdraw()) handshake = true;

        if (handshake) last_handshake = job.cycles;
        const int64_t now = job.cycles++;
        if (context.gotFinish() || context.gotError()) return BROKEN;
        const bool all = finish >= 0 && bus->idle();
        if (all && now >= finish) return DONE;
        if (!all && now - last_handshake >= job.watchdog) return DEADLOCK;
        if (job.max_cycles && job.cycles >= job.max_cycles) return CYCLE_LIMIT;
        return RUNNING;
    }
};

}  // namespace

#define EXPORT extern "C" __attribute__((visibility("default")))

EXPORT int64_t batch_job_bytes() { return sizeof(Job); }

EXPORT void* batch_open(Job* job) {
    return new Bench(*job, std::make_index_sequence<STREAMS>(), std::make_index_sequence<OUTPUTS>());
}

EXPORT int64_t batch_advance(void* bench, int64_t cycles) {
    State state = RUNNING;
    Bench& run = *static_cast<Bench*>(bench);
    while (state == RUNNING && cycles-- > 0) state = run.cycle();
    for (int k = 0; k < INPUTS; k++) run.job.framing_errors[k] = framing_errors(*run.model, k);
    return state;
}

EXPORT void batch_close(void* bench) { delete static_cast<Bench*>(bench); }
