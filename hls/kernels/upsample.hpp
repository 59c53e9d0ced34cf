// An image made larger: sim/operations/upsample.py.
//
//     y[r, s, c] = x[r / factor_down, s / factor_across, p * given + c], p = 0 or, where the channels are parts of
//     pixels, (r % factor_down) * factor_across + s % factor_across
//
// One code a cycle; a row is kept while its copies are given out.
#ifndef BITTRUE_UPSAMPLE_HPP
#define BITTRUE_UPSAMPLE_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void upsample(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typename P::input0_t kept[P::columns][P::channels];
rows:
    for (int r = 0; r < P::rows; ++r) {
    fill:
        for (int x = 0; x < P::columns; ++x) {
        codes:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                kept[x][c] = in.read();
            }
        }
    down:
        for (int a = 0; a < P::factor_down; ++a) {
        columns:
            for (int x = 0; x < P::columns; ++x) {
            across:
                for (int b = 0; b < P::factor_across; ++b) {
                    const int first = P::parts != 0 ? (a * P::factor_across + b) * P::given : 0;
                given:
                    for (int c = 0; c < P::given; ++c) {
#pragma HLS PIPELINE II=1
                        out.write(kept[x][first + c]);
                    }
                }
            }
        }
    }
}

}  // namespace bittrue

#endif
