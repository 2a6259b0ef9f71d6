// Web Push: a message that only the browser can read (RFC 8291, aes128gcm) and the proof of who sends it
// (VAPID, RFC 8292, ES256).
//
// Errors   Errc::invalid    a browser's key that is no point of P-256; Errc::too_large over kPayloadMax
//          Errc::internal   OpenSSL fails
// Threads  pure functions; VapidKey is immutable.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/result.hpp"

struct evp_pkey_st;

namespace parley::notify {

inline constexpr size_t kPayloadMax = 3000;  // what every push service takes

class VapidKey {
  public:
    // The key in `path` (PEM, 0600), made where there is none; PATH.pub holds its public half.
    static base::Result<VapidKey> open(const std::string& path);
    // base64url of the point, as a browser's applicationServerKey.
    const std::string& public_key() const { return public_; }
    // The value of the Authorization header for an endpoint: good for 12 hours.
    base::Result<std::string> authorization(std::string_view endpoint, std::string_view contact,
                                            int64_t now_ms) const;

  private:
    std::shared_ptr<evp_pkey_st> key_;
    std::string public_;
};

// The body of the push. `p256dh` and `auth` in base64url, as the browser gave them.
base::Result<std::string> encrypt_push(std::string_view payload, std::string_view p256dh,
                                       std::string_view auth);

std::string hmac_sha256(std::string_view key, std::string_view text);  // 32 raw bytes

}  // namespace parley::notify
