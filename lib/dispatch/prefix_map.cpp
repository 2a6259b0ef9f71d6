#include "dispatch/prefix_map.hpp"

#include <functional>

namespace parley::dispatch {

namespace {

uint64_t mix(uint64_t a, uint64_t b) {
    a ^= b + 0x9e3779b97f4a7c15ull + (a << 6) + (a >> 2);
    a *= 0xff51afd7ed558ccdull;
    return a ^ (a >> 33);
}

}  // namespace

std::vector<uint64_t> PrefixMap::blocks_of(std::string_view org, std::string_view model,
                                           std::string_view body) {
    const std::hash<std::string_view> hash;
    std::vector<uint64_t> out;
    uint64_t chain = mix(hash(org), hash(model));
    while (body.size() >= kBlockBytes && out.size() < kBlocksMax) {
        chain = mix(chain, hash(body.substr(0, kBlockBytes)));
        out.push_back(chain);
        body.remove_prefix(kBlockBytes);
    }
    return out;
}

void PrefixMap::note(std::span<const uint64_t> blocks, uint32_t worker) {
    for (const uint64_t block : blocks) {
        if (const auto at = entries_.find(block); at != entries_.end()) {
            at->second->worker = worker;
            order_.splice(order_.end(), order_, at->second);
            continue;
        }
        if (entries_.size() >= entries_max_) {
            entries_.erase(order_.front().hash);
            order_.pop_front();
        }
        entries_[block] = order_.insert(order_.end(), {block, worker});
    }
}

PrefixMap::Found PrefixMap::find(std::span<const uint64_t> blocks) const {
    for (size_t count = blocks.size(); count > 0; --count)
        if (const auto at = entries_.find(blocks[count - 1]); at != entries_.end())
            return {at->second->worker, count};
    return {};
}

}  // namespace parley::dispatch
