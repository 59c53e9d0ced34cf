// Windows of an image: sim/operations/window.py.
//
//     y[r, s, i * kernel_columns + j, c] = x[r * step_down + i * spread_down - top,
//                                            s * step_across + j * spread_across - left, c], and `fill` outside
//
// One code a cycle; the rows that a row of windows sees are kept in a ring of `lines` rows.
#ifndef BITTRUE_WINDOW_HPP
#define BITTRUE_WINDOW_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void window(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typename P::input0_t kept[P::lines][P::columns][P::channels];
    int come = 0;
down:
    for (int r = 0; r < P::windows_down; ++r) {
        const int first = r * P::step_down - P::top;
        const int last = first + (P::kernel_rows - 1) * P::spread_down;
        const int until = r == P::windows_down - 1 || last >= P::rows ? P::rows : last + 1;
    rows:
        for (; come < until; ++come) {
        columns:
            for (int x = 0; x < P::columns; ++x) {
            channels:
                for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                    kept[come % P::lines][x][c] = in.read();
                }
            }
        }
    across:
        for (int s = 0; s < P::windows_across; ++s) {
        taps:
            for (int tap = 0; tap < P::kernel_rows * P::kernel_columns; ++tap) {
                const int y = first + tap / P::kernel_columns * P::spread_down;
                const int x = s * P::step_across - P::left + tap % P::kernel_columns * P::spread_across;
                const bool inside = y >= 0 && y < P::rows && x >= 0 && x < P::columns;
            codes:
                for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                    typename P::output_t code = typename P::output_t(P::fill);
                    if (inside) {
                        code = kept[y % P::lines][x][c];
                    }
                    out.write(code);
                }
            }
        }
    }
}

}  // namespace bittrue

#endif
