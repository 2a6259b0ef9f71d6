#include "session/token.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include <algorithm>

#include "base/text.hpp"

namespace parley::session {

namespace {

std::string random_text() {
    std::string bytes(32, '\0');
    randombytes_buf(bytes.data(), bytes.size());
    return base::base64url(bytes);
}

}  // namespace

std::string new_token() { return std::string(kTokenPrefix) + random_text(); }

bool is_token(std::string_view text) { return text.starts_with(kTokenPrefix); }

std::string_view cookie_of(std::string_view header) {
    while (!header.empty()) {
        const size_t end = std::min(header.find(';'), header.size());
        std::string_view pair = header.substr(0, end);
        header.remove_prefix(std::min(end + 1, header.size()));
        while (!pair.empty() && (pair.front() == ' ' || pair.front() == '\t'))
            pair.remove_prefix(1);
        while (!pair.empty() && (pair.back() == ' ' || pair.back() == '\t')) pair.remove_suffix(1);
        if (pair.size() > kCookie.size() && pair.starts_with(kCookie) &&
            pair[kCookie.size()] == '=')
            return pair.substr(kCookie.size() + 1);
    }
    return {};
}

std::string set_cookie(std::string_view token, int64_t max_age_s, bool tls) {
    return fmt::format("{}={}; Path=/; HttpOnly; SameSite=Strict; Max-Age={}{}", kCookie, token,
                       max_age_s, tls ? "; Secure" : "");
}

bool origin_is_ours(std::string_view origin, std::string_view host, bool tls,
                    const std::vector<std::string>& allowed) {
    if (origin.empty()) return false;
    if (!host.empty() && origin == fmt::format("{}://{}", tls ? "https" : "http", host))
        return true;
    return std::ranges::find(allowed, origin) != allowed.end();
}

const std::string& OneTime::renew(int64_t now_ms, int64_t ttl_ms) {
    secret_ = random_text();
    until_ms_ = now_ms + ttl_ms;
    return secret_;
}

bool OneTime::take(std::string_view secret, int64_t now_ms) {
    if (!open(now_ms) || !base::equal_constant_time(secret_, secret)) return false;
    secret_.clear();
    return true;
}

}  // namespace parley::session
