// Log: one event a line on stderr, logfmt: level=info event=worker.ready model=smol kv_blocks=4096
//
// Libraries do not log; tools do. User text, prompts, keys and passwords never stand in a value.
// Bounds   a value is cut at 512 bytes, with "…"; control characters are escaped.
// Threads  any; a line is one write().
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "base/result.hpp"

namespace parley::base {

enum class Level { debug, info, warn, error };

struct Field {
    std::string_view key;
    std::string value;

    Field(std::string_view k, std::string_view v) : key(k), value(v) {}
    Field(std::string_view k, const std::string& v) : key(k), value(v) {}
    Field(std::string_view k, const char* v) : key(k), value(v) {}
    Field(std::string_view k, bool v) : key(k), value(v ? "true" : "false") {}
    template <class T>
    requires std::is_arithmetic_v<T> Field(std::string_view k, T v)
        : key(k), value(show(static_cast<double>(v), std::is_integral_v<T>)) {}

  private:
    static std::string show(double value, bool integral);
};

void log_level(Level least);                       // default info
Result<Level> parse_level(std::string_view name);  // debug, info, warn, error
void log(Level level, std::string_view event, std::initializer_list<Field> fields = {});
// The line itself, without the newline; what tests read.
std::string log_line(Level level, std::string_view event, std::initializer_list<Field> fields);

}  // namespace parley::base
