#include "store/lease.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cinttypes>
#include <cstdio>
#include <cstdlib>
#include <utility>

#include "base/file.hpp"

namespace parley::store {

using base::Errc;
using base::fail;
using base::Result;

namespace {

struct Held {
    uint64_t epoch = 0;
    int64_t until_ms = 0;
    std::string boot;
    std::string pid;
};

std::string this_boot() {
    static const std::string boot = [] {
        std::string id = base::read_file("/proc/sys/kernel/random/boot_id", 128).value_or("none");
        while (!id.empty() && id.back() == '\n') id.pop_back();
        return id;
    }();
    return boot;
}

class Fd {
  public:
    explicit Fd(const std::string& path)
        : fd_(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)) {}
    Fd(Fd&& other) noexcept : fd_(other.release()) {}
    ~Fd() {
        if (fd_ >= 0) ::close(fd_);
    }
    int get() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }
    bool lock(int how) const {
        int rc;
        do rc = ::flock(fd_, how);
        while (rc != 0 && errno == EINTR);
        return rc == 0;
    }

  private:
    int fd_;
};

// The moment's lock, taken.
Result<Fd> moment(const std::string& path) {
    Fd fd(path + ".lock");
    if (fd.get() < 0 || !fd.lock(LOCK_EX))
        return fail(base::errno_error(errno, fmt::format("cannot lock '{}.lock'", path)));
    return fd;
}

Result<Held> read_held(const std::string& path) {
    Held held;
    auto text = base::read_file(path, 4096);
    if (!text && text.error().code == Errc::not_found) return held;
    if (!text) return fail(text.error());
    char boot[65] = "", pid[33] = "";
    if (std::sscanf(text->c_str(), "%" SCNu64 " %" SCNd64 " %64s %32s", &held.epoch,
                    &held.until_ms, boot, pid) < 3)
        return fail(Errc::corrupt, fmt::format("'{}' is no lease: remove it", path));
    held.boot = boot;
    held.pid = pid;
    return held;
}

}  // namespace

Result<void> Lease::write(int64_t until_ms) {
    // Not synced: after a crash of the machine no holder lives, and a busy disk must not cost the lease.
    const std::string fresh = fmt::format("{}.new", path_);
    const std::string text =
        fmt::format("{} {} {} {}\n", epoch_, until_ms, this_boot(), ::getpid());
    const int fd = ::open(fresh.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    const bool put = fd >= 0 && ::write(fd, text.data(), text.size()) ==
                                    static_cast<ssize_t>(text.size());
    const int number = errno;
    if (fd >= 0) ::close(fd);
    if (!put) return fail(base::errno_error(number, fmt::format("cannot write '{}'", fresh)));
    if (::rename(fresh.c_str(), path_.c_str()) != 0)
        return fail(base::errno_error(errno, fmt::format("cannot replace '{}'", path_)));
    return {};
}

void Lease::hold_alive() {
    if (alive_ >= 0) return;
    Fd fd(path_ + ".alive");
    // One that stands still may have it yet; then the time alone tells of us.
    if (fd.get() >= 0 && fd.lock(LOCK_EX | LOCK_NB)) alive_ = fd.release();
}

Result<std::optional<Lease>> Lease::try_take(const std::string& path, int64_t ttl_ms,
                                             const base::Clock& clock) {
    auto lock = moment(path);
    if (!lock) return fail(lock.error());
    auto held = read_held(path);
    if (!held) return fail(held.error());
    Lease lease(path, ttl_ms, clock);
    if (held->boot == this_boot() && held->until_ms > clock.mono_ms()) {
        lease.hold_alive();
        if (lease.alive_ < 0) return std::optional<Lease>{};
    }
    lease.epoch_ = held->epoch + 1;
    lease.hold_alive();
    if (auto done = lease.write(clock.mono_ms() + ttl_ms); !done) return fail(done.error());
    lease.held_ = true;
    return std::optional<Lease>(std::move(lease));
}

Lease::Lease(Lease&& other) noexcept
    : path_(std::move(other.path_)),
      ttl_ms_(other.ttl_ms_),
      clock_(other.clock_),
      epoch_(other.epoch_),
      alive_(std::exchange(other.alive_, -1)),
      held_(std::exchange(other.held_, false)) {}

Lease::~Lease() {
    if (held_) {
        if (auto lock = moment(path_)) {
            if (auto held = read_held(path_); held && held->epoch == epoch_) (void)write(0);
        }
    }
    if (alive_ >= 0) ::close(alive_);
}

Result<void> Lease::guard(const std::function<Result<void>()>& work) {
    auto lock = moment(path_);
    if (!lock) return fail(lock.error());
    auto held = read_held(path_);
    if (!held) return fail(held.error());
    if (held->epoch != epoch_) {
        held_ = false;
        return fail(Errc::conflict,
                    fmt::format("process {} has taken over '{}' (epoch {} after {})", held->pid,
                                path_, held->epoch, epoch_));
    }
    hold_alive();
    // A write a renewal would be a sync a batch: half of the time is soon enough.
    const int64_t now = clock_->mono_ms();
    if (held->until_ms - now < ttl_ms_ / 2)
        if (auto done = write(now + ttl_ms_); !done) return done;
    return work();
}

}  // namespace parley::store
