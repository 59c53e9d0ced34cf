// The FS-neuron, a value to a spike train: sim/operations/fs_neuron.py.
//
//     v = min(max(x, lowest), highest),   then for t = 0 .. K-1:   z[t] = v > threshold[t],   v -= reset[t] * z[t]
//
// One spike a cycle, time before channels; a comparison and a subtraction, no multiplier. The values of a token come in
// during its first step and its membranes are registers, so a token takes steps * channels cycles.
#ifndef BITTRUE_FS_NEURON_HPP
#define BITTRUE_FS_NEURON_HPP

#include "contract.hpp"

namespace bittrue {

template <class P> void fs_neuron(hls::stream<typename P::input0_t>& in, hls::stream<typename P::output_t>& out) {
    typedef typename P::membrane_t membrane_t;
    membrane_t membranes[P::channels];
#pragma HLS ARRAY_PARTITION variable=membranes complete
tokens:
    for (int n = 0; n < P::tokens; ++n) {
    steps:
        for (int t = 0; t < P::steps; ++t) {
        channels:
            for (int c = 0; c < P::channels; ++c) {
#pragma HLS PIPELINE II=1
                membrane_t v;
                if (t == 0) {
                    const typename P::input0_t x = in.read();
                    const membrane_t lowest = P::lowest, highest = P::highest;
                    v = x > highest ? highest : x < lowest ? lowest : membrane_t(x);
                } else {
                    v = membranes[c];
                }
                const bool fires = v > typename P::threshold_t(P::threshold[t]);
                out.write(typename P::output_t(fires));
                membranes[c] = fires ? membrane_t(v - typename P::reset_t(P::reset[t])) : v;
            }
        }
    }
}

}  // namespace bittrue

#endif
