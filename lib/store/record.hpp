// Record: the envelope of every value (but the bare ids of `child`).
//
//   byte 0      version, 1
//   byte 1      flags: 1 zstd, 2 sealed under its user's key (user_keys.hpp), after
//               compression; rows from before there were keys stay plain
//   bytes 2…5   CRC-32C, big-endian, over: table name, 0, key, version, flags, body as stored
//   bytes 6…    body: a JSON object, compressed with zstd when it is over kCompressOver and gets
//   smaller
//
// The checksum covers table and key, so that a whole value under a wrong key is found as well.
// Errors   Errc::corrupt "table 'msg' key 01ab…: checksum"; Errc::unsupported for a newer version.
// Bounds   a body is at most kBodyMax before compression.
// Threads  pure functions.
#pragma once

#include <string>
#include <string_view>

#include "store/env.hpp"

namespace parley::store {

inline constexpr size_t kCompressOver = 512;
inline constexpr size_t kBodyMax = 64u << 20;

Result<std::string> encode_record(Table table, std::string_view key, std::string_view json);
// Sealed under the key in that slot.
Result<std::string> encode_sealed(Table table, std::string_view key, std::string_view json,
                                  const UserKeys& keys, uint32_t slot);
// Errc::not_found: sealed, and its key was erased. Without `keys` a sealed value is Errc::unsupported.
Result<std::string> decode_record(Table table, std::string_view key, std::string_view value,
                                  const UserKeys* keys = nullptr);
bool is_sealed(std::string_view value);

// Big-endian keys: memcmp order is number order.
void put_u32(std::string& out, uint32_t value);
void put_u64(std::string& out, uint64_t value);
uint32_t get_u32(std::string_view bytes);  // exactly 4
uint64_t get_u64(std::string_view bytes);  // exactly 8

}  // namespace parley::store
