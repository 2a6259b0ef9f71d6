// Entries: the requests of a batch's body, one after the other, without a document of the whole.
//
// The body is {"requests":[…], …}; each entry is {"custom_id":…,"params":{…}}. next() finds where one
// ends, and has simdjson read just that. Other members of the body are looked at and ignored.
// Errors   ApiError (400): what is not JSON, the wrong type, a custom_id that is none or came before, none or
//          more than entries_max. The params themselves are not looked at: what is wrong in them is the
//          entry's own result.
// Memory   the entry at hand, and 16 bytes for each custom_id where twins are looked for.
// Threads  values; one at a time.
#pragma once

#include <simdjson.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <unordered_set>

#include "messages/error.hpp"

namespace parley::batches {

struct Entry {
    std::string custom_id;
    std::string params;  // JSON object, minified; "" for one over entry_bytes_max
};

struct EntriesOptions {
    uint32_t entries_max = 100'000;
    uint64_t entry_bytes_max = 4u << 20;
    uint32_t depth_max = 128;
    bool find_twins = true;
};

class Entries {
  public:
    explicit Entries(std::string_view body, EntriesOptions options = {});
    // nullopt after the last; the whole body has been looked at then.
    tl::expected<std::optional<Entry>, messages::ApiError> next();
    uint64_t offset() const { return at_; }  // bytes that are behind us
    uint32_t count() const { return count_; }

  private:
    using Failure = tl::unexpected<messages::ApiError>;
    Failure not_json(std::string_view why) const;
    void space();
    bool take(char c);
    // The value that begins here, by its end: brackets and strings are counted, nothing else is looked at.
    std::string_view value();
    tl::expected<void, messages::ApiError> begin();
    tl::expected<void, messages::ApiError> members();  // up to `requests`, or to the end
    tl::expected<Entry, messages::ApiError> read(std::string_view json);
    std::string path(std::string_view leaf = "") const;

    std::string_view body_;
    EntriesOptions options_;
    uint64_t at_ = 0;
    uint32_t count_ = 0;
    enum class Where : uint8_t { start, members, entries, end } where_ = Where::start;
    bool seen_requests_ = false;
    bool first_ = true;  // of the members or entries at hand
    simdjson::dom::parser parser_;
    std::unordered_set<std::string> twins_;
};

}  // namespace parley::batches
