#include "stamp/stamp.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/file.hpp"
#include "base/text.hpp"

namespace parley::stamp {

using base::Errc;
using base::fail;
using base::Result;

Result<Key> Key::open(const std::string& path) {
    struct stat info {};
    if (::stat(path.c_str(), &info) != 0)
        return fail(base::errno_error(errno, fmt::format("cannot open stamp key '{}'", path)));
    if ((info.st_mode & 077) != 0)
        return fail(Errc::config,
                    fmt::format("stamp key '{}' can be read by others: chmod 600 it", path));
    auto bytes = base::read_file(path, 4096);
    if (!bytes) return fail(bytes.error());
    if (bytes->size() != kBytes)
        return fail(Errc::corrupt, fmt::format("stamp key '{}' has {} bytes, not {}", path,
                                               bytes->size(), kBytes));
    Key key;
    std::memcpy(key.bytes_.data(), bytes->data(), kBytes);
    return key;
}

Result<Key> Key::open_or_make(const std::string& path) {
    // Written under a name of its own and linked into place: a reader never meets half a key, and
    // the second of two filters that start together finds the first one's.
    const std::string temporary = fmt::format("{}.{}", path, ::getpid());
    const int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (fd < 0) return fail(base::errno_error(errno, fmt::format("cannot create '{}'", temporary)));
    std::array<uint8_t, kBytes> fresh{};
    randombytes_buf(fresh.data(), fresh.size());
    const bool written =
        ::write(fd, fresh.data(), fresh.size()) == static_cast<ssize_t>(fresh.size()) &&
        ::fsync(fd) == 0;
    const int write_errno = errno;
    ::close(fd);
    if (!written) {
        ::unlink(temporary.c_str());
        return fail(base::errno_error(write_errno, fmt::format("cannot write '{}'", temporary)));
    }
    const int linked = ::link(temporary.c_str(), path.c_str());
    const int link_errno = errno;
    ::unlink(temporary.c_str());
    if (linked != 0 && link_errno != EEXIST)
        return fail(
            base::errno_error(link_errno, fmt::format("cannot create stamp key '{}'", path)));
    return open(path);
}

Key Key::from_bytes(const std::array<uint8_t, kBytes>& bytes) {
    Key key;
    key.bytes_ = bytes;
    return key;
}

Chain::Chain(const Key& key, std::string request_id, uint32_t attempt)
    : key_(key), id_(std::move(request_id)), attempt_(attempt) {}

std::array<uint8_t, 32> Chain::compute(uint64_t seq, std::string_view policy,
                                       std::string_view event) const {
    crypto_generichash_state state;
    crypto_generichash_init(&state, key_.bytes_.data(), key_.bytes_.size(), 32);
    const auto number = [&state](uint64_t value) {
        uint8_t bytes[8];
        for (int i = 0; i < 8; ++i) bytes[i] = static_cast<uint8_t>(value >> (56 - 8 * i));
        crypto_generichash_update(&state, bytes, sizeof bytes);
    };
    const auto part = [&](std::string_view text) {
        number(text.size());
        crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(text.data()),
                                  text.size());
    };
    part(id_);
    number(attempt_);
    number(seq);
    crypto_generichash_update(&state, mac_.data(), mac_.size());
    part(policy);
    part(event);
    std::array<uint8_t, 32> mac{};
    crypto_generichash_final(&state, mac.data(), mac.size());
    return mac;
}

std::string Chain::next(uint64_t seq, std::string_view policy, std::string_view event) {
    mac_ = compute(seq, policy, event);
    return base::hex({reinterpret_cast<const char*>(mac_.data()), mac_.size()});
}

bool Chain::check(uint64_t seq, std::string_view policy, std::string_view event,
                  std::string_view stamp) {
    if (broken_) return false;
    const auto mac = compute(seq, policy, event);
    if (!base::equal_constant_time(
            base::hex({reinterpret_cast<const char*>(mac.data()), mac.size()}), stamp)) {
        broken_ = true;
        return false;
    }
    mac_ = mac;
    return true;
}

}  // namespace parley::stamp
