#include "base/log.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>

namespace parley::base {
namespace {

std::atomic<Level> g_least{Level::info};
constexpr size_t kValueMax = 512;

const char* show_level(Level level) {
    switch (level) {
        case Level::debug:
            return "debug";
        case Level::info:
            return "info";
        case Level::warn:
            return "warn";
        case Level::error:
            return "error";
    }
    return "error";
}

void append_value(std::string& out, std::string_view value) {
    bool plain = !value.empty() && value.size() <= kValueMax;
    for (char c : value) {
        const auto byte = static_cast<uint8_t>(c);
        if (byte <= 0x20 || byte >= 0x7f || c == '"' || c == '=' || c == '\\') plain = false;
    }
    if (plain) {
        out += value;
        return;
    }
    out += '"';
    size_t count = 0;
    for (char c : value) {
        if (++count > kValueMax) {
            out += "…";
            break;
        }
        const auto byte = static_cast<uint8_t>(c);
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (c == '\n') {
            out += "\\n";
        } else if (byte < 0x20 || byte == 0x7f) {
            out += fmt::format("\\x{:02x}", byte);
        } else {
            out += c;
        }
    }
    out += '"';
}

}  // namespace

std::string Field::show(double value, bool integral) {
    return integral ? fmt::format("{:.0f}", value) : fmt::format("{:.6g}", value);
}

void log_level(Level least) { g_least = least; }

Result<Level> parse_level(std::string_view name) {
    for (Level level : {Level::debug, Level::info, Level::warn, Level::error}) {
        if (name == show_level(level)) return level;
    }
    return fail(Errc::usage,
                fmt::format("'{}' is not a log level: debug, info, warn, error", name));
}

std::string log_line(Level level, std::string_view event, std::initializer_list<Field> fields) {
    std::string line = fmt::format("level={} event={}", show_level(level), event);
    for (const Field& field : fields) {
        line += ' ';
        line += field.key;
        line += '=';
        append_value(line, field.value);
    }
    return line;
}

void log(Level level, std::string_view event, std::initializer_list<Field> fields) {
    if (level < g_least.load(std::memory_order_relaxed)) return;
    std::string line = log_line(level, event, fields);
    line += '\n';
    [[maybe_unused]] const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
}

}  // namespace parley::base
