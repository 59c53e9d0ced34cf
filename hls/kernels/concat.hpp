// Tensors side by side along the channels: sim/operations/concat.py.
//
//     y[t] = (x0[t], x1[t], ..)
//
// One code a cycle; any number of operands.
#ifndef BITTRUE_CONCAT_HPP
#define BITTRUE_CONCAT_HPP

#include "contract.hpp"

namespace bittrue {

// The last of the streams, which takes the result.
template <class Out> Out& concat_result(Out& out) { return out; }
template <class First, class... Rest> auto& concat_result(First&, Rest&... rest) { return concat_result(rest...); }

// The codes of a token of operand K and of those after it.
template <class P, int K, class Out> void concat_parts(Out&) {}
template <class P, int K, class First, class... Rest> void concat_parts(First& in, Rest&... rest) {
channels:
    for (int c = 0; c < int(P::channels[K]); ++c) {
#pragma HLS PIPELINE II=1
        concat_result(rest...).write(in.read());
    }
    concat_parts<P, K + 1>(rest...);
}

template <class P, class... Streams> void concat(Streams&... streams) {
tokens:
    for (int t = 0; t < P::tokens; ++t) {
        concat_parts<P, 0>(streams...);
    }
}

}  // namespace bittrue

#endif
