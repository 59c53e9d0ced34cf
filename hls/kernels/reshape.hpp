// Other axes for the same codes in the same order: sim/operations/reshape.py.
//
//     y.flat[k] = x.flat[k]
//
// One code a cycle: it is the stream itself.
#ifndef BITTRUE_RESHAPE_HPP
#define BITTRUE_RESHAPE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void reshape(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
codes:
    for (int i = 0; i < P::output_size; ++i) {
#pragma HLS PIPELINE II=1
        out.write(in.read());
    }
}

}  // namespace bittrue

#endif
