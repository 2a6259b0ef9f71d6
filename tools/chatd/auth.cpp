#include "auth.hpp"

#include <algorithm>

#include "base/text.hpp"
#include "session/token.hpp"
#include "store/secret.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

bool Caller::may_use(std::string_view scope) const {
    return scopes.empty() || std::find(scopes.begin(), scopes.end(), scope) != scopes.end();
}

bool Caller::may_ask(std::string_view model) const {
    return models.empty() || std::find(models.begin(), models.end(), model) != models.end();
}

namespace {

// Limits that cannot be read cannot be kept: nobody gets in on them.
std::optional<ApiError> read_limits(const std::string& json, limits::Written& out) {
    auto read = limits::parse_limits(json);
    if (!read)
        return ApiError::of(ErrorType::api_error,
                            "the limits of this key or its organization cannot be read");
    out = *read;
    return std::nullopt;
}

ApiError store_away() { return ApiError::unavailable("the store is not ready", 1); }

std::string secret_of(const http::Headers& headers) {
    const std::string_view key = headers.get("x-api-key");
    if (!key.empty()) return std::string(key);
    const std::string_view authorization = headers.get("authorization");
    if (authorization.size() > 7 &&
        http::equal_ignoring_case(authorization.substr(0, 7), "bearer "))
        return std::string(authorization.substr(7));
    return {};
}

}  // namespace

bool Auth::ours(const http::Request& head) const {
    return session::origin_is_ours(head.headers.get("origin"), head.headers.get("host"), head.tls,
                                   origins_);
}

std::optional<ApiError> Auth::check_origin(const http::Request& head, bool by_cookie) const {
    if (head.method == "GET" || head.method == "HEAD" || ours(head)) return std::nullopt;
    // Programs say no origin; with a cookie there are none but browsers.
    if (!by_cookie && !head.headers.has("origin")) return std::nullopt;
    return ApiError::of(ErrorType::permission_error, "the request comes from another site");
}

tl::expected<Caller, ApiError> Auth::look_up(const std::string& secret, store::Reader& reader) {
    if (session::is_token(secret)) {
        auto row = reader.session(secret, clock_.wall_ms());
        if (!row && row.error().code != base::Errc::not_found &&
            row.error().code != base::Errc::denied)
            return tl::make_unexpected(store_away());
        if (!row)
            return tl::make_unexpected(
                ApiError::of(ErrorType::authentication_error, "this session is over: log in"));
        Caller caller;
        caller.org = row->org;
        caller.user = row->user;
        caller.user_name = row->user_name;
        caller.session = base::hex(store::api_key_hash(secret, reader.pepper()));
        caller.session_renewed_ms = row->renewed_ms;
        caller.session_expires_ms = row->expires_ms;
        if (auto org = reader.org(row->org)) {
            caller.weight = org->weight;
            auto limits = std::make_shared<CallerLimits>();
            if (auto error = read_limits(org->limits, limits->org))
                return tl::make_unexpected(*error);
            caller.limits = std::move(limits);
        }
        return caller;
    }
    auto row = reader.api_key(secret, clock_.wall_ms());
    if (!row) {
        if (row.error().code == base::Errc::not_found || row.error().code == base::Errc::denied)
            return tl::make_unexpected(
                ApiError::of(ErrorType::authentication_error, "invalid x-api-key"));
        return tl::make_unexpected(store_away());
    }
    Caller caller;
    caller.org = row->org;
    caller.user = row->user;
    caller.user_name = row->user_name;
    caller.key_id = store::show_id(store::kKey, row->id);
    caller.scopes = row->scopes;
    caller.models = row->models;
    caller.service_class = row->service_class;
    auto limits = std::make_shared<CallerLimits>();
    limits->has_key = true;
    limits->key_root = row->first.value_or(row->id);
    if (auto error = read_limits(row->limits, limits->key)) return tl::make_unexpected(*error);
    if (auto org = reader.org(row->org)) {
        caller.weight = org->weight;
        if (auto error = read_limits(org->limits, limits->org)) return tl::make_unexpected(*error);
    }
    caller.limits = std::move(limits);
    return caller;
}

tl::expected<std::shared_ptr<const CallerLimits>, ApiError> Auth::limits_of(const store::Ulid& org,
                                                                            std::string_view key_id,
                                                                            store::Reader& reader) {
    auto limits = std::make_shared<CallerLimits>();
    const auto row = reader.org(org);
    if (!row && row.error().code != base::Errc::not_found) return tl::make_unexpected(store_away());
    if (row)
        if (auto error = read_limits(row->limits, limits->org)) return tl::make_unexpected(*error);
    if (key_id.empty()) return limits;
    const auto keys = reader.api_keys(org);
    if (!keys) return tl::make_unexpected(store_away());
    for (const store::ApiKeyRow& key : *keys) {
        if (store::show_id(store::kKey, key.id) != key_id) continue;
        limits->has_key = true;
        limits->key_root = key.first.value_or(key.id);
        if (auto error = read_limits(key.limits, limits->key)) return tl::make_unexpected(*error);
    }
    return limits;
}

tl::expected<Caller, ApiError> Auth::check(const http::Request& head, store::Reader* reader) {
    const http::Headers& headers = head.headers;
    Caller caller;
    if (no_auth_) {
        caller.user_name = "default";
        if (reader)
            if (auto orgs = reader->orgs(); orgs && !orgs->empty()) {
                caller.org = orgs->front().id;
                caller.weight = orgs->front().weight;
                auto limits = std::make_shared<CallerLimits>();
                if (auto error = read_limits(orgs->front().limits, limits->org))
                    return tl::make_unexpected(*error);
                caller.limits = std::move(limits);
            }
        caller.user = store::user_id(caller.org, caller.user_name);
        if (auto refused = check_origin(head, false)) return tl::make_unexpected(*refused);
    } else {
        std::string secret = secret_of(headers);
        const bool by_cookie = secret.empty();
        if (by_cookie)
            if (const auto cookie = session::cookie_of(headers.get("cookie"));
                session::is_token(cookie))
                secret = cookie;
        if (secret.empty())
            return tl::make_unexpected(
                ApiError::of(ErrorType::authentication_error, "x-api-key header is required"));
        const std::string hash = base::sha256(secret);
        const int64_t now = clock_.mono_ms();
        if (const auto known = known_.find(hash);
            known != known_.end() && known->second.until_ms > now) {
            caller = known->second.caller;
        } else {
            if (!reader) return tl::make_unexpected(store_away());
            auto found = look_up(secret, *reader);
            if (!found) {
                known_.erase(hash);
                return found;
            }
            caller = std::move(*found);
            if (known_.size() >= kCacheMax) known_.clear();
            known_[hash] = {caller, now + kCacheMs};
        }
        caller.by_cookie = by_cookie;
        if (by_cookie)
            if (auto refused = check_origin(head, true)) return tl::make_unexpected(*refused);
        // A session is one user's.
        if (!caller.session.empty()) return caller;
    }
    if (const std::string* name = headers.find("x-user-id"); name && !name->empty()) {
        if (name->size() > kUserNameMax || !base::utf8_valid(*name))
            return tl::make_unexpected(
                ApiError::invalid("x-user-id", "at most 128 bytes of UTF-8 are possible"));
        caller.user_name = *name;
        caller.user = store::user_id(caller.org, *name);
    }
    return caller;
}

}  // namespace parley::chatd
