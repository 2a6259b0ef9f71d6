#include "grammar/vocabulary.hpp"

#include <algorithm>
#include <string>

#include "grammar/automaton.hpp"

namespace parley::grammar {

Trie::Trie(const Vocabulary& vocabulary) : vocabulary_size_(vocabulary.size()) {
    std::vector<std::pair<std::string_view, int32_t>> words;
    for (uint32_t t = 0; t < vocabulary_size_; ++t) {
        const auto token = static_cast<int32_t>(t);
        if (vocabulary.ends_answer(token)) {
            ends_.push_back(token);
            continue;
        }
        const std::string_view bytes = vocabulary.bytes(token);
        if (!bytes.empty() && bytes.size() <= kTokenBytesMax) words.emplace_back(bytes, token);
    }
    std::sort(words.begin(), words.end());
    nodes_.push_back({0, 0, 0, 0, 0});
    std::vector<uint32_t> path{0};  // nodes of the last word
    std::string_view last;
    for (const auto& [bytes, token] : words) {
        size_t same = 0;
        while (same < last.size() && same < bytes.size() && last[same] == bytes[same]) ++same;
        while (path.size() > same + 1) {
            nodes_[path.back()].next = nodes();
            path.pop_back();
        }
        for (size_t i = same; i < bytes.size(); ++i) {
            path.push_back(nodes());
            nodes_.push_back({0, static_cast<uint32_t>(tokens_.size()), 0,
                              static_cast<uint8_t>(bytes[i]), static_cast<uint8_t>(i + 1)});
        }
        tokens_.push_back(token);
        ++nodes_[path.back()].token_count;
        last = bytes;
    }
    for (const uint32_t node : path) nodes_[node].next = nodes();
}

uint32_t Trie::child(uint32_t node, uint8_t byte) const {
    for (uint32_t i = node + 1; i < nodes_[node].next; i = nodes_[i].next)
        if (nodes_[i].byte == byte) return i;
    return 0;
}

}  // namespace parley::grammar
