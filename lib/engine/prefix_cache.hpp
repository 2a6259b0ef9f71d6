// PrefixCache: full KV blocks, found again by the text that they hold.
//
// Key      of block i: SHA-256 over the key of block i-1 and the 16 tokens. The first has a root
//          before it, made of model, KV type and tenant. Two tenants never have a key in common, so
//          neither text nor timing passes between them; there is no way to look without a root.
// Sharing  a full block is never written again, so those who read it need no copy: branches share
//          the full blocks before their fork. Where a block only begins as a prompt goes on, the
//          prompt gets a copy of it (copy on write, made at once since it will be written) and is
//          computed from where they differ.
// Order    what nobody reads goes when blocks are wanted: the one used longest ago among those that
//          no kept block follows (leaves), so that a chain shrinks from its end.
// Bound    `unused_max` blocks that nobody reads; 0 keeps nothing, and no key is ever made.
// Owns     one reference to each block it knows. Whoever reads a block also reads all before it:
//          a block that nobody reads is followed by such ones only.
// Threads  the engine's.
#pragma once

#include <array>
#include <cstdint>
#include <set>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "engine/block_pool.hpp"
#include "model/tokenizer.hpp"

namespace parley::engine {

using PrefixKey = std::array<uint64_t, 4>;

// Of the blocks of one tenant with one model; any change gives other keys.
PrefixKey prefix_root(std::string_view model, std::string_view kv_type, std::string_view tenant);
// Of one sequence alone: nobody shares with it, nor it with anyone.
PrefixKey private_root(std::string_view model, std::string_view kv_type, uint64_t handle);
// `tokens`: the kBlockTokens of one block.
PrefixKey prefix_key(const PrefixKey& before, std::span<const model::Token> tokens);

class PrefixCache {
  public:
    PrefixCache(BlockPool& pool, uint32_t unused_max);

    bool on() const { return unused_max_ > 0; }

    struct Match {
        uint32_t blocks = 0;  // from the first on
        uint32_t unused = 0;  // of these, read by nobody
    };
    Match match(std::span<const PrefixKey> keys) const;
    uint32_t block(const PrefixKey& key) const { return found_.at(key); }  // of a match
    // The blocks of keys that match() found, one reference more each, appended to `out`.
    void share(std::span<const PrefixKey> keys, std::vector<uint32_t>& out);
    // `block` is full. Gives the block to read from now on: another one if these tokens are there
    // already; the caller's reference has moved to it. `before` is the one known before it, for the
    // first any value with `first`.
    uint32_t keep(const PrefixKey& key, uint32_t block, bool first, uint32_t before);
    // What a kept block holds, and the key before it (the root for a first one): part() finds it.
    void describe(uint32_t block, const PrefixKey& before, std::span<const model::Token> tokens);
    struct Part {
        uint32_t block = 0;
        uint32_t tokens = 0;  // that it has in common with those sought; 0: none has
    };
    // The block after `before` that begins with the most of `tokens`, of kPartsMost that are looked at.
    // No reference is taken: it may be evicted, but is not written before the next iteration.
    Part part(const PrefixKey& before, std::span<const model::Token> tokens) const;
    // A reader's references, in order: what is not known here is free at once.
    void give_back(std::span<const uint32_t> blocks);
    // Lets go of what nobody reads among `keys`, the last first.
    void forget(std::span<const PrefixKey> keys);
    // At most `count` blocks become free; says how many did.
    uint32_t evict(uint32_t count);

    uint32_t unused() const { return unused_; }  // all of them can be evicted
    uint32_t known() const { return static_cast<uint32_t>(found_.size()); }
    uint64_t evicted() const { return evicted_; }
    bool knows(uint32_t block) const { return entries_[block].known; }

  private:
    static constexpr uint32_t kNone = UINT32_MAX;
    static constexpr int kPartsMost = 64;
    struct Entry {
        PrefixKey key{};
        uint32_t before = kNone;
        uint32_t after = 0;    // known blocks that follow directly
        uint64_t used_at = 0;  // by the count of give_back() calls
        bool known = false;
        bool described = false;
        PrefixKey parent{};
        std::array<model::Token, 16> tokens{};
    };
    struct Hash {
        size_t operator()(const PrefixKey& key) const { return static_cast<size_t>(key[0]); }
    };

    void reference(uint32_t block);
    void dereference(uint32_t block);
    void drop(uint32_t block);

    BlockPool& pool_;
    uint32_t unused_max_;
    std::vector<Entry> entries_;  // by block
    std::unordered_map<PrefixKey, uint32_t, Hash> found_;
    std::unordered_multimap<PrefixKey, uint32_t, Hash> after_;  // described ones, by parent
    std::set<std::pair<uint64_t, uint32_t>> leaves_;  // unused ones, by used_at
    uint32_t unused_ = 0;
    uint64_t now_ = 0;
    uint64_t evicted_ = 0;
};

}  // namespace parley::engine
