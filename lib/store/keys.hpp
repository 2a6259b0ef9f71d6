// Keys: how each table's key is put together (parley-store(5), TABLES). Fixed width, big-endian.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "store/ids.hpp"
#include "store/record.hpp"

namespace parley::store::keys {

inline std::string of(const Ulid& id) { return std::string(id.view()); }
inline std::string seq(uint64_t number) {
    std::string key;
    put_u64(key, number);
    return key;
}
inline std::string conv_user(const Ulid& user, int64_t updated_ms, const Ulid& conv) {
    std::string key(user.view());
    put_u64(key, ~static_cast<uint64_t>(updated_ms));
    key += conv.view();
    return key;
}
inline std::string msg(const Ulid& conv, const Ulid& message) {
    std::string key(conv.view());
    put_u32(key, bucket_of(message));
    key += message.view();
    return key;
}
// A root hangs under sixteen zero bytes.
inline std::string child(const Ulid& conv, const std::optional<Ulid>& parent) {
    std::string key(conv.view());
    key += parent.value_or(Ulid{}).view();
    return key;
}
inline std::string sdelta(const Ulid& stream, uint32_t epoch, uint32_t seq) {
    std::string key(stream.view());
    put_u32(key, epoch);
    put_u32(key, seq);
    return key;
}
inline std::string pair(const Ulid& a, const Ulid& b) {
    std::string key(a.view());
    key += b.view();
    return key;
}
inline std::string feed(const Ulid& user, uint64_t seq) {
    std::string key(user.view());
    put_u64(key, seq);
    return key;
}
inline std::string usage(const Ulid& org_or_user, uint32_t day, uint32_t model) {
    std::string key(org_or_user.view());
    put_u32(key, ~day);
    put_u32(key, model);
    return key;
}
inline std::string reply(std::string_view boot, uint64_t seq) {
    std::string key(boot);
    key += '\0';
    put_u64(key, seq);
    return key;
}
std::string idem(const Ulid& user, std::string_view scope, std::string_view key);
inline std::string idem_exp(int64_t expires_ms, std::string_view idem_key) {
    std::string key;
    put_u64(key, static_cast<uint64_t>(expires_ms));
    key += idem_key;
    return key;
}
inline std::string org_name(std::string_view name) { return "org." + std::string(name); }
inline std::string boot(std::string_view boot) { return "boot." + std::string(boot); }
// A user's key that is to be destroyed, by its slot.
inline constexpr std::string_view kShred = "shred.";
inline std::string shred(uint32_t slot) {
    std::string key(kShred);
    put_u32(key, slot);
    return key;
}
inline std::string model_number(std::string_view model) {
    return "model." + std::string(model.substr(0, 256));
}

}  // namespace parley::store::keys
