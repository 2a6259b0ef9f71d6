#include "pipe/key_files.hpp"

#include <fmt/format.h>
#include <zmq.h>

#include <algorithm>
#include <array>

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

}  // namespace parley::pipe
