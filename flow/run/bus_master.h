// The AXI4-Lite master of the batch loop: accesses at the frames they belong to (rtl/bus/access.py), with pauses.
//
// Included by batch_loop.cpp where the design has registers; Model has the ports s_axi_*. An access is a row
// [frame, address, read, write or POLL, value], an answer a row [access, response, word, cycle]. Those of the frame
// MEANWHILE stand behind all others.
#pragma once
#include <cstdint>

struct BusMaster {
    static constexpr int64_t POLL = 2;  // a read, again and again until it gives the value
    static constexpr int64_t MEANWHILE = -1, END = int64_t(1) << 62;
    static constexpr uint64_t PAUSE = (uint64_t(1) << 53) / 3;  // a third of the cycles, on every channel

    Job& job;
    Model& model;
    Random random;
    int64_t scheduled = 0;  // accesses that are not MEANWHILE
    int64_t next = 0;       // the first of these without an answer
    int64_t repeats = 0;    // MEANWHILE accesses made
    int64_t current = -1;   // the one under way
    bool address_due = false, data_due = false;

    BusMaster(Job& j, Model& m) : job(j), model(m), random(j.seed * 64 + 62) {
        while (scheduled < job.access_count && frame(scheduled) != MEANWHILE) scheduled++;
        job.answer_count = 0;
        model.s_axi_awvalid = model.s_axi_wvalid = model.s_axi_bready = 0;
        model.s_axi_arvalid = model.s_axi_rready = 0;
        model.s_axi_awprot = model.s_axi_arprot = 0;
        model.s_axi_wstrb = 0xF;
    }

    int64_t frame(int64_t access) const { return job.accesses[4 * access]; }
    bool writes(int64_t access) const { return job.accesses[4 * access + 2] == 1; }
    bool polls(int64_t access) const { return job.accesses[4 * access + 2] == POLL; }
    bool idle() const { return current < 0 && next == scheduled; }
    // Whether frame n may go in.
    bool open(int64_t n) const { return next == scheduled || frame(next) > n; }

    bool due(int64_t when, int inputs) const {
        if (when == END) return job.all_out();
        for (int k = 0; k < inputs; k++)
            if (job.accepted[k] < when * job.frame_beats[k]) return false;
        return true;
    }

    void choose(int inputs) {
        const int64_t others = job.access_count - scheduled;
        if (next < scheduled && due(frame(next), inputs)) {
            current = next;
        } else if (others && job.answer_count < job.answer_limit - (scheduled - next) &&
                   !job.all_out() && open(0)) {
            current = scheduled + repeats % others;
        } else {
            return;
        }
        address_due = true;
        data_due = writes(current);
    }

    // With the clock low: what is on the wires in this cycle. A valid that is high stays.
    void drive(int inputs) {
        if (current < 0) choose(inputs);
        if (current < 0) return;
        const uint32_t address = job.accesses[4 * current + 1], value = job.accesses[4 * current + 3];
        if (writes(current)) {
            if (address_due && !model.s_axi_awvalid && !random.below(PAUSE)) {
                model.s_axi_awaddr = address;
                model.s_axi_awvalid = 1;
            }
            if (data_due && !model.s_axi_wvalid && !random.below(PAUSE)) {
                model.s_axi_wdata = value;
                model.s_axi_wvalid = 1;
            }
            model.s_axi_bready = !random.below(PAUSE);
        } else {
            if (address_due && !model.s_axi_arvalid && !random.below(PAUSE)) {
                model.s_axi_araddr = address;
                model.s_axi_arvalid = 1;
            }
            model.s_axi_rready = !random.below(PAUSE);
        }
    }

    // The nets have settled: which handshakes there are at the coming edge. Call `withdraw` behind the edge.
    bool took_address = false, took_data = false, answered = false, again = false;
    void look() {
        took_address = took_data = answered = again = false;
        if (current < 0) return;
        const bool write = writes(current);
        took_address = write ? model.s_axi_awvalid && model.s_axi_awready : model.s_axi_arvalid && model.s_axi_arready;
        took_data = model.s_axi_wvalid && model.s_axi_wready;
        answered = write ? model.s_axi_bvalid && model.s_axi_bready : model.s_axi_rvalid && model.s_axi_rready;
        again = answered && polls(current) && model.s_axi_rresp == 0 &&
                model.s_axi_rdata != uint32_t(job.accesses[4 * current + 3]);
        if (!answered || again || job.answer_count >= job.answer_limit) return;
        int64_t* row = job.answers + 4 * job.answer_count++;
        row[0] = current, row[1] = write ? model.s_axi_bresp : model.s_axi_rresp;
        row[2] = write ? 0 : model.s_axi_rdata, row[3] = job.cycles;
    }

    // Behind the edge; returns whether an access that others wait for was answered.
    bool withdraw() {
        if (current < 0) return false;
        if (took_address) address_due = false, model.s_axi_awvalid = model.s_axi_arvalid = 0;
        if (took_data) data_due = false, model.s_axi_wvalid = 0;
        if (!answered) return false;
        model.s_axi_bready = model.s_axi_rready = 0;
        if (again) {
            current = -1;
            return false;
        }
        const bool waited = current == next;
        waited ? next++ : repeats++;
        current = -1;
        return waited;
    }
};
