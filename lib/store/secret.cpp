#include "store/secret.hpp"

#include <fmt/format.h>
#include <sodium.h>

#include "base/file.hpp"
#include "base/text.hpp"

namespace parley::store {

NewApiKey new_api_key() {
    std::string bytes(32, '\0');
    randombytes_buf(bytes.data(), bytes.size());
    NewApiKey made;
    made.secret = "pk_" + base::base64url(bytes);
    made.prefix = made.secret.substr(0, 9);
    return made;
}

std::string api_key_hash(std::string_view secret, std::string_view pepper) {
    return base::sha256(std::string(secret) + std::string(pepper));
}

base::Result<std::string> hash_password(std::string_view password) {
    if (password.empty()) return base::fail(base::Errc::invalid, "the password is empty");
    if (password.size() > 1024)
        return base::fail(base::Errc::invalid, "the password is longer than 1024 bytes");
    char out[crypto_pwhash_STRBYTES] = {};
    if (crypto_pwhash_str(out, password.data(), password.size(), crypto_pwhash_OPSLIMIT_INTERACTIVE,
                          crypto_pwhash_MEMLIMIT_INTERACTIVE) != 0)
        return base::fail(base::Errc::again,
                          "cannot hash the password: not enough memory (64 MiB)");
    return std::string(out);
}

bool verify_password(std::string_view stored, std::string_view password) {
    // libsodium wants its full, zero-padded buffer.
    char padded[crypto_pwhash_STRBYTES] = {};
    if (stored.empty() || stored.size() >= sizeof padded) return false;
    stored.copy(padded, stored.size());
    return crypto_pwhash_str_verify(padded, password.data(), password.size()) == 0;
}

base::Result<std::string> read_pepper(const std::string& store_dir) {
    auto bytes = base::read_file(store_dir + "/pepper", 4096);
    if (!bytes) return base::fail(bytes.error());
    if (bytes->size() != 32)
        return base::fail(base::Errc::corrupt,
                          fmt::format("'{}/pepper' has {} bytes, not 32: restore it from a backup",
                                      store_dir, bytes->size()));
    return std::move(*bytes);
}

}  // namespace parley::store
