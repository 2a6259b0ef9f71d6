// Secrets: API keys and passwords, made and checked where they are known, so that neither ever
// travels to the writer or stands in a table.
//
// API key  "pk_" + base64url of 32 random bytes (46 characters). Stored: SHA-256 of key + pepper.
// Pepper   32 random bytes in STORE/pepper (0600), made by the writer when it makes the store; a
// reader
//          without it cannot recognise any key. It also keys the MAC of list cursors.
// Password argon2id in libsodium's text form ("$argon2id$…"), about 64 MiB and 0.1 s a call: hash
// and
//          verify off the event loop.
// Threads  pure functions.
#pragma once

#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::store {

struct NewApiKey {
    std::string secret;  // shown once, kept nowhere
    std::string prefix;  // "pk_" + 6 characters: enough to recognise, useless to guess from
};
NewApiKey new_api_key();
// 32 raw bytes: the key of the `apikey` table.
std::string api_key_hash(std::string_view secret, std::string_view pepper);

// Errc::invalid for an empty password or one over 1,024 bytes; Errc::again without the memory.
base::Result<std::string> hash_password(std::string_view password);
bool verify_password(std::string_view stored, std::string_view password);

// Reads STORE/pepper; Errc::not_found when there is no store yet.
base::Result<std::string> read_pepper(const std::string& store_dir);

}  // namespace parley::store
