#include "load/sse.hpp"

#include <fmt/format.h>

#include <charconv>

namespace parley::load {

void SseParser::reset() {
    partial_.clear();
    name_.clear();
    data_.clear();
    has_data_ = after_cr_ = stopped_ = broken_ = false;
    at_start_ = true;
}

base::Result<void> SseParser::feed(std::string_view bytes, SseHandler& handler) {
    const auto too_large = [this]() -> base::Result<void> {
        broken_ = true;
        return base::fail(base::Errc::too_large,
                          fmt::format("a stream event is larger than {} bytes", event_bytes_max_));
    };
    if (broken_) return too_large();
    while (!bytes.empty() && !stopped_) {
        if (after_cr_) {
            after_cr_ = false;
            if (bytes.front() == '\n') {
                bytes.remove_prefix(1);
                continue;
            }
        }
        const size_t end = bytes.find_first_of("\r\n");
        const std::string_view piece = bytes.substr(0, end);
        if (partial_.size() + piece.size() + data_.size() > event_bytes_max_) return too_large();
        if (end == std::string_view::npos) {
            partial_ += piece;
            return {};
        }
        after_cr_ = bytes[end] == '\r';
        bytes.remove_prefix(end + 1);
        bool more = true;
        if (partial_.empty()) {
            more = line(piece, handler);
        } else {
            partial_ += piece;
            more = line(partial_, handler);
            partial_.clear();
        }
        if (!more) stopped_ = true;
    }
    return {};
}

bool SseParser::line(std::string_view text, SseHandler& handler) {
    if (at_start_) {
        at_start_ = false;
        if (text.starts_with("\xef\xbb\xbf")) text.remove_prefix(3);
    }
    if (text.empty()) {
        bool more = true;
        if (has_data_) more = handler.on_event(name_, data_);
        name_.clear();
        data_.clear();
        has_data_ = false;
        return more;
    }
    if (text.front() == ':') {
        handler.on_comment(text.substr(1));
        return true;
    }
    const size_t colon = text.find(':');
    const std::string_view field = text.substr(0, colon);
    std::string_view value =
        colon == std::string_view::npos ? std::string_view() : text.substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
    if (field == "event") {
        name_ = value;
    } else if (field == "data") {
        if (has_data_) data_ += '\n';
        data_ += value;
        has_data_ = true;
    }
    return true;
}

int64_t stamp_of_comment(std::string_view text) {
    if (!text.starts_with(" t=")) return -1;
    text.remove_prefix(3);
    int64_t value = -1;
    const auto [rest, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || rest != text.data() + text.size() || value < 0) return -1;
    return value;
}

}  // namespace parley::load
