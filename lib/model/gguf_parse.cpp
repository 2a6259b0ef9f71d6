#include <fmt/format.h>

#include <bit>

#include "base/text.hpp"
#include "model/gguf_impl.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;
using namespace gguf;

namespace {

constexpr uint64_t kKeyBytesMax = 65'535;  // the format's own bound
constexpr uint64_t kTensorNameBytesMax = 1'024;
constexpr uint64_t kAlignmentDefault = 32;
constexpr uint64_t kAlignmentMax = 1ull << 20;

tl::unexpected<base::Error> corrupt(uint64_t position, std::string what) {
    return fail(Errc::corrupt, fmt::format("corrupt GGUF at byte {}: {}", position, what));
}

tl::unexpected<base::Error> truncated(const Cursor& cursor, std::string_view doing) {
    return fail(Errc::corrupt,
                fmt::format("truncated GGUF at byte {}: {} needs more than the {} bytes left",
                            cursor.position(), doing, cursor.left()));
}

// Walks over a value and fills in where it lies. Every step eats bytes of the file, so that time is
// linear in its size whatever the counts say.
Result<void> walk(Cursor& cursor, Kind kind, std::string_view key, int depth, Entry* entry) {
    if (kind > Kind::f64)
        return corrupt(cursor.position(),
                       fmt::format("key {} has value type {}, which does not exist", quote(key),
                                   static_cast<uint32_t>(kind)));
    if (kind == Kind::array) {
        if (depth == Gguf::kArrayDepthMax)
            return corrupt(cursor.position(), fmt::format("key {} nests arrays deeper than {}",
                                                          quote(key), Gguf::kArrayDepthMax));
        const auto element = static_cast<Kind>(cursor.value<uint32_t>());
        const auto count = cursor.value<uint64_t>();
        if (cursor.failed())
            return truncated(cursor, fmt::format("the array of key {}", quote(key)));
        if (element > Kind::f64)
            return corrupt(cursor.position(),
                           fmt::format("key {} is an array of type {}, which does not exist",
                                       quote(key), static_cast<uint32_t>(element)));
        if (count > cursor.left() / least_bytes(element))
            return corrupt(
                cursor.position(),
                fmt::format("key {} claims {} values of {}, more than the {} bytes left can hold",
                            quote(key), count, name(element), cursor.left()));
        if (entry) {
            entry->element = element;
            entry->count = count;
            entry->offset = cursor.position();
        }
        if (fixed_bytes(element) != 0 && element != Kind::boolean) {
            cursor.take(count * fixed_bytes(element));
        } else {
            for (uint64_t i = 0; i < count; ++i) {
                if (element == Kind::string) {
                    cursor.string<uint64_t>();
                    if (cursor.failed())
                        return truncated(cursor, fmt::format("string {} of key {}", i, quote(key)));
                } else if (auto ok = walk(cursor, element, key, depth + 1, nullptr); !ok) {
                    return ok;
                }
            }
        }
        return {};
    }
    if (entry) entry->offset = cursor.position();
    if (kind == Kind::string) {
        cursor.string<uint64_t>();
    } else if (kind == Kind::boolean) {
        if (cursor.value<uint8_t>() > 1)
            return corrupt(cursor.position() - 1,
                           fmt::format("key {} has a boolean that is neither 0 nor 1", quote(key)));
    } else {
        cursor.take(fixed_bytes(kind));
    }
    if (cursor.failed()) return truncated(cursor, fmt::format("the value of key {}", quote(key)));
    return {};
}

}  // namespace

std::string gguf::quote(std::string_view text, size_t most) {
    const bool cut = text.size() > most;
    if (cut) text = text.substr(0, base::utf8_complete_prefix(text.substr(0, most)));
    const bool valid = base::utf8_valid(text);
    std::string out = "'";
    for (const char c : text) {
        const auto byte = static_cast<uint8_t>(c);
        if (byte == '\n')
            out += "\\n";
        else if (byte < 0x20 || byte == 0x7f || (byte >= 0x80 && !valid))
            out += fmt::format("\\x{:02x}", byte);
        else
            out += c;
    }
    return out + (cut ? "…'" : "'");
}

Result<void> Gguf::Impl::parse() {
    Cursor cursor({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
    const std::string_view magic = cursor.take(4);
    if (cursor.failed()) return truncated(cursor, "the magic");
    if (magic != "GGUF") return corrupt(0, "not a GGUF file (no 'GGUF' at its start)");
    const auto version = cursor.value<uint32_t>();
    const auto tensor_count = cursor.value<uint64_t>();
    const auto meta_count = cursor.value<uint64_t>();
    if (cursor.failed()) return truncated(cursor, "the header");
    if (version == 0x02000000 || version == 0x03000000)
        return fail(Errc::unsupported, "a big-endian GGUF file: convert it to little-endian");
    if (version != 2 && version != 3)
        return fail(Errc::unsupported,
                    fmt::format("GGUF version {}: only 2 and 3 are read", version));
    if (meta_count > kMetaMax)
        return corrupt(16, fmt::format("{} metadata keys, {} are the most", meta_count, kMetaMax));
    if (tensor_count > kTensorsMax)
        return corrupt(8, fmt::format("{} tensors, {} are the most", tensor_count, kTensorsMax));
    if (auto ok = parse_metadata(cursor, meta_count); !ok) return ok;
    return parse_tensors(cursor, tensor_count);
}

Result<void> Gguf::Impl::parse_metadata(Cursor& cursor, uint64_t count) {
    for (uint64_t i = 0; i < count; ++i) {
        Entry entry;
        entry.key = cursor.string<uint64_t>();
        entry.kind = static_cast<Kind>(cursor.value<uint32_t>());
        if (cursor.failed())
            return truncated(cursor, fmt::format("metadata key {} of {}", i, count));
        if (entry.key.empty() || entry.key.size() > kKeyBytesMax)
            return corrupt(cursor.position(),
                           fmt::format("metadata key {} is {} bytes long, 1 to {} are allowed", i,
                                       entry.key.size(), kKeyBytesMax));
        if (auto ok = walk(cursor, entry.kind, entry.key, 0, &entry); !ok) return ok;
        entries.push_back(entry);
    }
    entries_by_key = sorted_by_name(entries, key_of);
    for (size_t i = 1; i < entries_by_key.size(); ++i) {
        const Entry& entry = entries[entries_by_key[i]];
        if (entry.key == entries[entries_by_key[i - 1]].key)
            return corrupt(entry.offset, fmt::format("key {} is there twice", quote(entry.key)));
    }
    return {};
}

Result<void> Gguf::Impl::parse_tensors(Cursor& cursor, uint64_t count) {
    uint64_t alignment = kAlignmentDefault;
    if (const Entry* entry = find("general.alignment")) {
        const auto value =
            is_integer(entry->kind) ? whole(entry->kind, at(*entry)) : Whole{0, false};
        alignment = value.bits;
        if (value.negative || alignment < 8 || alignment > kAlignmentMax ||
            !std::has_single_bit(alignment))
            return corrupt(entry->offset,
                           fmt::format("'general.alignment' is {}, not a power of two from 8 to {}",
                                       show_value(entry->kind, entry->offset), kAlignmentMax));
    }

    struct Extent {
        uint64_t offset, size;
        uint32_t index;
    };
    std::vector<Extent> extents;
    for (uint64_t i = 0; i < count; ++i) {
        const uint64_t start = cursor.position();
        Tensor tensor;
        const std::string_view tensor_name = cursor.string<uint64_t>();
        tensor.rank = cursor.value<uint32_t>();
        if (cursor.failed()) return truncated(cursor, fmt::format("tensor {} of {}", i, count));
        if (tensor_name.empty() || tensor_name.size() > kTensorNameBytesMax)
            return corrupt(
                start, fmt::format("the name of tensor {} is {} bytes long, 1 to {} are allowed", i,
                                   tensor_name.size(), kTensorNameBytesMax));
        tensor.name = tensor_name;
        if (tensor.rank < 1 || tensor.rank > tensor.dims.size())
            return corrupt(start, fmt::format("tensor {} has {} dimensions, 1 to {} are allowed",
                                              quote(tensor.name), tensor.rank, tensor.dims.size()));
        for (uint32_t d = 0; d < tensor.rank; ++d) tensor.dims[d] = cursor.value<uint64_t>();
        tensor.type = static_cast<kernels::Type>(cursor.value<uint32_t>());
        const auto offset = cursor.value<uint64_t>();
        if (cursor.failed()) return truncated(cursor, fmt::format("tensor {}", quote(tensor.name)));

        const auto traits = kernels::traits(tensor.type);
        if (!traits.name)
            return fail(Errc::unsupported,
                        fmt::format("tensor {} has type {}, which is not one that can be read",
                                    quote(tensor.name), static_cast<uint32_t>(tensor.type)));
        if (tensor.dims[0] % traits.block_weights != 0)
            return corrupt(
                start,
                fmt::format("tensor {} has rows of {} weights, not a multiple of {}'s {}",
                            quote(tensor.name), tensor.dims[0], traits.name, traits.block_weights));
        uint64_t size = tensor.dims[0] / traits.block_weights;
        bool overflow = __builtin_mul_overflow(size, uint64_t{traits.block_bytes}, &size);
        for (uint32_t d = 1; d < tensor.dims.size(); ++d)
            overflow |= __builtin_mul_overflow(size, tensor.dims[d], &size);
        if (overflow || size == 0)
            return corrupt(
                start, fmt::format("tensor {} has dimensions {}x{}x{}x{}: {}", quote(tensor.name),
                                   tensor.dims[0], tensor.dims[1], tensor.dims[2], tensor.dims[3],
                                   overflow ? "their product is out of range" : "no data"));
        if (offset % alignment != 0)
            return corrupt(
                start,
                fmt::format("tensor {} lies at offset {}, not a multiple of the alignment {}",
                            quote(tensor.name), offset, alignment));
        extents.push_back({offset, size, static_cast<uint32_t>(i)});
        tensors.push_back(std::move(tensor));
    }

    // cursor.position() ≤ the file's size, far from overflow.
    const uint64_t data_start = (cursor.position() + alignment - 1) / alignment * alignment;
    const uint64_t room = data_start < bytes.size() ? bytes.size() - data_start : 0;
    for (const Extent& extent : extents) {
        Tensor& tensor = tensors[extent.index];
        if (extent.offset > room || extent.size > room - extent.offset)
            return fail(
                Errc::corrupt,
                fmt::format("truncated GGUF at byte {}: tensor {} needs {} bytes at {} + {}",
                            bytes.size(), quote(tensor.name), extent.size, data_start,
                            extent.offset));
        tensor.data = bytes.subspan(data_start + extent.offset, extent.size);
    }
    // No two share bytes: so that all tensors together are never more than the file.
    std::sort(extents.begin(), extents.end(),
              [](const Extent& a, const Extent& b) { return a.offset < b.offset; });
    for (size_t i = 1; i < extents.size(); ++i) {
        if (extents[i].offset < extents[i - 1].offset + extents[i - 1].size)
            return corrupt(
                data_start + extents[i].offset,
                fmt::format("tensors {} and {} overlap", quote(tensors[extents[i - 1].index].name),
                            quote(tensors[extents[i].index].name)));
    }
    tensors_by_name = sorted_by_name(tensors, name_of);
    for (size_t i = 1; i < tensors_by_name.size(); ++i) {
        const Tensor& tensor = tensors[tensors_by_name[i]];
        if (tensor.name == tensors[tensors_by_name[i - 1]].name)
            return fail(Errc::corrupt,
                        fmt::format("corrupt GGUF: tensor {} is there twice", quote(tensor.name)));
    }
    return {};
}

}  // namespace parley::model
