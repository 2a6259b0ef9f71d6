#include "base/file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <utility>

namespace parley::base {
namespace {

struct Fd {
    int fd;
    ~Fd() {
        if (fd >= 0) ::close(fd);
    }
};

}  // namespace

Result<std::string> read_file(const std::string& path, uint64_t bytes_max) {
    const Fd file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) return fail(errno_error(errno, fmt::format("cannot open '{}'", path)));
    struct stat info {};
    if (::fstat(file.fd, &info) != 0)
        return fail(errno_error(errno, fmt::format("cannot stat '{}'", path)));
    if (static_cast<uint64_t>(info.st_size) > bytes_max)
        return fail(Errc::too_large,
                    fmt::format("'{}' has {} bytes, more than {}", path, info.st_size, bytes_max));
    std::string out;
    char buffer[65536];
    while (true) {
        const ssize_t got = ::read(file.fd, buffer, sizeof buffer);
        if (got < 0 && errno == EINTR) continue;
        if (got < 0) return fail(errno_error(errno, fmt::format("cannot read '{}'", path)));
        if (got == 0) return out;
        if (out.size() + static_cast<size_t>(got) > bytes_max)
            return fail(Errc::too_large,
                        fmt::format("'{}' has more than {} bytes", path, bytes_max));
        out.append(buffer, static_cast<size_t>(got));
    }
}

Result<void> write_file(const std::string& path, std::string_view bytes, int mode) {
    const std::string temporary = fmt::format("{}.tmp.{}", path, ::getpid());
    {
        const Fd file{::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode)};
        if (file.fd < 0)
            return fail(errno_error(errno, fmt::format("cannot create '{}'", temporary)));
        size_t done = 0;
        while (done < bytes.size()) {
            const ssize_t put = ::write(file.fd, bytes.data() + done, bytes.size() - done);
            if (put < 0 && errno == EINTR) continue;
            if (put < 0) {
                const int saved = errno;
                ::unlink(temporary.c_str());
                return fail(errno_error(saved, fmt::format("cannot write '{}'", temporary)));
            }
            done += static_cast<size_t>(put);
        }
        if (::fsync(file.fd) != 0)
            return fail(errno_error(errno, fmt::format("cannot sync '{}'", temporary)));
    }
    if (::rename(temporary.c_str(), path.c_str()) != 0)
        return fail(errno_error(errno, fmt::format("cannot rename onto '{}'", path)));
    const std::string folder =
        path.find('/') == std::string::npos ? "." : path.substr(0, path.rfind('/') + 1);
    const Fd dir{::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
    if (dir.fd >= 0) ::fsync(dir.fd);
    return {};
}

Result<void> make_dirs(const std::string& path) {
    for (size_t at = 1; at <= path.size(); ++at) {
        if (at != path.size() && path[at] != '/') continue;
        const std::string part = path.substr(0, at);
        if (::mkdir(part.c_str(), 0700) != 0 && errno != EEXIST)
            return fail(errno_error(errno, fmt::format("cannot create folder '{}'", part)));
    }
    return {};
}

Result<LockFile> LockFile::take(const std::string& path) {
    const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0) return fail(errno_error(errno, fmt::format("cannot open lock '{}'", path)));
    if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
        char pid[32] = {};
        [[maybe_unused]] const ssize_t got = ::read(fd, pid, sizeof pid - 1);
        ::close(fd);
        return fail(
            Errc::conflict,
            fmt::format("'{}' is held by process {}: stop it, or choose another place", path, pid));
    }
    const std::string pid = fmt::format("{}", ::getpid());
    if (::ftruncate(fd, 0) != 0 || ::write(fd, pid.data(), pid.size()) < 0) {
        const int saved = errno;
        ::close(fd);
        return fail(errno_error(saved, fmt::format("cannot write lock '{}'", path)));
    }
    return LockFile(fd);
}

LockFile::LockFile(LockFile&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
LockFile& LockFile::operator=(LockFile&& other) noexcept {
    std::swap(fd_, other.fd_);
    return *this;
}
LockFile::~LockFile() {
    if (fd_ >= 0) ::close(fd_);
}

std::string state_dir_from_env() {
    const auto get = [](const char* name) {
        const char* value = std::getenv(name);
        return std::string(value ? value : "");
    };
    if (auto state = get("PARLEY_STATE"); !state.empty()) return state;
    if (auto xdg = get("XDG_STATE_HOME"); !xdg.empty()) return xdg + "/parley";
    return get("HOME") + "/.local/state/parley";
}

}  // namespace parley::base
