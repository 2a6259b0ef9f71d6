#include "pipe/key_files.hpp"

#include <fmt/format.h>
#include <fcntl.h>
#include <unistd.h>
#include <zmq.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "base/file.hpp"

namespace parley::pipe {

using base::Errc;
using base::fail;

base::Result<std::vector<std::string>> read_allowed_keys(const std::string& path) {
    auto text = base::read_file(path, 1 << 20);
    if (!text) return fail(text.error());
    std::vector<std::string> keys;
    size_t number = 0;
    for (size_t at = 0; at < text->size();) {
        const size_t end = std::min(text->find('\n', at), text->size());
        const std::string line = text->substr(at, end - at);
        at = end + 1;
        ++number;
        if (line.empty()) continue;
        std::array<uint8_t, 32> bytes{};
        if (line.size() != 40 || zmq_z85_decode(bytes.data(), line.c_str()) == nullptr)
            return fail(Errc::config, fmt::format("'{}' line {}: not a key of 40 characters of Z85",
                                                  path, number));
        keys.push_back(line);
    }
    if (keys.empty())
        return fail(Errc::config, fmt::format("'{}' lists no key: nobody could connect", path));
    return keys;
}

base::Result<CurvePair> make_key_files(const std::string& path) {
    const CurvePair pair = make_curve_pair();
    const int fd = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 && errno == EEXIST)
        return fail(Errc::conflict,
                    fmt::format("'{}' exists: a key is never written over, name another file", path));
    if (fd < 0) return fail(base::errno_error(errno, fmt::format("cannot create key '{}'", path)));
    const std::string line = pair.secret_key + "\n";
    const bool whole = ::write(fd, line.data(), line.size()) == static_cast<ssize_t>(line.size());
    const bool synced = whole && ::fsync(fd) == 0;
    const int why = errno;
    ::close(fd);
    if (!synced) {
        ::unlink(path.c_str());
        return fail(base::errno_error(why, fmt::format("cannot write key '{}'", path)));
    }
    if (auto written = base::write_file(path + ".pub", pair.public_key + "\n"); !written) {
        ::unlink(path.c_str());
        return fail(written.error());
    }
    return pair;
}

}  // namespace parley::pipe
