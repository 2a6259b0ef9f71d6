#include "pipe/endpoint.hpp"

#include <fmt/format.h>
#include <sys/stat.h>

#include <cerrno>

namespace parley::pipe {

using base::Errc;
using base::fail;
using base::Result;

bool takes_curve(std::string_view endpoint) { return endpoint.rfind("tcp://", 0) == 0; }

bool leaves_machine(std::string_view endpoint) {
    if (endpoint.rfind("tcp://", 0) != 0) return false;
    const std::string_view host = endpoint.substr(6, endpoint.rfind(':') - 6);
    return !(host.rfind("127.", 0) == 0 || host == "localhost" || host == "[::1]");
}

Result<void> check_endpoint(const std::string& endpoint, bool has_curve) {
    if (endpoint.rfind("ipc://", 0) == 0) {
        if (const size_t bytes = endpoint.size() - 6; bytes == 0 || bytes > 107)
            return fail(Errc::config, fmt::format("socket path of '{}' has {} bytes, allowed are 1 "
                                                  "to 107: choose a shorter state folder",
                                                  endpoint, bytes));
        return {};
    }
    if (endpoint.rfind("inproc://", 0) == 0) return {};
    if (endpoint.rfind("tcp://", 0) != 0)
        return fail(
            Errc::config,
            fmt::format("'{}' is not an endpoint: ipc://PATH or tcp://HOST:PORT", endpoint));
    if (leaves_machine(endpoint) && !has_curve)
        return fail(Errc::config,
                    fmt::format("'{}' is beyond loopback: refused without CURVE keys", endpoint));
    return {};
}

Result<std::optional<base::LockFile>> prepare_bind(const std::string& endpoint) {
    using Out = std::optional<base::LockFile>;
    if (endpoint.rfind("ipc://", 0) != 0) return Out{};
    const std::string path = endpoint.substr(6);
    if (const size_t slash = path.rfind('/'); slash != std::string::npos && slash > 0) {
        const std::string folder = path.substr(0, slash);
        if (auto made = base::make_dirs(folder); !made) return fail(made.error());
        struct stat info {};
        if (::stat(folder.c_str(), &info) != 0)
            return fail(base::errno_error(errno, fmt::format("cannot stat '{}'", folder)));
        if ((info.st_mode & 077) != 0)
            return fail(Errc::config,
                        fmt::format("folder '{}' is open to other users: chmod 700 it", folder));
    }
    auto lock = base::LockFile::take(path + ".lock");
    if (!lock) return fail(fmt::format("cannot bind '{}'", endpoint), lock.error());
    return Out{std::move(*lock)};
}

}  // namespace parley::pipe
