// Table: the file behind Limiter: its layout, its lock, and how a step is made whole. For lib/limits.
//
//   header   magic, layout, boot id | lock | cold state | undo log | processes
//   slots    sets of 16: one subject each, found by hash
//   holds    reservations, free ones chained
//
// Whole      a step changes 64-bit words by put(), which first notes the old value in the undo log; done()
//            empties it. Whoever gets the lock from a dead owner puts the noted values back. Only the
//            program's order matters for that, so the fences are the compiler's.
// Fresh      the file is made anew when nobody has it mapped (a shared flock) and it is of another boot,
//            layout or version, or was never finished. `PATH.lock` is held only while opening.
// Processes  one PID namespace, as for the store.
#pragma once

#include <pthread.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "limits/limits.hpp"

namespace parley::limits {

inline constexpr size_t kWays = 16;
inline constexpr size_t kProcessesMax = 64;
inline constexpr size_t kUndoMax = 256;
inline constexpr size_t kRates = 3;  // requests, input, output: as in Kind

struct Slot {
    uint64_t id[2];
    uint64_t full_at[kRates];  // ns; the bucket is full from then on
    // Requests are never held: [0] counts those of `live` that are no requests at once.
    uint64_t held[kRates];
    uint64_t live;    // reservations
    uint64_t period;  // of spent, first day + 1; 0: not known
    uint64_t spent;
    uint64_t spend_held;
    uint64_t used_at;  // ns
};

struct Reservation {
    uint64_t process;  // index + 1; 0: free
    uint64_t next;     // index + 1 of the next free one
    uint64_t count;
    uint64_t slots[kSubjectsMax];
    uint64_t held[kRates];  // [0]: 1 when it is no request at once
    uint64_t spend_held;
};

struct Process {
    uint64_t pid;
    uint64_t start;  // clock ticks since boot, of /proc/PID/stat
};

struct Header {
    uint64_t magic;
    uint64_t layout;
    uint64_t boot[2];
    uint64_t slots_count;
    uint64_t reservations_count;
    pthread_mutex_t lock;
    uint64_t cold;  // 1: cold, 2 + process index: being refilled by it, 0: warm
    uint64_t free;  // index + 1
    uint64_t live;
    uint64_t undo_count;
    struct {
        uint64_t offset, old;
    } undo[kUndoMax];
    Process processes[kProcessesMax];
};

class Table {
  public:
    static base::Result<std::unique_ptr<Table>> open(const Options& options);
    ~Table();
    Table(const Table&) = delete;
    Table& operator=(const Table&) = delete;

    // Held until destroyed. False in `got` when it could not be had in time.
    class Locked {
      public:
        explicit Locked(Table& table) : table_(table), got_(table.lock()) {}
        ~Locked() {
            if (got_) table_.unlock();
        }
        Locked(const Locked&) = delete;
        Locked& operator=(const Locked&) = delete;
        explicit operator bool() const { return got_; }

      private:
        Table& table_;
        bool got_;
    };

    Header& header() { return *header_; }
    Slot& slot(size_t index) { return slots_[index]; }
    Reservation& reservation(size_t index) { return reservations_[index]; }
    // With the lock.
    void put(uint64_t& word, uint64_t value);
    void add(uint64_t& word, uint64_t value) { put(word, word + value); }
    void take(uint64_t& word, uint64_t value) { put(word, word - (value < word ? value : word)); }
    void done();
    // The subject's slot; a fresh one is written where there is none. Null: its set is full.
    Slot* find(const SubjectId& id, int64_t now_ns, bool make);
    size_t index_of(const Slot& slot) const { return static_cast<size_t>(&slot - slots_); }

  private:
    Table() = default;
    bool lock();
    void unlock();
    void roll_back();
    base::Result<void> map(const Options& options);
    bool valid(const Options& options, uint64_t bytes) const;
    base::Result<void> make(const Options& options);

    int fd_ = -1;
    size_t bytes_ = 0;
    Header* header_ = nullptr;
    Slot* slots_ = nullptr;
    Reservation* reservations_ = nullptr;
};

// Clock ticks at which a process started; 0 when there is none (a zombie is none).
uint64_t start_of(uint64_t pid);

}  // namespace parley::limits
