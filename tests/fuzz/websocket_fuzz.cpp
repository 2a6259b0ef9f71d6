// Any bytes as a client's frames: whole or byte by byte they mean the same, no message is above its
// bound, and each text is UTF-8. The first byte chooses the bound.
#include <cstdlib>

#include "base/text.hpp"
#include "http/websocket.hpp"
#include "replay_main.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace parley;
    if (size == 0) return 0;
    const uint64_t max = uint64_t{data[0]} * 16;
    const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
    http::WsReader whole(max), pieces(max);
    std::vector<http::WsEvent> one, many;
    const bool good = whole.feed(bytes, one);
    bool each = true;
    for (size_t i = 0; i < bytes.size() && each; ++i) {
        each = pieces.feed(bytes.substr(i, 1), many);
        if (pieces.buffered() > max + 125) std::abort();
    }
    if (good != each || one != many) std::abort();
    if (!good && whole.failure()->code != pieces.failure()->code) std::abort();
    for (const http::WsEvent& event : one) {
        const bool control = event.kind != http::WsKind::text;
        if (event.payload.size() > (control ? 125 : max)) std::abort();
        if ((!control || event.kind == http::WsKind::close) && !base::utf8_valid(event.payload))
            std::abort();
    }
    return 0;
}
