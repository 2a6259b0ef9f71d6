// Settings: where a user wants to be told of answers that wait: a webhook, e-mail, browsers (Web Push).
//
// Form     {"webhook":{"url","secret"}|null,"email":{"address"}|null,
//           "push":[{"endpoint","keys":{"p256dh","auth"}}],"quiet_while_connected":true}
//          as it stands in the user's row. Clients never get the secret back, but at its making.
// Bounds   URLs 2,048 bytes, an address 254, kPushMax browsers.
// Errors   Errc::invalid "path: why"
// Threads  values.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"

namespace parley::notify {

inline constexpr size_t kPushMax = 10;
inline constexpr size_t kUrlBytesMax = 2048;

struct Webhook {
    std::string url;
    std::string secret;  // of the signature
};
struct PushTarget {
    std::string endpoint;
    std::string p256dh;  // base64url: the browser's public key, 65 bytes
    std::string auth;    // base64url: 16 bytes
};

struct Settings {
    std::optional<Webhook> webhook;
    std::string email;  // "" none
    std::vector<PushTarget> push;
    bool quiet_while_connected = true;

    bool empty() const { return !webhook && email.empty() && push.empty(); }
    static base::Result<Settings> parse(std::string_view json);  // as stored
    // What a client puts: absent members stay, null takes away. A webhook without a secret gets one, which
    // is then `made`.
    base::Result<void> put(std::string_view json, std::optional<std::string>& made);
    std::string json(bool with_secret) const;
};

}  // namespace parley::notify
