#include "notify/web_push.hpp"

#include <fmt/format.h>
#include <openssl/core_names.h>
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rand.h>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/text.hpp"

namespace parley::notify {

using base::Errc;
using base::fail;
using base::Result;
using Key = std::shared_ptr<EVP_PKEY>;

namespace {

Key own(EVP_PKEY* key) { return Key(key, EVP_PKEY_free); }
auto broken(const char* what) { return fail(Errc::internal, fmt::format("OpenSSL cannot {}", what)); }
const unsigned char* bytes(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
}
unsigned char* bytes(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

Result<std::string> point_of(EVP_PKEY* key) {
    std::string out(65, '\0');
    size_t size = 0;
    if (EVP_PKEY_get_octet_string_param(key, OSSL_PKEY_PARAM_PUB_KEY, bytes(out), out.size(),
                                        &size) != 1 ||
        size != out.size())
        return broken("give the public key");
    return out;
}

Result<Key> peer_key(std::string_view point) {
    char group[] = "prime256v1";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_PKEY_PARAM_GROUP_NAME, group, 0),
        OSSL_PARAM_construct_octet_string(OSSL_PKEY_PARAM_PUB_KEY,
                                          const_cast<char*>(point.data()), point.size()),
        OSSL_PARAM_construct_end()};
    std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> context(
        EVP_PKEY_CTX_new_from_name(nullptr, "EC", nullptr), EVP_PKEY_CTX_free);
    EVP_PKEY* key = nullptr;
    if (!context || EVP_PKEY_fromdata_init(context.get()) != 1 ||
        EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, params) != 1)
        return fail(Errc::invalid, "the browser's key is no point of P-256");
    return own(key);
}

Result<std::string> shared_secret(EVP_PKEY* mine, EVP_PKEY* theirs) {
    std::unique_ptr<EVP_PKEY_CTX, decltype(&EVP_PKEY_CTX_free)> context(
        EVP_PKEY_CTX_new(mine, nullptr), EVP_PKEY_CTX_free);
    std::string out(32, '\0');
    size_t size = out.size();
    if (!context || EVP_PKEY_derive_init(context.get()) != 1 ||
        EVP_PKEY_derive_set_peer(context.get(), theirs) != 1 ||
        EVP_PKEY_derive(context.get(), bytes(out), &size) != 1 || size != 32)
        return broken("agree on a secret");
    return out;
}

// HKDF of one block: at most 32 bytes.
std::string hkdf(std::string_view salt, std::string_view secret, std::string_view info,
                 size_t size) {
    return hmac_sha256(hmac_sha256(salt, secret), std::string(info) + '\x01').substr(0, size);
}

}  // namespace

std::string hmac_sha256(std::string_view key, std::string_view text) {
    std::string out(32, '\0');
    unsigned size = 0;
    ::HMAC(EVP_sha256(), key.data(), static_cast<int>(key.size()), bytes(text), text.size(),
           bytes(out), &size);
    return out;
}

Result<VapidKey> VapidKey::open(const std::string& path) {
    VapidKey out;
    auto pem = base::read_file(path, 16u << 10);
    if (!pem && pem.error().code != Errc::not_found) return fail(pem.error());
    if (pem) {
        std::unique_ptr<BIO, decltype(&BIO_free)> in(
            BIO_new_mem_buf(pem->data(), static_cast<int>(pem->size())), BIO_free);
        out.key_ = own(PEM_read_bio_PrivateKey(in.get(), nullptr, nullptr, nullptr));
        if (!out.key_ || EVP_PKEY_get_bits(out.key_.get()) != 256)
            return fail(Errc::config, fmt::format("'{}' holds no P-256 key", path));
    } else {
        out.key_ = own(EVP_EC_gen("P-256"));
        std::unique_ptr<BIO, decltype(&BIO_free)> made(BIO_new(BIO_s_mem()), BIO_free);
        char* data = nullptr;
        if (!out.key_ || PEM_write_bio_PrivateKey(made.get(), out.key_.get(), nullptr, nullptr, 0,
                                                  nullptr, nullptr) != 1)
            return broken("make a key");
        const long size = BIO_get_mem_data(made.get(), &data);
        if (auto put = base::write_file(path, {data, static_cast<size_t>(size)}, 0600); !put)
            return fail(put.error());
    }
    auto point = point_of(out.key_.get());
    if (!point) return fail(point.error());
    out.public_ = base::base64url(*point);
    if (auto put = base::write_file(path + ".pub", out.public_ + "\n", 0644); !put)
        return fail(put.error());
    return out;
}

Result<std::string> VapidKey::authorization(std::string_view endpoint, std::string_view contact,
                                            int64_t now_ms) const {
    const size_t scheme = endpoint.find("://");
    const size_t path = scheme == std::string_view::npos ? scheme : endpoint.find('/', scheme + 3);
    std::string claims;
    base::JsonWriter(claims)
        .object()
        .field("aud", endpoint.substr(0, path))
        .field("exp", now_ms / 1000 + 12 * 3600)
        .field("sub", contact)
        .end();
    const std::string signed_part =
        base::base64url(R"({"typ":"JWT","alg":"ES256"})") + "." + base::base64url(claims);
    std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context(EVP_MD_CTX_new(),
                                                                    EVP_MD_CTX_free);
    std::string der(128, '\0');
    size_t size = der.size();
    if (!context ||
        EVP_DigestSignInit(context.get(), nullptr, EVP_sha256(), nullptr, key_.get()) != 1 ||
        EVP_DigestSign(context.get(), bytes(der), &size, bytes(signed_part), signed_part.size()) !=
            1)
        return broken("sign");
    const unsigned char* at = bytes(der);
    std::unique_ptr<ECDSA_SIG, decltype(&ECDSA_SIG_free)> signature(
        d2i_ECDSA_SIG(nullptr, &at, static_cast<long>(size)), ECDSA_SIG_free);
    std::string raw(64, '\0');
    if (!signature || BN_bn2binpad(ECDSA_SIG_get0_r(signature.get()), bytes(raw), 32) != 32 ||
        BN_bn2binpad(ECDSA_SIG_get0_s(signature.get()), bytes(raw) + 32, 32) != 32)
        return broken("write the signature");
    return fmt::format("vapid t={}.{}, k={}", signed_part, base::base64url(raw), public_);
}

Result<std::string> encrypt_push(std::string_view payload, std::string_view p256dh,
                                 std::string_view auth) {
    if (payload.size() > kPayloadMax)
        return fail(Errc::too_large, fmt::format("a push has at most {} bytes", kPayloadMax));
    auto theirs = base::unbase64url(p256dh);
    auto secret = base::unbase64url(auth);
    if (!theirs || !secret || theirs->size() != 65 || secret->size() != 16)
        return fail(Errc::invalid, "the browser's keys cannot be read");
    auto browser = peer_key(*theirs);
    if (!browser) return fail(browser.error());
    const Key mine = own(EVP_EC_gen("P-256"));
    if (!mine) return broken("make a key");
    auto point = point_of(mine.get());
    if (!point) return fail(point.error());
    auto shared = shared_secret(mine.get(), browser->get());
    if (!shared) return fail(shared.error());
    std::string salt(16, '\0');
    if (RAND_bytes(bytes(salt), 16) != 1) return broken("draw random bytes");

    using namespace std::string_literals;
    const std::string ikm = hkdf(*secret, *shared, "WebPush: info\0"s + *theirs + *point, 32);
    const std::string key = hkdf(salt, ikm, "Content-Encoding: aes128gcm\0"s, 16);
    const std::string nonce = hkdf(salt, ikm, "Content-Encoding: nonce\0"s, 12);
    // One record: the payload and the mark of the last one.
    const std::string plain = std::string(payload) + '\x02';
    std::string sealed(plain.size() + 16, '\0');
    int size = 0, rest = 0;
    std::unique_ptr<EVP_CIPHER_CTX, decltype(&EVP_CIPHER_CTX_free)> cipher(EVP_CIPHER_CTX_new(),
                                                                           EVP_CIPHER_CTX_free);
    if (!cipher ||
        EVP_EncryptInit_ex(cipher.get(), EVP_aes_128_gcm(), nullptr, bytes(std::string_view(key)),
                           bytes(std::string_view(nonce))) != 1 ||
        EVP_EncryptUpdate(cipher.get(), bytes(sealed), &size, bytes(std::string_view(plain)),
                          static_cast<int>(plain.size())) != 1 ||
        EVP_EncryptFinal_ex(cipher.get(), bytes(sealed) + size, &rest) != 1 ||
        EVP_CIPHER_CTX_ctrl(cipher.get(), EVP_CTRL_GCM_GET_TAG, 16,
                            bytes(sealed) + plain.size()) != 1)
        return broken("encrypt");
    const std::string record_size("\x00\x00\x10\x00", 4);  // 4096
    return salt + record_size + static_cast<char>(65) + *point + sealed;
}

}  // namespace parley::notify
