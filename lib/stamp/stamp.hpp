// Stamp: the chain by which chatd knows that a filter has judged an event (protocol: the stamp).
//
// mac(n) = BLAKE2b-256, keyed, over (request id, attempt, seq, mac(n-1), policy, event bytes), each
// length-prefixed; mac(0) is 32 zero bytes in each attempt. Loss, order, replay and forgery show.
// Threads  a chain belongs to one stream on one thread; the key may be shared.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"

namespace parley::stamp {

class Key {
  public:
    static constexpr size_t kBytes = 32;
    // Reads `path` (must be 0600 or stricter, 32 bytes), making it with O_EXCL where it does not
    // exist: whichever filter starts first makes it, and it is kept over restarts.
    static base::Result<Key> open_or_make(const std::string& path);
    // Reads only: what chatd does. Errc::not_found while no filter has made one.
    static base::Result<Key> open(const std::string& path);
    static Key from_bytes(const std::array<uint8_t, kBytes>& bytes);  // tests

  private:
    friend class Chain;
    std::array<uint8_t, kBytes> bytes_{};
};

class Chain {
  public:
    Chain(const Key& key, std::string request_id, uint32_t attempt);
    // The stamp of the next event, as 64 hex digits; moves the chain on.
    std::string next(uint64_t seq, std::string_view policy, std::string_view event);
    // True, and the chain moves on, exactly if `stamp` is the next one. After a false nothing is
    // accepted any more: the chain is broken for good.
    bool check(uint64_t seq, std::string_view policy, std::string_view event,
               std::string_view stamp);

  private:
    std::array<uint8_t, 32> compute(uint64_t seq, std::string_view policy,
                                    std::string_view event) const;
    Key key_;
    std::string id_;
    uint32_t attempt_;
    std::array<uint8_t, 32> mac_{};
    bool broken_ = false;
};

}  // namespace parley::stamp
