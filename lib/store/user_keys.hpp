// UserKeys: one key a user, beside the database and never in it, so that destroying 32 bytes destroys
// every copy of what the user wrote: rows, freed pages, backups.
//
// Files    KEYS/users   slots of 128 bytes: state 1 ('k' live, 'x' erased) · zero 7 · user 16 · nonce 24 ·
//                       key 32 and tag 16, wrapped by the master key · zero 32. A slot is never used again.
//          KEYS/master  32 bytes. Both 0600, made by the writer, in no backup.
// Sealed   slot 4 · nonce 24 · XChaCha20-Poly1305 of the text, its tag 16; bound to what `bound` says.
// Erase    overwrites the slot in place and syncs. What a disk or file system keeps of overwritten blocks
//          (snapshots, wear levelling) is its own: there the master key's medium has to be erased as well.
// Reads    a slot is read for each open(), no key is cached: an erased one is gone in every process.
// Threads  seal, slot_of and erase: the writer's. open: any.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>

#include "store/rows.hpp"

namespace parley::store {

class UserKeys {
  public:
    // A folder that is not there is made when writable, and holds no key otherwise (a backup, or a store
    // whose writer is just starting: it is looked for again).
    static Result<std::unique_ptr<UserKeys>> open(const std::string& dir, bool writable);
    ~UserKeys();
    UserKeys(const UserKeys&) = delete;
    UserKeys& operator=(const UserKeys&) = delete;

    // The user's live slot; made, and durable, where there is none.
    Result<uint32_t> slot_of(const Ulid& user);
    std::optional<uint32_t> known_slot(const Ulid& user) const;
    Result<std::string> seal(uint32_t slot, std::string_view bound, std::string_view text) const;
    // Errc::not_found when the key was erased, unsupported when there are no keys here, corrupt otherwise.
    Result<std::string> open(std::string_view bound, std::string_view sealed) const;
    // Durable on return. Twice is fine; so is a slot that never was.
    Result<void> erase(uint32_t slot);
    uint64_t slots() const { return slots_; }
    // False: a backup without its keys; what is sealed cannot be opened.
    bool present() const { return fd_ >= 0; }

  private:
    UserKeys() = default;
    Result<std::string> key_of(uint32_t slot) const;
    Result<void> take_up(bool writable) const;

    std::string dir_;
    mutable std::mutex mutex_;  // of take_up()
    mutable std::atomic<int> fd_ = -1;  // -1: no keys yet; set after master_
    uint64_t slots_ = 0;  // of the writer
    mutable std::string master_;
    std::unordered_map<std::string, uint32_t> live_;  // of the writer: user's 16 bytes → slot
};

}  // namespace parley::store
