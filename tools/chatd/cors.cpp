#include "cors.hpp"

#include <algorithm>
#include <cctype>

namespace parley::chatd {

namespace {

constexpr std::string_view kExposed =
    "request-id, x-request-id, retry-after, retry-after-ms, x-should-retry, "
    "anthropic-organization-id, anthropic-ratelimit-requests-limit, "
    "anthropic-ratelimit-requests-remaining, anthropic-ratelimit-requests-reset, "
    "anthropic-ratelimit-tokens-limit, anthropic-ratelimit-tokens-remaining, "
    "anthropic-ratelimit-tokens-reset, anthropic-ratelimit-input-tokens-limit, "
    "anthropic-ratelimit-input-tokens-remaining, anthropic-ratelimit-input-tokens-reset, "
    "anthropic-ratelimit-output-tokens-limit, anthropic-ratelimit-output-tokens-remaining, "
    "anthropic-ratelimit-output-tokens-reset";
constexpr std::string_view kAskable =
    "authorization, x-api-key, content-type, anthropic-version, anthropic-beta, idempotency-key, "
    "x-request-id, x-user-id, last-event-id, if-match";
constexpr size_t kAskedMax = 4096;

// A list of header names, and nothing that could end the line.
bool is_list_of_names(std::string_view text) {
    return !text.empty() && text.size() <= kAskedMax &&
           std::all_of(text.begin(), text.end(), [](unsigned char c) {
               return std::isalnum(c) || c == '-' || c == '_' || c == ',' || c == ' ';
           });
}

}  // namespace

bool is_cors_origin(const std::string& text) {
    if (text == "*") return true;
    const size_t scheme = text.find("://");
    return scheme != std::string::npos && scheme > 0 && text.size() > scheme + 3 &&
           text.find('/', scheme + 3) == std::string::npos &&
           text.find_first_of(" ,\r\n\t*") == std::string::npos;
}

HeaderList cors_headers(const std::vector<std::string>& origins, const http::Request& head) {
    if (origins.empty()) return {};
    const bool all = std::find(origins.begin(), origins.end(), "*") != origins.end();
    const std::string origin(head.headers.get("origin"));
    HeaderList out;
    if (!all) out.emplace_back("vary", "origin");
    if (origin.empty() ||
        (!all && std::find(origins.begin(), origins.end(), origin) == origins.end()))
        return out;
    out.emplace_back("access-control-allow-origin", all ? "*" : origin);
    out.emplace_back("access-control-expose-headers", kExposed);
    return out;
}

void add_cors(const std::vector<std::string>& origins, const http::Request& head,
              http::Response& response) {
    for (auto& [name, value] : cors_headers(origins, head))
        response.header(name, std::move(value));
}

http::Response preflight(const std::vector<std::string>& origins, const http::Request& head,
                         const std::vector<std::string_view>& methods) {
    http::Response response;
    response.status = 204;
    bool granted = false;
    for (auto& [name, value] : cors_headers(origins, head)) {
        granted = granted || name == "access-control-allow-origin";
        if (name != "access-control-expose-headers") response.header(name, std::move(value));
    }
    if (!granted) return response;
    std::string allowed;
    for (const std::string_view method : methods) {
        allowed += allowed.empty() ? "" : ", ";
        allowed += method;
        if (method == "GET") allowed += ", HEAD";
    }
    response.header("access-control-allow-methods",
                    allowed.empty() ? "GET, HEAD, POST, PUT, PATCH, DELETE" : allowed);
    const std::string_view asked = head.headers.get("access-control-request-headers");
    response.header("access-control-allow-headers",
                    std::string(is_list_of_names(asked) ? asked : kAskable));
    response.header("access-control-max-age", "600");
    return response;
}

}  // namespace parley::chatd
