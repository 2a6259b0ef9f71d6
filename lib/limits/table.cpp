#include "limits/table.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>

#include "base/file.hpp"

namespace parley::limits {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr uint64_t kMagic = 0x50'61'72'6c'65'79'4c'31;  // "ParleyL1": raised with the layout
constexpr int64_t kOpenWaitMs = 5000;

// The compiler may not move a store over this; the other process sees them in the order they were made.
void fence() { std::atomic_signal_fence(std::memory_order_seq_cst); }

struct Descriptor {
    int fd = -1;
    ~Descriptor() {
        if (fd >= 0) ::close(fd);
    }
};

void boot_id(uint64_t out[2]) {
    out[0] = out[1] = 0;
    const auto text = base::read_file("/proc/sys/kernel/random/boot_id", 64);
    if (!text) return;
    const SubjectId id = subject_id("boot", *text);
    out[0] = id[0];
    out[1] = id[1];
}

uint64_t layout() {
    return sizeof(Header) << 40 | sizeof(Slot) << 28 | sizeof(Reservation) << 16 | kWays << 8 |
           kSubjectsMax;
}

size_t slots_of(const Options& options) {
    const size_t sets = std::max<size_t>(1, (options.subjects_max + kWays - 1) / kWays);
    return sets * kWays;
}

size_t bytes_of(const Options& options) {
    return sizeof(Header) + slots_of(options) * sizeof(Slot) +
           options.reservations_max * sizeof(Reservation);
}

// flock by polling: a bound on the wait is worth more than the microseconds.
bool lock_file(int fd, int how, int64_t wait_ms) {
    const int64_t until = base::system_clock().mono_ms() + wait_ms;
    while (::flock(fd, how | LOCK_NB) != 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) return false;
        if (base::system_clock().mono_ms() >= until) return false;
        ::usleep(2000);
    }
    return true;
}

}  // namespace

uint64_t start_of(uint64_t pid) {
    const auto text = base::read_file(fmt::format("/proc/{}/stat", pid), 4096);
    if (!text) return 0;
    // "pid (name) state ppid …": the name may hold anything, so count from its last bracket.
    size_t at = text->rfind(')');
    if (at == std::string::npos || at + 2 >= text->size()) return 0;
    at += 2;
    if ((*text)[at] == 'Z' || (*text)[at] == 'X') return 0;
    for (int field = 3; field < 22 && at != std::string::npos; ++field) {
        at = text->find(' ', at);
        if (at != std::string::npos) ++at;
    }
    return at == std::string::npos ? 0 : std::strtoull(text->c_str() + at, nullptr, 10);
}

Result<std::unique_ptr<Table>> Table::open(const Options& options) {
    Descriptor opening;
    opening.fd = ::open((options.path + ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (opening.fd < 0)
        return fail(base::errno_error(errno, fmt::format("cannot open '{}.lock'", options.path)));
    if (!lock_file(opening.fd, LOCK_EX, kOpenWaitMs))
        return fail(Errc::again, fmt::format("another process keeps '{}' locked", options.path));
    std::unique_ptr<Table> table(new Table());
    if (auto mapped = table->map(options); !mapped) return fail(mapped.error());
    return table;
}

Result<void> Table::map(const Options& options) {
    const auto doing = [&] { return fmt::format("cannot map '{}'", options.path); };
    fd_ = ::open(options.path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd_ < 0) return fail(base::errno_error(errno, doing()));
    struct stat info {};
    if (::fstat(fd_, &info) != 0) return fail(base::errno_error(errno, doing()));
    const size_t want = bytes_of(options);
    // Only we: whatever it is, it may be made anew.
    const bool alone = ::flock(fd_, LOCK_EX | LOCK_NB) == 0;
    bool fresh = static_cast<size_t>(info.st_size) != want;
    if (fresh && !alone)
        return fail(Errc::config,
                    fmt::format("'{}' is in use with other sizes: all processes must be given the "
                                "same numbers of subjects and reservations",
                                options.path));
    if (fresh && (::ftruncate(fd_, 0) != 0 || ::ftruncate(fd_, static_cast<off_t>(want)) != 0))
        return fail(base::errno_error(errno, doing()));
    void* memory = ::mmap(nullptr, want, PROT_READ | PROT_WRITE, MAP_SHARED, fd_, 0);
    if (memory == MAP_FAILED) return fail(base::errno_error(errno, doing()));
    bytes_ = want;
    header_ = static_cast<Header*>(memory);
    slots_ = reinterpret_cast<Slot*>(header_ + 1);
    reservations_ = reinterpret_cast<Reservation*>(slots_ + slots_of(options));
    if (!valid(options, want)) {
        if (!alone)
            return fail(Errc::config,
                        fmt::format("'{}' is in use by another version", options.path));
        if (auto made = make(options); !made) return made;
    }
    // Still under PATH.lock, so nobody comes between.
    if (!lock_file(fd_, LOCK_SH, kOpenWaitMs)) return fail(Errc::again, doing());
    return {};
}

bool Table::valid(const Options& options, uint64_t) const {
    uint64_t boot[2];
    boot_id(boot);
    return header_->magic == kMagic && header_->layout == layout() && header_->boot[0] == boot[0] &&
           header_->boot[1] == boot[1] && header_->slots_count == slots_of(options) &&
           header_->reservations_count == options.reservations_max;
}

Result<void> Table::make(const Options& options) {
    // Holes read as zeros, and cost no memory until they are used.
    if (::ftruncate(fd_, 0) != 0 || ::ftruncate(fd_, static_cast<off_t>(bytes_)) != 0)
        return fail(base::errno_error(errno, fmt::format("cannot clear '{}'", options.path)));
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    const int made = pthread_mutex_init(&header_->lock, &attributes);
    pthread_mutexattr_destroy(&attributes);
    if (made != 0) return fail(base::errno_error(made, "cannot make the lock of the limits"));
    header_->layout = layout();
    boot_id(header_->boot);
    header_->slots_count = slots_of(options);
    header_->reservations_count = options.reservations_max;
    header_->cold = 1;
    header_->free = 0;  // handed out in order first, then chained
    fence();
    header_->magic = kMagic;
    return {};
}

Table::~Table() {
    if (header_) ::munmap(header_, bytes_);
    if (fd_ >= 0) ::close(fd_);
}

bool Table::lock() {
    timespec until{};
    ::clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += kLockWaitMs * 1'000'000;
    until.tv_sec += until.tv_nsec / 1'000'000'000;
    until.tv_nsec %= 1'000'000'000;
    int got = pthread_mutex_trylock(&header_->lock);
    if (got == EBUSY) got = pthread_mutex_clocklock(&header_->lock, CLOCK_MONOTONIC, &until);
    if (got == EOWNERDEAD) {
        roll_back();
        pthread_mutex_consistent(&header_->lock);
        return true;
    }
    return got == 0;
}

void Table::unlock() {
    done();
    pthread_mutex_unlock(&header_->lock);
}

void Table::put(uint64_t& word, uint64_t value) {
    if (word == value) return;
    Header& h = *header_;
    const uint64_t at = h.undo_count;
    if (at >= kUndoMax) std::abort();  // no step changes that many words
    h.undo[at] = {static_cast<uint64_t>(reinterpret_cast<std::byte*>(&word) -
                                        reinterpret_cast<std::byte*>(header_)),
                  word};
    fence();
    h.undo_count = at + 1;
    fence();
    word = value;
}

void Table::done() {
    fence();
    header_->undo_count = 0;
    fence();
}

void Table::roll_back() {
    Header& h = *header_;
    for (uint64_t i = std::min<uint64_t>(h.undo_count, kUndoMax); i > 0; --i) {
        const auto& noted = h.undo[i - 1];
        if (noted.offset + sizeof(uint64_t) > bytes_) continue;
        std::memcpy(reinterpret_cast<std::byte*>(header_) + noted.offset, &noted.old,
                    sizeof noted.old);
        fence();
        h.undo_count = i - 1;
        fence();
    }
}

namespace {

// Whoever comes anew would find the same: nothing held, every bucket full, no sum that is not in the
// store by now.
bool at_rest(const Slot& slot, uint64_t now_ns) {
    constexpr uint64_t kSpendInStoreNs = 60'000'000'000;
    if (slot.live > 0) return false;
    for (const uint64_t full_at : slot.full_at)
        if (full_at > now_ns) return false;
    return slot.spent == 0 || now_ns - std::min(slot.used_at, now_ns) > kSpendInStoreNs;
}

}  // namespace

Slot* Table::find(const SubjectId& id, int64_t now_ns, bool make) {
    const size_t sets = header_->slots_count / kWays;
    Slot* const set = slots_ + (id[0] % sets) * kWays;
    Slot* free = nullptr;
    Slot* resting = nullptr;
    for (size_t i = 0; i < kWays; ++i) {
        Slot& slot = set[i];
        if (slot.id[0] == id[0] && slot.id[1] == id[1]) return &slot;
        if (slot.id[0] == 0 && slot.id[1] == 0) {
            if (!free) free = &slot;
        } else if (!resting && at_rest(slot, static_cast<uint64_t>(now_ns))) {
            resting = &slot;
        }
    }
    Slot* const place = free ? free : resting;
    if (!make || !place) return nullptr;
    put(place->id[0], id[0]);
    put(place->id[1], id[1]);
    for (size_t i = 0; i < kRates; ++i) {
        put(place->full_at[i], 0);
        put(place->held[i], 0);
    }
    put(place->period, 0);
    put(place->spent, 0);
    put(place->spend_held, 0);
    put(place->used_at, static_cast<uint64_t>(now_ns));
    return place;
}

}  // namespace parley::limits
