// Fields: members of a JSON object into C++ values, with one error for the first that does not fit.
//
// Absent and null members leave the value alone, unless `need`. Copies everything: the document may go
// afterwards. For lib/store's own files.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "store/ids.hpp"

namespace parley::store {

enum class RawKind { any, object, array, system };

class Fields {
  public:
    explicit Fields(simdjson::dom::object object) : object_(object) {}

    Fields& text(std::string_view name, std::string& out, bool need = false);
    Fields& text(std::string_view name, std::optional<std::string>& out);
    Fields& flag(std::string_view name, bool& out);
    Fields& flag(std::string_view name, std::optional<bool>& out);
    Fields& real(std::string_view name, double& out);
    Fields& raw(std::string_view name, std::string& out, RawKind kind = RawKind::any);
    Fields& raw(std::string_view name, std::optional<std::string>& out, RawKind kind);
    Fields& id(std::string_view name, std::string_view prefix, Ulid& out);  // needed
    Fields& id(std::string_view name, std::string_view prefix, std::optional<Ulid>& out);
    Fields& list(std::string_view name, std::vector<std::string>& out);
    Fields& list(std::string_view name, std::optional<std::vector<std::string>>& out);
    Fields& list(std::string_view name, std::vector<int32_t>& out);
    template <class T>
    requires(std::is_integral_v<T> &&
             !std::is_same_v<T, bool>) Fields& number(std::string_view name, T& out) {
        int64_t low = std::is_signed_v<T> ? static_cast<int64_t>(std::numeric_limits<T>::min()) : 0;
        uint64_t high = static_cast<uint64_t>(std::numeric_limits<T>::max());
        int64_t value = 0;
        if (integer(name, low, high, value)) out = static_cast<T>(value);
        return *this;
    }
    Fields& number(std::string_view name, std::optional<uint64_t>& out);

    bool ok() const { return error_.empty(); }
    const std::string& error() const { return error_; }
    Fields& fault(std::string_view name, std::string_view want);

  private:
    bool find(std::string_view name, simdjson::dom::element& out);
    // The bits of a uint64_t above INT64_MAX come back as a negative number.
    bool integer(std::string_view name, int64_t low, uint64_t high, int64_t& out);

    simdjson::dom::object object_;
    std::string error_;
};

}  // namespace parley::store
