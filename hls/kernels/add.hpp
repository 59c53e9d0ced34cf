// Saturating sum of two tensors or more, the residual connection: sim/operations/add.py.
//
//     y = saturate(left + right + ..)
//
// One code a cycle from each operand.
#ifndef BITTRUE_ADD_HPP
#define BITTRUE_ADD_HPP

#include "contract.hpp"

namespace bittrue {

// The sum so far, with a code of each of the streams but the last, which takes the result.
template <class P, class Out> void add_parts(const typename P::accumulator_t& sum, Out& out) {
    out.write(saturate<typename P::output_t>(sum));
}
template <class P, class Second, class... Rest>
void add_parts(const typename P::accumulator_t& sum, hls::stream<Second>& in, Rest&... rest) {
    const typename P::accumulator_t more = sum + in.read();
    add_parts<P>(more, rest...);
}

template <class P, class... Streams> void add(hls::stream<typename P::input0_t>& left, Streams&... rest) {
codes:
    for (int i = 0; i < P::output_size; ++i) {
#pragma HLS PIPELINE II=1
        const typename P::accumulator_t first = left.read();
        add_parts<P>(first, rest...);
    }
}

}  // namespace bittrue

#endif
