#include "model/bpe.hpp"

#include <algorithm>
#include <bit>
#include <functional>
#include <random>

namespace parley::model {

uint64_t hash_seed() {
    static const uint64_t seed = [] {
        std::random_device device;
        return uint64_t{device()} << 32 | device();
    }();
    return seed;
}

Bpe::Bpe(uint32_t merges)
    : seed_(hash_seed()), mask_(std::bit_ceil(uint64_t{merges} * 2 + 2) - 1), slots_(mask_ + 1) {}

const Bpe::Slot& Bpe::find(uint32_t left, uint32_t right) const {
    uint64_t i = mix(uint64_t{left} << 32 | right, seed_) & mask_;
    while (slots_[i].rank != kNone && (slots_[i].left != left || slots_[i].right != right))
        i = (i + 1) & mask_;
    return slots_[i];
}

void Bpe::add(uint32_t left, uint32_t right, uint32_t merged) {
    auto& slot = const_cast<Slot&>(find(left, right));
    if (slot.rank == kNone) slot = {left, right, rank_, merged};
    ++rank_;
}

void Bpe::merge(Scratch& scratch, std::vector<int32_t>& out) const {
    auto& symbols = scratch.symbols;
    auto& heap = scratch.heap;
    heap.clear();
    const auto count = static_cast<uint32_t>(symbols.size());
    const auto rate = [&](uint32_t i) {
        Symbol& symbol = symbols[i];
        symbol.rank = kNone;
        if (symbol.next == kNone) return false;
        const uint32_t right = symbols[symbol.next].token;
        if (symbol.token == kNone || right == kNone) return false;
        const Slot& slot = find(symbol.token, right);
        symbol.rank = slot.rank;
        symbol.merged = slot.merged;
        return symbol.rank != kNone;
    };
    for (uint32_t i = 0; i < count; ++i) {
        symbols[i].previous = i == 0 ? kNone : i - 1;
        symbols[i].next = i + 1 == count ? kNone : i + 1;
    }
    for (uint32_t i = 0; i < count; ++i)
        if (rate(i)) heap.push_back(uint64_t{symbols[i].rank} << 32 | i);
    constexpr std::greater<> kLeastFirst;
    std::make_heap(heap.begin(), heap.end(), kLeastFirst);
    const auto push = [&](uint32_t i) {
        if (!rate(i)) return;
        heap.push_back(uint64_t{symbols[i].rank} << 32 | i);
        std::push_heap(heap.begin(), heap.end(), kLeastFirst);
    };
    while (!heap.empty()) {
        const auto rank = static_cast<uint32_t>(heap.front() >> 32);
        const auto i = static_cast<uint32_t>(heap.front());
        std::pop_heap(heap.begin(), heap.end(), kLeastFirst);
        heap.pop_back();
        // A rank names its pair: if the symbol's pair has changed since, so has its rank.
        Symbol& left = symbols[i];
        if (left.rank != rank) continue;
        Symbol& right = symbols[left.next];
        left.token = left.merged;
        right.rank = kNone;
        left.next = right.next;
        if (left.next != kNone) symbols[left.next].previous = i;
        push(i);
        if (left.previous != kNone) push(left.previous);
    }
    if (count == 0) return;
    for (uint32_t i = 0; i != kNone; i = symbols[i].next)
        if (symbols[i].token != kNone) out.push_back(static_cast<int32_t>(symbols[i].token));
}

}  // namespace parley::model
