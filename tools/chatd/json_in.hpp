// JsonIn: a small request body, read by name with the wire contract's error texts.
//
// Errors   the first offence is kept: "path: Input should be …". null means absent.
// Bounds   depth 128 (simdjson refuses deeper), size is the server's.
// Threads  one per object.
#pragma once

#include <simdjson.h>

#include <optional>
#include <string>
#include <string_view>

#include "messages/error.hpp"

namespace parley::chatd {

class JsonIn {
  public:
    // An empty body is an empty object.
    explicit JsonIn(std::string_view json);
    std::optional<std::string> text(std::string_view name, size_t bytes_max = 1024);
    std::optional<bool> flag(std::string_view name);
    // Compact JSON of a member, whatever it is; nullopt when absent. null counts as absent.
    std::optional<std::string> raw(std::string_view name);
    std::optional<std::string> object(std::string_view name, size_t bytes_max = 64u << 10);
    bool has(std::string_view name);      // present, null included
    bool is_null(std::string_view name);  // present and null
    void refuse(std::string_view path, std::string_view why);
    const std::optional<messages::ApiError>& error() const { return error_; }

  private:
    std::optional<simdjson::dom::element> member(std::string_view name);
    simdjson::dom::parser parser_{256u << 20};
    simdjson::dom::object object_;
    bool there_ = false;
    std::optional<messages::ApiError> error_;
};

// The raw JSON of a member of an object that we trust; "" when absent.
std::string member_json(std::string_view json, std::string_view name);

}  // namespace parley::chatd
