#include "model/gguf.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <mutex>
#include <numeric>

#include "base/text.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read as they lie");

constexpr uint64_t kKeyBytesMax = 65'535;  // the format's own bound
constexpr uint64_t kTensorNameBytesMax = 1'024;
constexpr uint64_t kAlignmentDefault = 32;
constexpr uint64_t kAlignmentMax = 1ull << 20;

// GGUF's own numbers.
enum class Kind : uint32_t {
    u8 = 0,
    i8 = 1,
    u16 = 2,
    i16 = 3,
    u32 = 4,
    i32 = 5,
    f32 = 6,
    boolean = 7,
    string = 8,
    array = 9,
    u64 = 10,
    i64 = 11,
    f64 = 12,
};

// Bytes of a value of fixed size; 0 for strings, arrays and numbers that are no kind.
constexpr uint64_t fixed_bytes(Kind kind) {
    switch (kind) {
        case Kind::u8:
        case Kind::i8:
        case Kind::boolean:
            return 1;
        case Kind::u16:
        case Kind::i16:
            return 2;
        case Kind::u32:
        case Kind::i32:
        case Kind::f32:
            return 4;
        case Kind::u64:
        case Kind::i64:
        case Kind::f64:
            return 8;
        case Kind::string:
        case Kind::array:
            break;
    }
    return 0;
}

// What a value takes at the least, so that a count can be refused before anything is walked.
constexpr uint64_t least_bytes(Kind kind) {
    if (kind == Kind::string) return 8;
    if (kind == Kind::array) return 12;
    return fixed_bytes(kind);
}

constexpr const char* name(Kind kind) {
    constexpr const char* kNames[] = {"uint8",  "int8",    "uint16",  "int16",  "uint32",
                                      "int32",  "float32", "boolean", "string", "array",
                                      "uint64", "int64",   "float64"};
    return kNames[static_cast<uint32_t>(kind)];
}

template <class T>
T load(const uint8_t* from) {
    T value;
    std::memcpy(&value, from, sizeof value);
    return value;
}

bool is_integer(Kind kind) { return kind <= Kind::i32 || kind == Kind::u64 || kind == Kind::i64; }

// An integer of any width: magnitude and sign apart, so that all of uint64 and int64 fits.
struct Whole {
    uint64_t bits;
    bool negative;
};

Whole whole(Kind kind, const uint8_t* at) {
    const auto of = [](int64_t value) { return Whole{static_cast<uint64_t>(value), value < 0}; };
    switch (kind) {
        case Kind::u8:
            return {load<uint8_t>(at), false};
        case Kind::u16:
            return {load<uint16_t>(at), false};
        case Kind::u32:
            return {load<uint32_t>(at), false};
        case Kind::u64:
            return {load<uint64_t>(at), false};
        case Kind::i8:
            return of(load<int8_t>(at));
        case Kind::i16:
            return of(load<int16_t>(at));
        case Kind::i32:
            return of(load<int32_t>(at));
        default:
            return of(load<int64_t>(at));
    }
}

std::optional<int64_t> to_int64(Whole value) {
    if (!value.negative && value.bits > static_cast<uint64_t>(INT64_MAX)) return std::nullopt;
    return static_cast<int64_t>(value.bits);
}

struct Entry {
    std::string_view key;
    Kind kind{};
    Kind element{};       // of an array
    uint64_t count = 0;   // of an array
    uint64_t offset = 0;  // of the value's first byte; of an array, its first element
};

// Reads forward through the file; the first read past its end latches `failed` and reads as zero
// from then on, so that a run of fields is checked once.
class Cursor {
  public:
    explicit Cursor(std::span<const uint8_t> bytes) : bytes_(bytes) {}

    uint64_t position() const { return position_; }
    uint64_t left() const { return bytes_.size() - position_; }
    bool failed() const { return failed_; }

    const uint8_t* take(uint64_t count) {
        if (failed_ || count > left()) {
            failed_ = true;
            return nullptr;
        }
        const uint8_t* at = bytes_.data() + position_;
        position_ += count;
        return at;
    }
    template <class T>
    T value() {
        const uint8_t* at = take(sizeof(T));
        return at ? load<T>(at) : T{};
    }
    std::string_view string() {
        const auto size = value<uint64_t>();
        const uint8_t* at = take(size);
        return at ? std::string_view(reinterpret_cast<const char*>(at), size) : std::string_view();
    }

  private:
    std::span<const uint8_t> bytes_;
    uint64_t position_ = 0;
    bool failed_ = false;
};

tl::unexpected<base::Error> corrupt(uint64_t position, std::string what) {
    return fail(Errc::corrupt, fmt::format("corrupt GGUF at byte {}: {}", position, what));
}

tl::unexpected<base::Error> truncated(const Cursor& cursor, std::string_view doing) {
    return fail(Errc::corrupt,
                fmt::format("truncated GGUF at byte {}: {} needs more than the {} bytes left",
                            cursor.position(), doing, cursor.left()));
}

// Names come from the file: shown in messages short and printable.
std::string quote(std::string_view text, size_t most = 64) {
    std::string out = "'";
    for (size_t i = 0; i < text.size(); ++i) {
        if (i == most) {
            out += "…";
            break;
        }
        const auto byte = static_cast<uint8_t>(text[i]);
        if (byte == '\n')
            out += "\\n";
        else if (byte < 0x20 || byte == 0x7f)
            out += fmt::format("\\x{:02x}", byte);
        else
            out += text[i];
    }
    out.resize(base::utf8_complete_prefix(out));
    return out + "'";
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
                    cursor.string();
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
        cursor.string();
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

// Indices of `items` in the order of their names. Sorted rather than hashed: a hostile file can
// choose names that collide, it cannot make a sort slow.
template <class Items, class Name>
std::vector<uint32_t> sorted_by_name(const Items& items, Name name) {
    std::vector<uint32_t> order(items.size());
    std::iota(order.begin(), order.end(), 0u);
    std::sort(order.begin(), order.end(),
              [&](uint32_t a, uint32_t b) { return name(items[a]) < name(items[b]); });
    return order;
}

template <class Items, class Name>
const typename Items::value_type* find_by_name(const Items& items,
                                               const std::vector<uint32_t>& order,
                                               std::string_view wanted, Name name) {
    const auto at =
        std::lower_bound(order.begin(), order.end(), wanted,
                         [&](uint32_t i, std::string_view key) { return name(items[i]) < key; });
    return at != order.end() && name(items[*at]) == wanted ? &items[*at] : nullptr;
}

std::string_view key_of(const Entry& entry) { return entry.key; }
std::string_view name_of(const Tensor& tensor) { return tensor.name; }

}  // namespace

struct Gguf::Impl {
    std::vector<uint8_t> owned;  // of parse()
    void* mapping = nullptr;     // of open()
    std::span<const uint8_t> bytes;
    std::vector<Entry> entries;
    std::vector<uint32_t> entries_by_key;
    std::vector<Tensor> tensors;
    std::vector<uint32_t> tensors_by_name;
    std::once_flag hashed;
    std::string hash;

    Impl() = default;
    Impl(const Impl&) = delete;
    ~Impl() {
        if (mapping) munmap(mapping, bytes.size());
    }

    const Entry* find(std::string_view key) const {
        return find_by_name(entries, entries_by_key, key, key_of);
    }
    const uint8_t* at(const Entry& entry) const { return bytes.data() + entry.offset; }
    std::string_view string_at(uint64_t offset) const {
        const auto size = load<uint64_t>(bytes.data() + offset);
        return {reinterpret_cast<const char*>(bytes.data() + offset + 8), size};
    }

    Result<void> parse();
    Result<void> parse_metadata(Cursor& cursor, uint64_t count);
    Result<void> parse_tensors(Cursor& cursor, uint64_t count);
    std::string show_value(Kind kind, uint64_t offset) const;
};

Result<void> Gguf::Impl::parse() {
    Cursor cursor(bytes);
    const uint8_t* magic = cursor.take(4);
    if (!magic) return truncated(cursor, "the magic");
    if (std::memcmp(magic, "GGUF", 4) != 0)
        return corrupt(0, "not a GGUF file (no 'GGUF' at its start)");
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
        entry.key = cursor.string();
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
        const std::string_view tensor_name = cursor.string();
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

std::string Gguf::Impl::show_value(Kind kind, uint64_t offset) const {
    const uint8_t* from = bytes.data() + offset;
    if (kind == Kind::string) return quote(string_at(offset));
    if (kind == Kind::boolean) return *from ? "true" : "false";
    if (kind == Kind::f32) return fmt::format("{}", load<float>(from));
    if (kind == Kind::f64) return fmt::format("{}", load<double>(from));
    if (kind == Kind::array) return "[…]";
    const Whole value = whole(kind, from);
    return value.negative ? fmt::format("{}", static_cast<int64_t>(value.bits))
                          : fmt::format("{}", value.bits);
}

Gguf::Gguf(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Gguf::Gguf(Gguf&&) noexcept = default;
Gguf& Gguf::operator=(Gguf&&) noexcept = default;
Gguf::~Gguf() = default;

Result<Gguf> Gguf::open(const std::string& path) {
    const std::string doing = fmt::format("cannot open '{}'", path);
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail(base::errno_error(errno, doing));
    auto impl = std::make_unique<Impl>();
    struct stat info {};
    int error = fstat(fd, &info) != 0 ? errno : 0;
    if (!error && S_ISDIR(info.st_mode)) error = EISDIR;
    const bool regular = !error && S_ISREG(info.st_mode);
    const auto size = regular ? static_cast<uint64_t>(info.st_size) : 0;
    // A private mapping of a file that somebody truncates later faults on access, as every mapped
    // file does: models are put in place by rename and never written to.
    if (!error && size > 0) {
        void* mapping = mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
        if (mapping == MAP_FAILED) {
            error = errno;
        } else {
            impl->mapping = mapping;
            impl->bytes = {static_cast<const uint8_t*>(mapping), size};
        }
    }
    ::close(fd);
    if (error) return fail(base::errno_error(error, doing));
    if (!regular)
        return fail(Errc::invalid, fmt::format("cannot open '{}': not a regular file", path));
    if (auto ok = impl->parse(); !ok) return fail(fmt::format("'{}'", path), ok.error());
    return Gguf(std::move(impl));
}

Result<Gguf> Gguf::parse(std::vector<uint8_t> bytes) {
    auto impl = std::make_unique<Impl>();
    impl->owned = std::move(bytes);
    impl->bytes = impl->owned;
    if (auto ok = impl->parse(); !ok) return fail(ok.error());
    return Gguf(std::move(impl));
}

std::optional<uint64_t> Gguf::uint(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || !is_integer(entry->kind)) return std::nullopt;
    const Whole value = whole(entry->kind, impl_->at(*entry));
    if (value.negative) return std::nullopt;
    return value.bits;
}

std::optional<int64_t> Gguf::integer(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || !is_integer(entry->kind)) return std::nullopt;
    return to_int64(whole(entry->kind, impl_->at(*entry)));
}

std::optional<double> Gguf::real(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry) return std::nullopt;
    if (entry->kind == Kind::f32) return load<float>(impl_->at(*entry));
    if (entry->kind == Kind::f64) return load<double>(impl_->at(*entry));
    if (!is_integer(entry->kind)) return std::nullopt;
    const Whole value = whole(entry->kind, impl_->at(*entry));
    return value.negative ? static_cast<double>(static_cast<int64_t>(value.bits))
                          : static_cast<double>(value.bits);
}

std::optional<bool> Gguf::boolean(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || entry->kind != Kind::boolean) return std::nullopt;
    return *impl_->at(*entry) != 0;
}

std::optional<std::string_view> Gguf::string(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || entry->kind != Kind::string) return std::nullopt;
    return impl_->string_at(entry->offset);
}

std::optional<std::vector<std::string_view>> Gguf::strings(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || entry->kind != Kind::array || entry->element != Kind::string) return std::nullopt;
    std::vector<std::string_view> out;
    out.reserve(entry->count);
    uint64_t offset = entry->offset;
    for (uint64_t i = 0; i < entry->count; ++i) {
        out.push_back(impl_->string_at(offset));
        offset += 8 + out.back().size();
    }
    return out;
}

std::optional<std::vector<float>> Gguf::reals(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || entry->kind != Kind::array) return std::nullopt;
    if (entry->element != Kind::f32 && entry->element != Kind::f64) return std::nullopt;
    std::vector<float> out(entry->count);
    const uint8_t* from = impl_->at(*entry);
    if (entry->element == Kind::f32) {
        if (!out.empty()) std::memcpy(out.data(), from, out.size() * sizeof(float));
        return out;
    }
    for (float& value : out) {
        // A double outside float's range would be undefined behaviour to convert.
        const auto wide = load<double>(from);
        value = std::abs(wide) > 3.4028234e38
                    ? std::copysign(HUGE_VALF, static_cast<float>(wide > 0 ? 1 : -1))
                    : static_cast<float>(wide);
        from += sizeof(double);
    }
    return out;
}

std::optional<std::vector<int64_t>> Gguf::integers(std::string_view key) const {
    const Entry* entry = impl_->find(key);
    if (!entry || entry->kind != Kind::array || !is_integer(entry->element)) return std::nullopt;
    std::vector<int64_t> out(entry->count);
    const uint8_t* from = impl_->at(*entry);
    for (int64_t& value : out) {
        const auto read = to_int64(whole(entry->element, from));
        if (!read) return std::nullopt;
        value = *read;
        from += fixed_bytes(entry->element);
    }
    return out;
}

std::vector<std::string> Gguf::keys() const {
    std::vector<std::string> out;
    out.reserve(impl_->entries.size());
    for (const Entry& entry : impl_->entries) out.emplace_back(entry.key);
    return out;
}

std::string Gguf::show(std::string_view key) const {
    constexpr uint64_t kShown = 4;
    const Entry* entry = impl_->find(key);
    if (!entry) return "";
    if (entry->kind != Kind::array) return impl_->show_value(entry->kind, entry->offset);
    std::string out = fmt::format("{} × {}", entry->count, name(entry->element));
    if (entry->element == Kind::array || entry->count == 0) return out;
    out += ": ";
    uint64_t offset = entry->offset;
    for (uint64_t i = 0; i < std::min(entry->count, kShown); ++i) {
        if (i > 0) out += ", ";
        out += impl_->show_value(entry->element, offset);
        offset += entry->element == Kind::string ? 8 + impl_->string_at(offset).size()
                                                 : fixed_bytes(entry->element);
    }
    if (entry->count > kShown) out += ", …";
    return out;
}

const std::vector<Tensor>& Gguf::tensors() const { return impl_->tensors; }

const Tensor* Gguf::tensor(std::string_view name) const {
    return find_by_name(impl_->tensors, impl_->tensors_by_name, name, name_of);
}

uint64_t Gguf::file_bytes() const { return impl_->bytes.size(); }

std::string_view Gguf::content_hash() const {
    std::call_once(impl_->hashed, [this] {
        const auto bytes = impl_->bytes;
        impl_->hash =
            base::hex(base::sha256({reinterpret_cast<const char*>(bytes.data()), bytes.size()}));
    });
    return impl_->hash;
}

void Gguf::drop_pages() const {
    // Out of this process's resident set only; the page cache keeps them for the next worker.
    if (impl_->mapping) madvise(impl_->mapping, impl_->bytes.size(), MADV_DONTNEED);
}

}  // namespace parley::model
