// The beat of an AXI4-Stream whose data is BITS wide: AMD's type in Vitis HLS, the same fields in the host build.
#ifndef BITTRUE_AXIS_HPP
#define BITTRUE_AXIS_HPP

#include "ap_int.h"

#ifdef BITTRUE_HOST

namespace bittrue {

template <int BITS> struct axis_beat {
    ap_int<BITS> data;
    ap_uint<BITS / 8> keep;
    ap_uint<BITS / 8> strb;
    ap_uint<1> last;
};

template <int BITS> struct axis {
    typedef axis_beat<BITS> type;
};

}  // namespace bittrue

#else

#include "ap_axi_sdata.h"

namespace bittrue {

template <int BITS> struct axis {
    typedef ap_axis<BITS, 0, 0, 0> type;
};

}  // namespace bittrue

#endif

#endif
