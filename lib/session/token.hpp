// Token: the secrets of login: session tokens, the one-time link, and where they stand in a request.
//
// Session  "ps_" + base64url of 32 random bytes. The store keeps its hash alone, as for API keys.
// Cookie   kCookie, HttpOnly, SameSite=Strict, Path=/, Secure under TLS.
// Origin   a request that changes something and is known by its cookie must say an Origin that is ours:
//          scheme and Host of the request itself, or one of those allowed (behind a proxy that ends TLS).
// Link     one secret, used once and within its time; void afterwards.
// Threads  pure functions; OneTime is one thread's.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace parley::session {

inline constexpr std::string_view kCookie = "parley_session";
inline constexpr std::string_view kTokenPrefix = "ps_";

std::string new_token();
bool is_token(std::string_view text);  // by its form

// The value of our cookie in a Cookie header, "" when it is not there. Of several the first counts.
std::string_view cookie_of(std::string_view header);
std::string set_cookie(std::string_view token, int64_t max_age_s, bool tls);  // "" and 0: remove it

// `host` is the request's Host header.
bool origin_is_ours(std::string_view origin, std::string_view host, bool tls,
                    const std::vector<std::string>& allowed);

class OneTime {
  public:
    // A new secret; the one before is void.
    const std::string& renew(int64_t now_ms, int64_t ttl_ms);
    bool take(std::string_view secret, int64_t now_ms);
    bool open(int64_t now_ms) const { return !secret_.empty() && now_ms < until_ms_; }

  private:
    std::string secret_;
    int64_t until_ms_ = 0;
};

}  // namespace parley::session
