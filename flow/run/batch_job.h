// What the batch loop is given and what it leaves, and its random numbers. Included behind batch_ports.h.
#pragma once
#include <cstdint>

namespace {

constexpr int64_t MAX_EVENTS = 16;

// xorshift64*, one generator a port, so that the stalls of a port do not depend on the other ports.
struct Random {
    uint64_t state;
    explicit Random(uint64_t seed) {  // splitmix64: neighbouring seeds must not give similar streams
        seed += 0x9E3779B97F4A7C15ull;
        seed = (seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9ull;
        seed = (seed ^ (seed >> 27)) * 0x94D049BB133111EBull;
        state = (seed ^ (seed >> 31)) | 1;
    }
    bool below(uint64_t threshold) {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        return ((state * 0x2545F4914F6CDD1Dull) >> 11) < threshold;  // 53 bits against p * 2^53
    }
};

}  // namespace

extern "C" {

// Everything is int64 or a pointer, so that ctypes and C++ agree on the layout.
struct Job {
    const uint8_t* const* input;  // per input: [beats][bytes of a beat]
    const int64_t* input_beats;   // per input: beats in total
    const int64_t* frame_beats;   // per input: beats of a frame
    const uint8_t* const* last;   // per input: TLAST of every beat
    uint8_t* const* output;       // per output: [output_beats][bytes of a beat]
    int64_t* const* beat_cycles;  // per output: [output_beats]
    const int64_t* output_beats;  // per output: beats in total
    const int64_t* output_frame_beats;  // per output: beats of a frame
    int64_t seed;
    int64_t idle;          // probability that a source waits a cycle, times 2^53
    int64_t backpressure;  // probability that a sink is not ready in a cycle, times 2^53
    int64_t watchdog;      // cycles without any handshake that count as a deadlock
    int64_t max_cycles;    // 0: no limit
    const char* waves;     // VCD file, or null
    // results
    int64_t cycles, first_input_cycle, event_count;
    int64_t events[MAX_EVENTS][4];  // kind, cycle, value, output
    int64_t* produced;              // per output: beats handed over
    int64_t* accepted;              // per input: beats accepted
    int64_t* framing_errors;        // per input: what its port counts, as of the last cycle
    int64_t* ones;                  // per monitor: events that passed
    // sets of weights: [sets][words][bytes of a beat]; per set, frames begun before it is offered, the frame that waits
    const uint8_t* weights;
    const int64_t* weight_after;
    const int64_t* weight_by;
    int64_t* meets;  // per frame: sets that had taken effect when it began
    int64_t weight_sets, weight_words;
    int64_t weight_beats, refused;  // results: words accepted, sets refused
    const uint8_t* const* feed;     // per feed: [beats][bytes of a beat]
    const int64_t* feed_beats;      // per feed
    const int64_t* accesses;        // [access_count][4], see bus_master.h
    int64_t access_count;
    int64_t* answers;  // [answer_limit][4]
    int64_t answer_limit;
    int64_t answer_count;

    bool all_out() const {
        for (int k = 0; k < OUTPUTS; k++)
            if (produced[k] < output_beats[k]) return false;
        return true;
    }
};

}  // extern "C"
