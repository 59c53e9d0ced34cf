// The samples of a boot, one a call: sim/sequence.py.
//
// `counted` has them from nested counters, a counter for every column of all inputs, the last column fastest: run after
// run goes from P::first to P::last and begins anew. `listed` has them from a ROM. Either gives the SIZE codes from
// column FIRST on, one a cycle; sample 0 begins a boot.
#ifndef BITTRUE_SEQUENCE_HPP
#define BITTRUE_SEQUENCE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P, int FIRST, int SIZE, class T> void counted(int sample, hls::stream<T>& out) {
    static int run = 0;
    static int at[P::columns];
#pragma HLS ARRAY_PARTITION variable=at complete
    if (sample == 0) {
        run = 0;
    first:
        for (int c = 0; c < P::columns; ++c) {
#pragma HLS UNROLL
            at[c] = P::first[0][c];
        }
    }
codes:
    for (int k = 0; k < SIZE; ++k) {
#pragma HLS PIPELINE II=1
        out.write(T(at[FIRST + k]));
    }
    bool carry = true;
next:
    for (int c = P::columns - 1; c >= 0; --c) {
#pragma HLS UNROLL
        const bool ends = at[c] == int(P::last[run][c]);
        if (carry) {
            at[c] = ends ? int(P::first[run][c]) : at[c] + 1;
        }
        carry = carry && ends;
    }
    if (carry) {
        run = run + 1 == P::runs ? 0 : run + 1;
    begin:
        for (int c = 0; c < P::columns; ++c) {
#pragma HLS UNROLL
            at[c] = P::first[run][c];
        }
    }
}

template <class P, int FIRST, int SIZE, class T> void listed(int sample, hls::stream<T>& out) {
codes:
    for (int k = 0; k < SIZE; ++k) {
#pragma HLS PIPELINE II=1
        out.write(T(P::values[sample][FIRST + k]));
    }
}

}  // namespace bittrue

#endif
