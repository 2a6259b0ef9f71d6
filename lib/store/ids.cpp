#include "store/ids.hpp"

#include <sodium.h>

namespace parley::store {

std::string show_id(std::string_view prefix, const Ulid& id) {
    return std::string(prefix) + id.text();
}

std::optional<Ulid> parse_id(std::string_view prefix, std::string_view text) {
    if (!text.starts_with(prefix)) return std::nullopt;
    return Ulid::parse(text.substr(prefix.size()));
}

Ulid user_id(const Ulid& org, std::string_view name) {
    Ulid id;
    crypto_generichash_state state;
    crypto_generichash_init(&state, nullptr, 0, id.bytes.size());
    crypto_generichash_update(&state, org.bytes.data(), org.bytes.size());
    crypto_generichash_update(&state, reinterpret_cast<const uint8_t*>(name.data()), name.size());
    crypto_generichash_final(&state, id.bytes.data(), id.bytes.size());
    return id;
}

uint32_t bucket_of(const Ulid& message) {
    return static_cast<uint32_t>(message.ms() / 864'000'000);
}

}  // namespace parley::store
