#include "store/record.hpp"

#include <fmt/format.h>
#include <zstd.h>

#include <memory>

#include "base/text.hpp"

namespace parley::store {
namespace {

constexpr char kVersion = 1;
constexpr uint8_t kZstd = 1;
constexpr uint8_t kSealed = 2;
constexpr size_t kHead = 6;

uint32_t checksum(Table table, std::string_view key, uint8_t flags, std::string_view body) {
    uint32_t crc = base::crc32c(table_name(table));
    crc = base::crc32c(std::string_view("\0", 1), crc);
    crc = base::crc32c(key, crc);
    const char head[2] = {kVersion, static_cast<char>(flags)};
    crc = base::crc32c({head, 2}, crc);
    return base::crc32c(body, crc);
}

// A context costs more than a small row does: one a thread.
ZSTD_CCtx* compressor() {
    struct Free {
        void operator()(ZSTD_CCtx* context) const noexcept { ZSTD_freeCCtx(context); }
    };
    thread_local std::unique_ptr<ZSTD_CCtx, Free> context(ZSTD_createCCtx());
    return context.get();
}

// As large as what malloc maps anew each time, with page faults that cost ten times a small row.
ZSTD_DCtx* decompressor() {
    struct Free {
        void operator()(ZSTD_DCtx* context) const noexcept { ZSTD_freeDCtx(context); }
    };
    thread_local std::unique_ptr<ZSTD_DCtx, Free> context(ZSTD_createDCtx());
    return context.get();
}

tl::unexpected<Error> bad(Errc code, Table table, std::string_view key, std::string_view what) {
    return fail(code,
                fmt::format("table '{}' key {}: {}", table_name(table), base::hex(key), what));
}

}  // namespace

namespace {

// What a sealed body is bound to: it opens in its own row only.
std::string bound_to(Table table, std::string_view key) {
    std::string bound(table_name(table));
    bound += '\0';
    bound += key;
    return bound;
}

Result<std::string> encode(Table table, std::string_view key, std::string_view json,
                           const UserKeys* keys, uint32_t slot) {
    if (json.size() > kBodyMax)
        return bad(Errc::too_large, table, key,
                   fmt::format("a row of {} bytes, {} at most", json.size(), kBodyMax));
    std::string out(kHead, '\0');
    uint8_t flags = 0;
    if (json.size() > kCompressOver) {
        std::string packed(ZSTD_compressBound(json.size()), '\0');
        const size_t size = ZSTD_compressCCtx(compressor(), packed.data(), packed.size(),
                                              json.data(), json.size(), 1);
        if (!ZSTD_isError(size) && size < json.size()) {
            flags |= kZstd;
            out.append(packed, 0, size);
        }
    }
    if (!(flags & kZstd)) out += json;
    if (keys) {
        auto sealed = keys->seal(slot, bound_to(table, key), std::string_view(out).substr(kHead));
        if (!sealed) return bad(sealed.error().code, table, key, sealed.error().what);
        flags |= kSealed;
        out.replace(kHead, std::string::npos, *sealed);
    }
    out[0] = kVersion;
    out[1] = static_cast<char>(flags);
    const uint32_t crc = checksum(table, key, flags, std::string_view(out).substr(kHead));
    for (int i = 0; i < 4; ++i) out[2 + i] = static_cast<char>(crc >> (24 - 8 * i));
    return out;
}

}  // namespace

Result<std::string> encode_record(Table table, std::string_view key, std::string_view json) {
    return encode(table, key, json, nullptr, 0);
}
Result<std::string> encode_sealed(Table table, std::string_view key, std::string_view json,
                                  const UserKeys& keys, uint32_t slot) {
    return encode(table, key, json, &keys, slot);
}
bool is_sealed(std::string_view value) {
    return value.size() > kHead && (static_cast<uint8_t>(value[1]) & kSealed);
}

Result<std::string> decode_record(Table table, std::string_view key, std::string_view value,
                                  const UserKeys* keys) {
    if (value.size() < kHead) return bad(Errc::corrupt, table, key, "value too short");
    const auto flags = static_cast<uint8_t>(value[1]);
    std::string_view body = value.substr(kHead);
    if (value[0] != kVersion)
        return bad(value[0] > kVersion && value[0] < 16 ? Errc::unsupported : Errc::corrupt, table,
                   key, fmt::format("record version {}", static_cast<int>(value[0])));
    if (get_u32(value.substr(2, 4)) != checksum(table, key, flags, body))
        return bad(Errc::corrupt, table, key, "checksum does not match");
    if (flags & ~(kZstd | kSealed)) return bad(Errc::unsupported, table, key, "unknown flags");
    std::string opened;
    if (flags & kSealed) {
        if (!keys) return bad(Errc::unsupported, table, key, "sealed value, and no key for it");
        auto text = keys->open(bound_to(table, key), body);
        if (!text) return bad(text.error().code, table, key, text.error().what);
        opened = std::move(*text);
        body = opened;
    }
    if (!(flags & kZstd)) return std::string(body);
    const unsigned long long size = ZSTD_getFrameContentSize(body.data(), body.size());
    if (size == ZSTD_CONTENTSIZE_UNKNOWN || size == ZSTD_CONTENTSIZE_ERROR || size > kBodyMax)
        return bad(Errc::corrupt, table, key, "compressed value without a sane size");
    std::string out(size, '\0');
    const size_t got =
        ZSTD_decompressDCtx(decompressor(), out.data(), out.size(), body.data(), body.size());
    if (ZSTD_isError(got) || got != size)
        return bad(Errc::corrupt, table, key, "compressed value is broken");
    return out;
}

void put_u32(std::string& out, uint32_t value) {
    for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}
void put_u64(std::string& out, uint64_t value) {
    for (int shift = 56; shift >= 0; shift -= 8) out += static_cast<char>(value >> shift);
}
uint32_t get_u32(std::string_view bytes) {
    uint32_t value = 0;
    for (size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return value;
}
uint64_t get_u64(std::string_view bytes) {
    uint64_t value = 0;
    for (size_t i = 0; i < 8; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
    return value;
}

}  // namespace parley::store
