// The channel with the largest code: sim/operations/arg_max.py.
//
//     y[t] = argmax_c x[t, c], the first of equal ones
//
// One code a cycle.
#ifndef BITTRUE_ARG_MAX_HPP
#define BITTRUE_ARG_MAX_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void arg_max(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
        typename P::input0_t best = 0;
        typename P::output_t which = 0;
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const typename P::input0_t code = in.read();
            if (c == 0 || code > best) {
                best = code;
                which = c;
            }
        }
        out.write(which);
    }
}

}  // namespace bittrue

#endif
