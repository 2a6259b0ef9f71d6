// A whole byte-level vocabulary in a few hundred tokens: three control tokens, the 256 bytes, a few
// merges. Any text can be encoded with it, so that tests need no model file.
#pragma once

#include <string>
#include <vector>

#include "support/gguf_writer.hpp"

namespace parley::test {

inline const char* const kSmallJinja =
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are small<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% "
    "endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

// A byte as GPT-2 vocabularies spell it.
inline std::string spell(uint8_t byte) {
    const auto printable = [](int b) {
        return (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
    };
    int point = byte;
    if (!printable(byte)) {
        point = 0x100;
        for (int b = 0; b < byte; ++b) point += !printable(b);
    }
    if (point < 0x80) return std::string(1, static_cast<char>(point));
    return {static_cast<char>(0xc0 | point >> 6), static_cast<char>(0x80 | (point & 0x3f))};
}

inline GgufWriter small_vocabulary() {
    std::vector<std::string> tokens = {"<|endoftext|>", "<|im_start|>", "<|im_end|>"};
    std::vector<int32_t> types = {3, 3, 3};
    for (int byte = 0; byte < 256; ++byte) tokens.push_back(spell(static_cast<uint8_t>(byte)));
    const std::string space = spell(' ');
    std::vector<std::string> merges;
    for (const auto& [left, right] : std::vector<std::pair<std::string, std::string>>{
             {"t", "h"}, {"th", "e"}, {space, "the"}, {"a", "a"}, {"aa", "aa"}, {"<", "|"}}) {
        merges.push_back(left + " " + right);
        tokens.push_back(left + right);
    }
    types.resize(tokens.size(), 1);
    GgufWriter file;
    file.string("general.architecture", "llama")
        .string("general.name", "small")
        .u32("llama.context_length", 256)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", tokens)
        .integers("tokenizer.ggml.token_type", types)
        .strings("tokenizer.ggml.merges", merges)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2)
        .string("tokenizer.chat_template", kSmallJinja);
    return file;
}

}  // namespace parley::test
