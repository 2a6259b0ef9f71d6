#include "batches/entries.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>

#include "messages/json_read.hpp"

namespace parley::batches {

using messages::ApiError;
namespace json = messages::json;

namespace {

constexpr size_t kOtherMemberMax = 1u << 20;
constexpr std::string_view kRequests = "requests";

bool custom_id_fits(std::string_view id) {
    return !id.empty() && id.size() <= 64 && std::all_of(id.begin(), id.end(), [](unsigned char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
               c == '_' || c == '-';
    });
}

std::string short_hash(std::string_view text) {
    std::string out(16, '\0');
    crypto_generichash(reinterpret_cast<uint8_t*>(out.data()), out.size(),
                       reinterpret_cast<const uint8_t*>(text.data()), text.size(), nullptr, 0);
    return out;
}

}  // namespace

Entries::Entries(std::string_view body, EntriesOptions options) : body_(body), options_(options) {}

Entries::Failure Entries::not_json(std::string_view why) const {
    return Failure(ApiError::invalid("The request body is not valid JSON: " + std::string(why)));
}

std::string Entries::path(std::string_view leaf) const {
    return fmt::format("requests.{}{}{}", count_, leaf.empty() ? "" : ".", leaf);
}

void Entries::space() {
    while (at_ < body_.size() &&
           (body_[at_] == ' ' || body_[at_] == '\t' || body_[at_] == '\n' || body_[at_] == '\r'))
        ++at_;
}

bool Entries::take(char c) {
    space();
    if (at_ >= body_.size() || body_[at_] != c) return false;
    ++at_;
    return true;
}

std::string_view Entries::value() {
    space();
    const uint64_t from = at_;
    uint64_t depth = 0;
    while (at_ < body_.size()) {
        const char c = body_[at_];
        if (c == '"') {
            ++at_;
            while (at_ < body_.size() && body_[at_] != '"') at_ += body_[at_] == '\\' ? 2 : 1;
            at_ = std::min<uint64_t>(at_ + 1, body_.size());
        } else if (c == '{' || c == '[') {
            ++depth;
            ++at_;
            continue;
        } else if (c == '}' || c == ']') {
            if (depth == 0) break;
            --depth;
            ++at_;
        } else if (depth == 0 &&
                   (c == ',' || c == ':' || c == ' ' || c == '\t' || c == '\n' || c == '\r')) {
            break;
        } else {
            ++at_;
            // A number or word goes on; it ends where something else begins.
            if (depth == 0) continue;
            continue;
        }
        if (depth == 0) break;
    }
    return body_.substr(from, at_ - from);
}

tl::expected<void, ApiError> Entries::members() {
    for (;;) {
        if (first_ ? take('}') : !take(',')) {
            if (!first_ && !take('}')) return not_json("expected ',' or '}'");
            break;
        }
        first_ = false;
        const std::string_view key = value();
        std::string_view name;
        json::dom::element element;
        if (key.empty() || key.size() > kOtherMemberMax ||
            parser_.parse(simdjson::padded_string(key)).get(element) || element.get(name) ||
            !take(':'))
            return not_json("expected a member");
        if (name == kRequests) {
            if (seen_requests_) return not_json("duplicate key 'requests'");
            seen_requests_ = true;
            space();
            if (at_ == body_.size()) return not_json("expected a value");
            if (!take('['))
                return Failure(ApiError::invalid(kRequests, "Input should be a valid list"));
            where_ = Where::entries;
            first_ = true;
            return {};
        }
        const std::string_view other = value();
        if (other.empty() || other.size() > kOtherMemberMax ||
            parser_.parse(simdjson::padded_string(other)).get(element))
            return not_json("a member that is none, or over 1 MiB");
    }
    space();
    if (at_ != body_.size()) return not_json("bytes after the object");
    where_ = Where::end;
    if (!seen_requests_) return Failure(ApiError::invalid(kRequests, "Field required"));
    if (count_ == 0)
        return Failure(ApiError::invalid(kRequests, "List should have at least 1 item"));
    return {};
}

tl::expected<void, ApiError> Entries::begin() {
    if (parser_.allocate(64u << 10, options_.depth_max)) return not_json("no memory");
    if (!take('{')) {
        space();
        if (at_ == body_.size()) return not_json("the body is empty");
        return Failure(ApiError::invalid("The request body should be a JSON object"));
    }
    where_ = Where::members;
    first_ = true;
    return {};
}

tl::expected<std::optional<Entry>, ApiError> Entries::next() {
    if (where_ == Where::start)
        if (auto begun = begin(); !begun) return Failure(begun.error());
    for (;;) {
        if (where_ == Where::end) return std::nullopt;
        if (where_ == Where::members) {
            if (auto read = members(); !read) return Failure(read.error());
            continue;
        }
        if (first_ ? take(']') : !take(',')) {
            if (!first_ && !take(']')) return not_json("expected ',' or ']'");
            where_ = Where::members;
            first_ = false;
            continue;
        }
        first_ = false;
        const std::string_view text = value();
        if (text.empty()) return not_json("expected an entry");
        if (count_ >= options_.entries_max)
            return Failure(ApiError::invalid(
                kRequests, fmt::format("List should have at most {} items", options_.entries_max)));
        auto entry = read(text);
        if (!entry) return Failure(entry.error());
        ++count_;
        return std::optional<Entry>(std::move(*entry));
    }
}

tl::expected<Entry, ApiError> Entries::read(std::string_view text) {
    if (parser_.capacity() < text.size() &&
        parser_.allocate(text.size() + text.size() / 2, options_.depth_max))
        return not_json("no memory");
    json::dom::element element;
    if (const auto error = parser_.parse(simdjson::padded_string(text)).get(element))
        return not_json(path() + ": " + simdjson::error_message(error));
    json::dom::object object, params;
    if (element.get(object)) return Failure(ApiError::invalid(path(), "Input should be an object"));
    size_t ids = 0, bodies = 0;
    for (const auto field : object) {
        ids += field.key == "custom_id";
        bodies += field.key == "params";
    }
    if (ids > 1 || bodies > 1) return not_json(path() + ": duplicate key");
    json::dom::element value;
    std::string_view id;
    if (object.at_key("custom_id").get(value))
        return Failure(ApiError::invalid(path("custom_id"), "Field required"));
    if (value.get(id))
        return Failure(ApiError::invalid(path("custom_id"), "Input should be a valid string"));
    if (!custom_id_fits(id))
        return Failure(ApiError::invalid(path("custom_id"),
                                         "String should match pattern '^[a-zA-Z0-9_-]{1,64}$'"));
    if (object.at_key("params").get(value))
        return Failure(ApiError::invalid(path("params"), "Field required"));
    if (value.get(params))
        return Failure(ApiError::invalid(path("params"), "Input should be an object"));
    if (options_.find_twins && !twins_.insert(short_hash(id)).second)
        return Failure(ApiError::invalid(path("custom_id"), "custom_id should be unique"));
    Entry entry;
    entry.custom_id = id;
    if (text.size() <= options_.entry_bytes_max) entry.params = simdjson::minify(value);
    return entry;
}

}  // namespace parley::batches
