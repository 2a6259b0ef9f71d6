// PrefixMap: which worker has computed a prompt's beginning last. A hint: the worker may have evicted it.
//
// Blocks   a chain of hashes, each over its block and all before it, salted by organisation and model:
//          nobody learns of another's prompts by waiting less.
// Bounds   `entries_max`, the least recently noted ones go first.
// Threads  one.
#pragma once

#include <cstdint>
#include <list>
#include <span>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace parley::dispatch {

class PrefixMap {
  public:
    static constexpr size_t kBlockBytes = 512;
    static constexpr size_t kBlocksMax = 128;  // of one prompt: 64 KiB

    explicit PrefixMap(size_t entries_max = 65'536) : entries_max_(entries_max) {}

    static std::vector<uint64_t> blocks_of(std::string_view org, std::string_view model,
                                           std::string_view body);
    void note(std::span<const uint64_t> blocks, uint32_t worker);
    struct Found {
        uint32_t worker = 0;  // 0: none
        size_t blocks = 0;
    };
    Found find(std::span<const uint64_t> blocks) const;
    size_t size() const { return entries_.size(); }

  private:
    struct Entry {
        uint64_t hash;
        uint32_t worker;
    };
    size_t entries_max_;
    std::list<Entry> order_;  // the oldest first
    std::unordered_map<uint64_t, std::list<Entry>::iterator> entries_;
};

}  // namespace parley::dispatch
