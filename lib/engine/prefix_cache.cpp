#include "engine/prefix_cache.hpp"

#include <algorithm>
#include <cassert>
#include <cstring>
#include <string>

#include "base/text.hpp"
#include "engine/forward.hpp"

namespace parley::engine {
namespace {

PrefixKey key_of(std::string_view bytes) {
    const std::string digest = base::sha256(bytes);
    PrefixKey key;
    static_assert(sizeof key == 32);
    std::memcpy(key.data(), digest.data(), sizeof key);
    return key;
}

// Lengths before the parts: no two lists of parts give the same bytes.
void part(std::string& out, std::string_view text) {
    const uint64_t size = text.size();
    out.append(reinterpret_cast<const char*>(&size), sizeof size);
    out += text;
}

PrefixKey root(std::string_view kind, std::string_view model, std::string_view kv_type,
               std::string_view reader) {
    std::string bytes;
    for (const std::string_view text : {kind, model, kv_type, reader}) part(bytes, text);
    return key_of(bytes);
}

}  // namespace

PrefixKey prefix_root(std::string_view model, std::string_view kv_type, std::string_view tenant) {
    return root("tenant", model, kv_type, tenant);
}

PrefixKey private_root(std::string_view model, std::string_view kv_type, uint64_t handle) {
    return root("sequence", model, kv_type, std::to_string(handle));
}

PrefixKey prefix_key(const PrefixKey& before, std::span<const model::Token> tokens) {
    assert(tokens.size() == kBlockTokens);
    std::array<char, sizeof before + kBlockTokens * sizeof(model::Token)> bytes;
    std::memcpy(bytes.data(), before.data(), sizeof before);
    std::memcpy(bytes.data() + sizeof before, tokens.data(), tokens.size_bytes());
    return key_of({bytes.data(), bytes.size()});
}

PrefixCache::PrefixCache(BlockPool& pool, uint32_t unused_max)
    : pool_(pool), unused_max_(unused_max), entries_(pool.blocks_max()) {}

PrefixCache::Match PrefixCache::match(std::span<const PrefixKey> keys) const {
    Match match;
    for (const PrefixKey& key : keys) {
        const auto found = found_.find(key);
        if (found == found_.end()) break;
        ++match.blocks;
        match.unused += pool_.references(found->second) == 1;
    }
    return match;
}

void PrefixCache::reference(uint32_t block) {
    const Entry& entry = entries_[block];
    if (pool_.references(block) == 1) {
        --unused_;
        if (entry.after == 0) leaves_.erase({entry.used_at, block});
    }
    pool_.share(block);
}

void PrefixCache::dereference(uint32_t block) {
    pool_.give_back(std::span(&block, 1));
    Entry& entry = entries_[block];
    if (!entry.known || pool_.references(block) != 1) return;
    ++unused_;
    entry.used_at = now_;
    if (entry.after == 0) leaves_.insert({entry.used_at, block});
}

void PrefixCache::share(std::span<const PrefixKey> keys, std::vector<uint32_t>& out) {
    for (const PrefixKey& key : keys) {
        const uint32_t block = found_.at(key);
        reference(block);
        out.push_back(block);
    }
}

uint32_t PrefixCache::keep(const PrefixKey& key, uint32_t block, bool first, uint32_t before) {
    const auto [found, is_new] = found_.emplace(key, block);
    if (!is_new) {
        if (found->second == block) return block;
        // Computed twice at the same time: the same bits, by Forward's contract.
        reference(found->second);
        pool_.give_back(std::span(&block, 1));
        return found->second;
    }
    assert(first || entries_[before].known);
    Entry& entry = entries_[block];
    entry = {key, first ? kNone : before, 0, now_, true, false, {}, {}};
    if (!first) ++entries_[before].after;
    pool_.share(block);
    return block;
}

void PrefixCache::describe(uint32_t block, const PrefixKey& before,
                           std::span<const model::Token> tokens) {
    Entry& entry = entries_[block];
    assert(entry.known && tokens.size() == kBlockTokens);
    if (entry.described) return;
    entry.described = true;
    entry.parent = before;
    std::copy(tokens.begin(), tokens.end(), entry.tokens.begin());
    after_.emplace(before, block);
}

PrefixCache::Part PrefixCache::part(const PrefixKey& before,
                                    std::span<const model::Token> tokens) const {
    Part best;
    int looked_at = 0;
    const auto [from, to] = after_.equal_range(before);
    for (auto it = from; it != to && looked_at < kPartsMost; ++it, ++looked_at) {
        const auto& held = entries_[it->second].tokens;
        const size_t most = std::min(tokens.size(), held.size());
        const auto differs = std::mismatch(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(most),
                                           held.begin());
        const auto same = static_cast<uint32_t>(differs.first - tokens.begin());
        if (same > best.tokens) best = {it->second, same};
    }
    return best;
}

void PrefixCache::give_back(std::span<const uint32_t> blocks) {
    ++now_;
    for (const uint32_t block : blocks) dereference(block);
    if (unused_ > unused_max_) evict(unused_ - unused_max_);
}

// An unused leaf.
void PrefixCache::drop(uint32_t block) {
    Entry& entry = entries_[block];
    assert(entry.known && entry.after == 0 && pool_.references(block) == 1);
    leaves_.erase({entry.used_at, block});
    found_.erase(entry.key);
    entry.known = false;
    if (entry.described) {
        auto [it, to] = after_.equal_range(entry.parent);
        while (it != to && it->second != block) ++it;
        assert(it != to);
        after_.erase(it);
        entry.described = false;
    }
    --unused_;
    pool_.give_back(std::span(&block, 1));
    if (entry.before == kNone) return;
    Entry& parent = entries_[entry.before];
    if (--parent.after == 0 && pool_.references(entry.before) == 1)
        leaves_.insert({parent.used_at, entry.before});
}

void PrefixCache::forget(std::span<const PrefixKey> keys) {
    for (size_t i = match(keys).blocks; i > 0; --i) {
        const uint32_t block = found_.at(keys[i - 1]);
        if (pool_.references(block) != 1 || entries_[block].after != 0) return;
        drop(block);
    }
}

uint32_t PrefixCache::evict(uint32_t count) {
    uint32_t done = 0;
    for (; done < count && !leaves_.empty(); ++done) drop(leaves_.begin()->second);
    evicted_ += done;
    return done;
}

}  // namespace parley::engine
