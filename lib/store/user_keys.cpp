#include "store/user_keys.hpp"

#include <fcntl.h>
#include <fmt/format.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.hpp"
#include "store/record.hpp"

namespace parley::store {
namespace {

constexpr size_t kSlot = 128;
constexpr size_t kUserAt = 8, kNonceAt = 24, kKeyAt = 48;
constexpr size_t kNonce = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES;
constexpr size_t kTag = crypto_aead_xchacha20poly1305_ietf_ABYTES;
constexpr size_t kKeyBytes = crypto_aead_xchacha20poly1305_ietf_KEYBYTES;
static_assert(kKeyAt + kKeyBytes + kTag <= kSlot);

const uint8_t* bytes(std::string_view text) {
    return reinterpret_cast<const uint8_t*>(text.data());
}
uint8_t* bytes(std::string& text) { return reinterpret_cast<uint8_t*>(text.data()); }

std::string encrypt(std::string_view key, std::string_view nonce, std::string_view bound,
                    std::string_view text) {
    std::string out(text.size() + kTag, '\0');
    crypto_aead_xchacha20poly1305_ietf_encrypt(bytes(out), nullptr, bytes(text), text.size(),
                                               bytes(bound), bound.size(), nullptr, bytes(nonce),
                                               bytes(key));
    return out;
}
std::optional<std::string> decrypt(std::string_view key, std::string_view nonce,
                                   std::string_view bound, std::string_view sealed) {
    if (sealed.size() < kTag) return std::nullopt;
    std::string out(sealed.size() - kTag, '\0');
    if (crypto_aead_xchacha20poly1305_ietf_decrypt(bytes(out), nullptr, nullptr, bytes(sealed),
                                                   sealed.size(), bytes(bound), bound.size(),
                                                   bytes(nonce), bytes(key)) != 0)
        return std::nullopt;
    return out;
}
std::string random(size_t size) {
    std::string out(size, '\0');
    randombytes_buf(out.data(), size);
    return out;
}
std::string bound_to(uint32_t slot, std::string_view user) {
    std::string bound;
    put_u32(bound, slot);
    bound += user;
    return bound;
}

}  // namespace

Result<std::unique_ptr<UserKeys>> UserKeys::open(const std::string& dir, bool writable) {
    std::unique_ptr<UserKeys> keys(new UserKeys());
    keys->dir_ = dir;
    if (sodium_init() < 0) return fail(Errc::internal, "libsodium does not start");
    const std::string users = dir + "/users", master = dir + "/master";
    if (writable) {
        if (auto made = base::make_dirs(dir); !made) return fail(made.error());
        if (::chmod(dir.c_str(), 0700) != 0)
            return fail(base::errno_error(errno, fmt::format("cannot make '{}' private", dir)));
        if (::access(master.c_str(), F_OK) != 0) {
            // Another master key than the one that wrapped the slots would make all of them unreadable.
            struct stat about {};
            if (::stat(users.c_str(), &about) == 0 && about.st_size > 0)
                return fail(
                    Errc::corrupt,
                    fmt::format("'{}' is missing, and there are keys that it wraps: put it back",
                                master));
            if (auto made = base::write_file(master, random(kKeyBytes), 0600); !made)
                return fail(made.error());
        }
        if (::access(users.c_str(), F_OK) != 0)
            if (auto made = base::write_file(users, "", 0600); !made) return fail(made.error());
    } else if (::access(users.c_str(), F_OK) != 0) {
        return keys;
    }
    if (auto taken = keys->take_up(writable); !taken) return fail(taken.error());
    if (!writable) return keys;
    std::string slot(kSlot, '\0');
    for (;; ++keys->slots_) {
        const ssize_t got =
            ::pread(keys->fd_, slot.data(), kSlot, static_cast<off_t>(keys->slots_ * kSlot));
        if (got < 0) return fail(base::errno_error(errno, fmt::format("cannot read '{}'", users)));
        // A cut slot was never synced, so nothing rests on it: the next one takes its place.
        if (static_cast<size_t>(got) < kSlot) break;
        if (slot[0] == 'k')
            keys->live_[slot.substr(kUserAt, 16)] = static_cast<uint32_t>(keys->slots_);
    }
    return keys;
}

Result<void> UserKeys::take_up(bool writable) const {
    const std::lock_guard lock(mutex_);
    if (fd_ >= 0) return {};
    const std::string users = dir_ + "/users", master = dir_ + "/master";
    auto key = base::read_file(master, 4096);
    if (!key) return fail(key.error());
    if (key->size() != kKeyBytes)
        return fail(Errc::corrupt,
                    fmt::format("'{}' has {} bytes, not {}", master, key->size(), kKeyBytes));
    const int fd = ::open(users.c_str(), (writable ? O_RDWR : O_RDONLY) | O_CLOEXEC);
    if (fd < 0) return fail(base::errno_error(errno, fmt::format("cannot open '{}'", users)));
    master_ = std::move(*key);
    fd_ = fd;
    return {};
}

UserKeys::~UserKeys() {
    if (fd_ >= 0) ::close(fd_);
    sodium_memzero(master_.data(), master_.size());
}

std::optional<uint32_t> UserKeys::known_slot(const Ulid& user) const {
    const auto it = live_.find(std::string(user.view()));
    return it == live_.end() ? std::nullopt : std::optional(it->second);
}

Result<uint32_t> UserKeys::slot_of(const Ulid& user) {
    if (const auto known = known_slot(user)) return *known;
    const auto number = static_cast<uint32_t>(slots_);
    std::string slot("k\0\0\0\0\0\0\0", 8);
    slot += user.view();
    const std::string nonce = random(kNonce);
    slot += nonce + encrypt(master_, nonce, bound_to(number, user.view()), random(kKeyBytes));
    slot.resize(kSlot, '\0');
    const ssize_t wrote = ::pwrite(fd_, slot.data(), kSlot, static_cast<off_t>(slots_ * kSlot));
    if (wrote != static_cast<ssize_t>(kSlot) || ::fdatasync(fd_) != 0) {
        const int error = wrote >= 0 && wrote < static_cast<ssize_t>(kSlot) ? ENOSPC : errno;
        const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG;
        return fail(full ? Errc::again : Errc::io,
                    fmt::format("cannot keep a new user's key in '{}/users': {}", dir_,
                                full ? "the disk is full" : "the disk failed"));
    }
    ++slots_;
    live_[std::string(user.view())] = number;
    return number;
}

Result<std::string> UserKeys::key_of(uint32_t number) const {
    // Who opened the store in its first moment came before the writer had made the folder.
    if (fd_ < 0 && (::access((dir_ + "/users").c_str(), F_OK) != 0 || !take_up(false)))
        return fail(Errc::unsupported, fmt::format("sealed, and there are no keys in '{}'", dir_));
    std::string slot(kSlot, '\0');
    const ssize_t got =
        ::pread(fd_, slot.data(), kSlot, static_cast<off_t>(number) * static_cast<off_t>(kSlot));
    if (got < 0) return fail(base::errno_error(errno, fmt::format("cannot read '{}/users'", dir_)));
    if (static_cast<size_t>(got) == kSlot && slot[0] == 'x')
        return fail(Errc::not_found, "sealed under a key that was erased");
    if (static_cast<size_t>(got) != kSlot || slot[0] != 'k')
        return fail(Errc::corrupt,
                    fmt::format("sealed under key {}, which '{}/users' has not", number, dir_));
    const std::string_view view(slot);
    auto key =
        decrypt(master_, view.substr(kNonceAt, kNonce), bound_to(number, view.substr(kUserAt, 16)),
                view.substr(kKeyAt, kKeyBytes + kTag));
    if (!key)
        return fail(
            Errc::corrupt,
            fmt::format("key {} of '{}/users' does not open with '{}/master'", number, dir_, dir_));
    return std::move(*key);
}

Result<std::string> UserKeys::seal(uint32_t slot, std::string_view bound,
                                   std::string_view text) const {
    auto key = key_of(slot);
    if (!key) return key;
    std::string out;
    put_u32(out, slot);
    const std::string nonce = random(kNonce);
    out += nonce + encrypt(*key, nonce, bound, text);
    sodium_memzero(key->data(), key->size());
    return out;
}

Result<std::string> UserKeys::open(std::string_view bound, std::string_view sealed) const {
    if (sealed.size() < 4 + kNonce + kTag) return fail(Errc::corrupt, "sealed value too short");
    auto key = key_of(get_u32(sealed.substr(0, 4)));
    if (!key) return key;
    auto text = decrypt(*key, sealed.substr(4, kNonce), bound, sealed.substr(4 + kNonce));
    sodium_memzero(key->data(), key->size());
    if (!text) return fail(Errc::corrupt, "sealed value does not open with its key");
    return std::move(*text);
}

Result<void> UserKeys::erase(uint32_t number) {
    if (number >= slots_) return {};
    std::string slot(kSlot, '\0');
    slot[0] = 'x';
    // Noise first: two different writes, each synced, of which the last says that it is over.
    std::string noise = random(kSlot);
    noise[0] = 'x';
    for (const std::string& over : {noise, slot})
        if (::pwrite(fd_, over.data(), kSlot,
                     static_cast<off_t>(number) * static_cast<off_t>(kSlot)) !=
                static_cast<ssize_t>(kSlot) ||
            ::fdatasync(fd_) != 0)
            return fail(
                base::errno_error(errno, fmt::format("cannot erase a key in '{}/users'", dir_)));
    std::erase_if(live_, [&](const auto& entry) { return entry.second == number; });
    return {};
}

}  // namespace parley::store
