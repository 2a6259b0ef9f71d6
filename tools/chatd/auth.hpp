// Auth: who is calling: the key's org, the end user that it speaks for, and what it may do; or the user
// of a session.
//
// A key or session that was good is believed for kCacheMs, so that a revoked one stops within that time.
// Other sites  a request that changes something, known by its cookie (or by nothing, without auth), must
//          come from a page of ours: its Origin says so, or 403.
// Threads  the loop's.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "base/clock.hpp"
#include "gate.hpp"
#include "http/types.hpp"
#include "messages/error.hpp"
#include "store/reader.hpp"

namespace parley::chatd {

struct Caller {
    store::Ulid org, user;
    std::string user_name;
    std::string key_id;  // "" without auth
    std::vector<std::string> scopes;
    std::vector<std::string> models;
    std::string service_class;
    double weight = 1.0;
    std::shared_ptr<const CallerLimits> limits = std::make_shared<const CallerLimits>();
    std::string session;  // hash (hex) of the session's token; "" for keys
    int64_t session_renewed_ms = 0;
    int64_t session_expires_ms = 0;
    bool by_cookie = false;

    bool may_use(std::string_view scope) const;
    bool may_ask(std::string_view model) const;
    std::string org_text() const { return store::show_id(store::kOrg, org); }
    std::string user_text() const { return store::show_id(store::kUser, user); }
};

class Auth {
  public:
    static constexpr int64_t kCacheMs = 1000;
    static constexpr size_t kCacheMax = 10'000;
    static constexpr size_t kUserNameMax = 128;

    Auth(bool no_auth, const base::Clock& clock) : no_auth_(no_auth), clock_(clock) {}
    // Origins besides our own that pages of ours have: behind a proxy.
    void set_origins(std::vector<std::string> origins) { origins_ = std::move(origins); }
    bool ours(const http::Request& head) const;
    void forget() { known_.clear(); }
    // The limits that hold now for what a key of an org has left to be done (a batch); a key that is gone has
    // none of its own. An error where they cannot be read.
    static tl::expected<std::shared_ptr<const CallerLimits>, messages::ApiError> limits_of(
        const store::Ulid& org, std::string_view key_id, store::Reader& reader);
    // `reader` may be null: the store is not there.
    tl::expected<Caller, messages::ApiError> check(const http::Request& head,
                                                   store::Reader* reader);

  private:
    struct Known {
        Caller caller;
        int64_t until_ms = 0;
    };
    tl::expected<Caller, messages::ApiError> look_up(const std::string& secret,
                                                     store::Reader& reader);

    std::optional<messages::ApiError> check_origin(const http::Request& head, bool by_cookie) const;

    bool no_auth_;
    std::vector<std::string> origins_;
    const base::Clock& clock_;
    std::unordered_map<std::string, Known> known_;  // by SHA-256 of the secret
};

}  // namespace parley::chatd
