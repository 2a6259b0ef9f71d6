#include "model/gguf.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/sha.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cmath>

#include "base/text.hpp"
#include "model/gguf_impl.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;
using namespace gguf;

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
        // OpenSSL's uses the CPU's SHA instructions, libsodium's does not: 90 ms instead of 550 for
        // 98 MB, at every start of a worker.
        unsigned char digest[SHA256_DIGEST_LENGTH];
        SHA256(impl_->bytes.data(), impl_->bytes.size(), digest);
        impl_->hash = base::hex({reinterpret_cast<const char*>(digest), sizeof digest});
    });
    return impl_->hash;
}

void Gguf::drop_pages() const {
    // Out of this process's resident set only; the page cache keeps them for the next worker.
    if (impl_->mapping) madvise(impl_->mapping, impl_->bytes.size(), MADV_DONTNEED);
}

}  // namespace parley::model
