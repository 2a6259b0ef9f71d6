#include "http/body_file.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace parley::http {

using base::Errc;
using base::fail;
using base::Result;

Result<std::shared_ptr<BodyFile>> BodyFile::make(const std::string& folder) {
    int fd = ::open(folder.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR)) {
        std::string name = folder + "/upload-XXXXXX";
        fd = ::mkostemp(name.data(), O_CLOEXEC);
        if (fd >= 0) ::unlink(name.c_str());
    }
    if (fd < 0)
        return fail(Errc::io,
                    fmt::format("cannot make a file in '{}': {}", folder, std::strerror(errno)));
    return std::shared_ptr<BodyFile>(new BodyFile(fd));
}

BodyFile::~BodyFile() {
    if (map_) ::munmap(map_, size_);
    ::close(fd_);
}

Result<void> BodyFile::append(std::string_view bytes) {
    while (!bytes.empty()) {
        const ssize_t n = ::write(fd_, bytes.data(), bytes.size());
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0)
            return fail(Errc::io,
                        fmt::format("cannot write a request body: {}", std::strerror(errno)));
        bytes.remove_prefix(static_cast<size_t>(n));
        size_ += static_cast<uint64_t>(n);
    }
    return {};
}

Result<std::string_view> BodyFile::view() {
    if (size_ == 0) return std::string_view{};
    if (!map_) {
        void* map = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, fd_, 0);
        if (map == MAP_FAILED)
            return fail(Errc::io,
                        fmt::format("cannot map a request body: {}", std::strerror(errno)));
        map_ = map;
        ::madvise(map_, size_, MADV_SEQUENTIAL);
    }
    return std::string_view(static_cast<const char*>(map_), size_);
}

void BodyFile::let_go(uint64_t offset) {
    const auto page = static_cast<uint64_t>(::sysconf(_SC_PAGESIZE));
    const uint64_t whole = std::min(offset, size_) / page * page;
    if (map_ && whole > 0) ::madvise(map_, whole, MADV_DONTNEED);
}

}  // namespace parley::http
