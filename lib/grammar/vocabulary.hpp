// Vocabulary: what a grammar must know of a model's tokens; and the trie over them.
//
// Trie     nodes in preorder; a node's subtree is [node, next), and the tokens that end in it stand side
//          by side. Tokens without bytes (control tokens) and those of over kTokenBytesMax are not in it.
// Threads  immutable once made.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

namespace parley::grammar {

class Vocabulary {
  public:
    virtual ~Vocabulary() = default;
    virtual uint32_t size() const = 0;
    virtual std::string_view bytes(int32_t token) const = 0;  // empty: never allowed
    virtual bool ends_answer(int32_t token) const = 0;
};

class Trie {
  public:
    explicit Trie(const Vocabulary& vocabulary);

    uint32_t nodes() const { return static_cast<uint32_t>(nodes_.size()); }
    uint32_t next(uint32_t node) const { return nodes_[node].next; }
    uint8_t depth(uint32_t node) const { return nodes_[node].depth; }  // 0: the root
    uint8_t byte(uint32_t node) const { return nodes_[node].byte; }
    std::span<const int32_t> tokens(uint32_t node) const {
        return std::span(tokens_).subspan(nodes_[node].token_begin, nodes_[node].token_count);
    }
    uint32_t child(uint32_t node, uint8_t byte) const;  // 0: none
    uint32_t vocabulary_size() const { return vocabulary_size_; }
    std::span<const int32_t> ends() const { return ends_; }  // tokens that end an answer

  private:
    struct Node {
        uint32_t next;
        uint32_t token_begin;
        uint16_t token_count;
        uint8_t byte, depth;
    };
    std::vector<Node> nodes_;
    std::vector<int32_t> tokens_, ends_;
    uint32_t vocabulary_size_;
};

}  // namespace parley::grammar
