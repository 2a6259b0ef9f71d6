#include "turn.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>
#include <utility>

namespace parley::router {

namespace {

constexpr int64_t kServes = 0, kNext = 1, kBeats = 8;  // places in the file

struct flock of_byte(int64_t at) {
    struct flock lock {};
    lock.l_type = F_WRLCK;
    lock.l_whence = SEEK_SET;
    lock.l_start = at;
    lock.l_len = 1;
    return lock;
}

}  // namespace

base::Result<Turn> Turn::open(const std::string& path, int64_t hung_ms) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return base::fail(base::Errc::io,
                          fmt::format("cannot open '{}': {}", path, std::strerror(errno)));
    return Turn(fd, hung_ms);
}

Turn::Turn(Turn&& other) noexcept : fd_(std::exchange(other.fd_, -1)), hung_ms_(other.hung_ms_) {}

Turn::~Turn() {
    if (fd_ >= 0) ::close(fd_);
}

bool Turn::lock(int64_t at) const {
    struct flock lock = of_byte(at);
    return ::fcntl(fd_, F_SETLK, &lock) == 0;
}

int Turn::locked_by(int64_t at) const {
    struct flock lock = of_byte(at);
    return ::fcntl(fd_, F_GETLK, &lock) == 0 && lock.l_type != F_UNLCK ? lock.l_pid : 0;
}

uint64_t Turn::beats() const {
    uint64_t count = 0;
    return ::pread(fd_, &count, sizeof count, kBeats) == sizeof count ? count : 0;
}

bool Turn::try_take() {
    if (lock(kServes)) {
        struct flock next = of_byte(kNext);
        next.l_type = F_UNLCK;
        ::fcntl(fd_, F_SETLK, &next);
        own_ = beats();
        beat();
        return true;
    }
    if (!lock(kNext)) return false;  // another waits before us: it judges
    const int serves = holder();
    const uint64_t now = beats();
    silent_ms_ = now == seen_ && serves == watched_ ? silent_ms_ + kTickMs : 0;
    seen_ = now;
    watched_ = serves;
    if (hung_ms_ > 0 && silent_ms_ >= hung_ms_ && serves > 0) {
        silent_ms_ = 0;
        if (::kill(serves, SIGKILL) == 0) killed_ = serves;
    }
    return false;
}

void Turn::beat() {
    ++own_;
    [[maybe_unused]] const auto done = ::pwrite(fd_, &own_, sizeof own_, kBeats);
}

int Turn::holder() const { return locked_by(kServes); }
bool Turn::successor() const { return locked_by(kNext) != 0; }

}  // namespace parley::router
