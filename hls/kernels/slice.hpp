// Some of the channels of a tensor: sim/operations/slice.py.
//
//     y[t, c] = x[t, start + c]
//
// One code a cycle; those of other channels are dropped.
#ifndef BITTRUE_SLICE_HPP
#define BITTRUE_SLICE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void slice(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
    channels:
        for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
            const typename P::output_t code = in.read();
            if (c >= P::start && c < P::stop) {
                out.write(code);
            }
        }
    }
}

}  // namespace bittrue

#endif
