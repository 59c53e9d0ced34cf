// Host build only: what the generated top's macros do when the kernels run on a host.
//
// BITTRUE_PROBE(k, s) copies the tensor that waits in stream `s` to the k-th array of a traced run; BITTRUE_PROCESS_END
// marks in the log of stream accesses where one process of the DATAFLOW region ends.
#ifndef BITTRUE_PROBE_HPP
#define BITTRUE_PROBE_HPP

#include "hls_stream.h"

namespace bittrue {

// Where a traced run puts every tensor: one pointer a tensor, moved on as its codes arrive. Null when not tracing.
inline long long**& traced() {
    static long long** pointers = nullptr;
    return pointers;
}

template <class T> void probe(int tensor, const hls::stream<T>& stream) {
    if (traced() != nullptr) {
        for (std::size_t i = 0; i < stream.size(); ++i) {
            *traced()[tensor]++ = static_cast<long long>(stream.peek(i));
        }
    }
}

}  // namespace bittrue

#define BITTRUE_PROBE(tensor, stream) bittrue::probe(tensor, stream);
#ifdef BITTRUE_LOG
#define BITTRUE_PROCESS_END hls::stream_record::log().push_back(-1);
#else
#define BITTRUE_PROCESS_END
#endif

#endif
