// hls::stream for the host build: an unbounded first-in first-out queue.
//
// The functions of a DATAFLOW region run here one after the other, so a stream holds whole tensors, whatever its depth
// in hardware; a read that would block for ever is an error that names the stream. With BITTRUE_LOG every read and
// write is recorded, from which hls/depth.py decides whether the depths of the hardware's streams suffice.
#ifndef BITTRUE_HLS_STREAM_H
#define BITTRUE_HLS_STREAM_H

#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

namespace hls {

struct stream_record {
    // Codes that were written and never read, summed over the streams that have ended since the last reset.
    static std::size_t& leftover() {
        static std::size_t count = 0;
        return count;
    }
    // One number an access: 2 * the stream's serial number, plus 1 for a write; -1 ends a process.
    static std::vector<int>& log() {
        static std::vector<int> entries;
        return entries;
    }
    static int& serial() {
        static int next = 0;
        return next;
    }
};

// A run is a batch of frames that follow each other from reset: kernels that count frames begin each at `first`.
struct host_run {
    static long& number() {
        static long runs = 0;
        return runs;
    }
    static long& first() {
        static long index = 0;
        return index;
    }
};

template <class T> class stream {
  public:
    explicit stream(const char* name = "unnamed") : name_(name), head_(0), serial_(stream_record::serial()++) {}
    ~stream() { stream_record::leftover() += size(); }
    stream(const stream&) = delete;
    stream& operator=(const stream&) = delete;

    bool empty() const { return head_ == items_.size(); }
    bool full() const { return false; }
    std::size_t size() const { return items_.size() - head_; }

    // The k-th item from the front, left in place.
    const T& peek(std::size_t k) const { return items_[head_ + k]; }

    void write(const T& item) {
        note(1);
        items_.push_back(item);
    }

    T read() {
        if (empty()) {
            throw std::runtime_error("stream '" + name_ + "' is read while empty: its writer sends too few codes");
        }
        note(0);
        const T item = items_[head_++];
        if (head_ == items_.size()) {
            items_.clear();
            head_ = 0;
        }
        return item;
    }

    void read(T& item) { item = read(); }

    bool read_nb(T& item) {
        if (empty()) {
            return false;
        }
        item = read();
        return true;
    }

    bool write_nb(const T& item) {
        write(item);
        return true;
    }

    stream& operator<<(const T& item) {
        write(item);
        return *this;
    }

    stream& operator>>(T& item) {
        item = read();
        return *this;
    }

  private:
    void note(int is_write) {
#ifdef BITTRUE_LOG
        stream_record::log().push_back(2 * serial_ + is_write);
#else
        (void)is_write;
#endif
    }

    std::string name_;
    std::vector<T> items_;
    std::size_t head_;
    int serial_;
};

}  // namespace hls

#endif
