// Saturating sum of two tensors, the residual connection: sim/operations/add.py.
//
//     y = saturate(left + right)
//
// One code a cycle from each operand.
#ifndef BITTRUE_ADD_HPP
#define BITTRUE_ADD_HPP

#include "contract.hpp"

namespace bittrue {

template <class P>
void add(hls::stream<typename P::input0_t>& left, hls::stream<typename P::input1_t>& right,
         hls::stream<typename P::output_t>& out) {
codes:
    for (int i = 0; i < P::output_size; ++i) {
#pragma HLS PIPELINE II=1
        const typename P::accumulator_t sum = left.read() + right.read();
        out.write(saturate<typename P::output_t>(sum));
    }
}

}  // namespace bittrue

#endif
