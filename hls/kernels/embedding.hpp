// Rows of a table by an index: sim/operations/embedding.py.
//
//     y[i, d] = entries[min(x[i], rows - 1), d]
//
// One code a cycle, from a ROM.
#ifndef BITTRUE_EMBEDDING_HPP
#define BITTRUE_EMBEDDING_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void embedding(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
indices:
    for (int i = 0; i < P::indices; ++i) {
        const int x = int(in.read());
        const int row = x < P::rows ? x : P::rows - 1;
    codes:
        for (int d = 0; d < P::dimension; ++d) {
#pragma HLS PIPELINE II=1
            out.write(typename P::output_t(P::entries[row][d]));
        }
    }
}

}  // namespace bittrue

#endif
