#include "notify/settings.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include "base/json.hpp"
#include "base/text.hpp"
#include "base/ulid.hpp"

namespace parley::notify {

using base::Errc;
using base::fail;
using base::Result;

namespace {

bool plain(std::string_view text) {
    for (const unsigned char c : text)
        if (c <= 0x20 || c >= 0x7f) return false;
    return !text.empty();
}

Result<std::string> text_in(simdjson::dom::element element, std::string_view path, size_t most) {
    std::string_view text;
    if (element.get(text)) return fail(Errc::invalid, fmt::format("{}: Input should be a string", path));
    if (text.empty() || text.size() > most)
        return fail(Errc::invalid, fmt::format("{}: Input should have 1 to {} bytes", path, most));
    return std::string(text);
}

Result<std::string> url_in(simdjson::dom::element element, std::string_view path) {
    auto url = text_in(element, path, kUrlBytesMax);
    if (!url) return url;
    const size_t scheme = url->starts_with("https://") ? 8 : url->starts_with("http://") ? 7 : 0;
    const std::string_view host =
        std::string_view(*url).substr(scheme, url->find_first_of("/?#", scheme) - scheme);
    if (scheme == 0 || !plain(*url) || host.empty() || host.find('@') != std::string_view::npos)
        return fail(Errc::invalid,
                    fmt::format("{}: Input should be an http or https URL without a user", path));
    return url;
}

Result<std::string> address_in(simdjson::dom::element element) {
    auto address = text_in(element, "email.address", 254);
    if (!address) return address;
    const size_t at = address->find('@');
    if (!plain(*address) || address->find_first_of("<>,;:\\\"()[]") != std::string::npos || at == 0 ||
        at == std::string::npos || at + 1 == address->size() || address->front() == '-' ||
        address->find('@', at + 1) != std::string::npos)
        return fail(Errc::invalid, "email.address: Input should be one e-mail address");
    return address;
}

Result<PushTarget> push_in(simdjson::dom::element element) {
    PushTarget target;
    simdjson::dom::element endpoint, p256dh, auth;
    if (element["endpoint"].get(endpoint) || element["keys"]["p256dh"].get(p256dh) ||
        element["keys"]["auth"].get(auth))
        return fail(Errc::invalid, "push: endpoint, keys.p256dh and keys.auth are required");
    auto url = url_in(endpoint, "push.endpoint");
    if (!url) return fail(url.error());
    auto key = text_in(p256dh, "push.keys.p256dh", 128);
    if (!key) return fail(key.error());
    auto secret = text_in(auth, "push.keys.auth", 64);
    if (!secret) return fail(secret.error());
    for (std::string* text : {&*key, &*secret})
        while (text->ends_with('=')) text->pop_back();
    const auto key_bytes = base::unbase64url(*key);
    const auto auth_bytes = base::unbase64url(*secret);
    if (!key_bytes || key_bytes->size() != 65 || (*key_bytes)[0] != 4)
        return fail(Errc::invalid, "push.keys.p256dh: Input should be a P-256 point in base64url");
    if (!auth_bytes || auth_bytes->size() != 16)
        return fail(Errc::invalid, "push.keys.auth: Input should be 16 bytes in base64url");
    return PushTarget{std::move(*url), std::move(*key), std::move(*secret)};
}

}  // namespace

Result<Settings> Settings::parse(std::string_view json) {
    Settings settings;
    std::optional<std::string> made;
    if (json.empty() || json == "null") return settings;
    if (auto done = settings.put(json, made); !done) return fail(done.error());
    return settings;
}

Result<void> Settings::put(std::string_view json, std::optional<std::string>& made) {
    simdjson::dom::parser parser;
    simdjson::dom::object object;
    if (parser.parse(json.data(), json.size()).get(object))
        return fail(Errc::invalid, "Input should be a JSON object");
    Settings next = *this;
    for (const auto [key, value] : object) {
        if (key == "webhook") {
            if (value.is_null()) {
                next.webhook.reset();
                continue;
            }
            simdjson::dom::element url, secret;
            if (value["url"].get(url)) return fail(Errc::invalid, "webhook.url: Field required");
            auto text = url_in(url, "webhook.url");
            if (!text) return fail(text.error());
            Webhook hook{std::move(*text), {}};
            if (!value["secret"].get(secret) && !secret.is_null()) {
                auto given = text_in(secret, "webhook.secret", 256);
                if (!given) return fail(given.error());
                hook.secret = std::move(*given);
            } else if (webhook && webhook->url == hook.url) {
                hook.secret = webhook->secret;
            } else {
                hook.secret = base::random_id("whsec_") + base::random_id("").substr(10);
                made = hook.secret;
            }
            next.webhook = std::move(hook);
        } else if (key == "email") {
            next.email.clear();
            if (value.is_null()) continue;
            simdjson::dom::element address;
            if (value["address"].get(address))
                return fail(Errc::invalid, "email.address: Field required");
            auto text = address_in(address);
            if (!text) return fail(text.error());
            next.email = std::move(*text);
        } else if (key == "push") {
            next.push.clear();
            if (value.is_null()) continue;
            simdjson::dom::array list;
            if (value.get(list)) return fail(Errc::invalid, "push: Input should be an array");
            for (const auto one : list) {
                auto target = push_in(one);
                if (!target) return fail(target.error());
                if (next.push.size() == kPushMax)
                    return fail(Errc::invalid,
                                fmt::format("push: at most {} browsers are possible", kPushMax));
                next.push.push_back(std::move(*target));
            }
        } else if (key == "quiet_while_connected") {
            if (value.get(next.quiet_while_connected))
                return fail(Errc::invalid, "quiet_while_connected: Input should be true or false");
        } else {
            return fail(Errc::invalid, fmt::format("{}: Extra inputs are not permitted",
                                                   base::json_string(key)));
        }
    }
    *this = std::move(next);
    return {};
}

std::string Settings::json(bool with_secret) const {
    std::string out;
    base::JsonWriter w(out);
    w.object().key("webhook");
    if (webhook) {
        w.object().field("url", webhook->url);
        if (with_secret) w.field("secret", webhook->secret);
        w.end();
    } else {
        w.null();
    }
    w.key("email");
    if (email.empty())
        w.null();
    else
        w.object().field("address", email).end();
    w.key("push").array();
    for (const PushTarget& target : push)
        w.object()
            .field("endpoint", target.endpoint)
            .key("keys")
            .object()
            .field("p256dh", target.p256dh)
            .field("auth", target.auth)
            .end()
            .end();
    w.end().field("quiet_while_connected", quiet_while_connected).end();
    return out;
}

}  // namespace parley::notify
