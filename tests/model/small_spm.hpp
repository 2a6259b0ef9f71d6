// A whole SentencePiece vocabulary in a few hundred tokens: control tokens, tokens added by hand, the
// 256 bytes, some letters and pieces with scores. The letter 'z' has no token, 'é' has.
#pragma once

#include <string>
#include <vector>

#include "support/gguf_writer.hpp"

namespace parley::test {

struct SpmPiece {
    std::string text;
    float score;
    int32_t type;
};

inline std::vector<SpmPiece> small_spm_pieces() {
    std::vector<SpmPiece> pieces = {{"<unk>", 0, 2},
                                    {"<s>", 0, 3},
                                    {"</s>", 0, 3},
                                    {"<start_of_turn>", 0, 4},  // as old converters have it
                                    {"<end_of_turn>", 0, 3},
                                    {"<|start_header_id|>", 0, 3},
                                    {"<|end_header_id|>", 0, 3},
                                    {"<|eot_id|>", 0, 3},
                                    {"\n", 0, 4},
                                    {"\n\n", 0, 4},
                                    {"\n\n\n", 0, 4},
                                    {"  ", 0, 4},
                                    {"<b>", 0, 4},
                                    {"<br>", 0, 4}};
    for (int byte = 0; byte < 256; ++byte) {
        const char* digits = "0123456789ABCDEF";
        pieces.push_back({std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">", 0, 6});
    }
    const std::string space = "\xe2\x96\x81";
    // Scores fall in this order but for ties: "he" and "lo" have the same, and so have "th" and "el".
    const std::vector<std::pair<std::string, float>> scored = {
        {"th", -1},           {"el", -1},    {"he", -2},        {"lo", -2},
        {"the", -3},          {"ll", -4},    {space + "t", -5}, {space + "the", -6},
        {"hell", -6.5f},      {"hello", -7}, {space + "h", -8}, {"aa", -8.5f},
        {"aaaa", -9},         {"ab", -8.5f}, {"<s", -10},       {"s>", -10},
        {space + "hello", 1}, {"é", -30},    {"</", -10}};
    for (const auto& [text, score] : scored) pieces.push_back({text, score, 1});
    for (const char letter : std::string("abcdefghijklmnopqrstuvwxy<>/_|.,!?0123456789"))
        pieces.push_back({std::string(1, letter), -40.0f - static_cast<float>(letter), 1});
    pieces.push_back({space, -20, 1});
    return pieces;
}

inline GgufWriter small_spm(bool add_space_prefix, bool say_so = true) {
    std::vector<std::string> tokens;
    std::vector<float> scores;
    std::vector<int32_t> types;
    for (const auto& piece : small_spm_pieces()) {
        tokens.push_back(piece.text);
        scores.push_back(piece.score);
        types.push_back(piece.type);
    }
    GgufWriter file;
    file.string("general.architecture", "llama")
        .string("general.name", "small-spm")
        .u32("llama.context_length", 256)
        .string("tokenizer.ggml.model", "llama")
        .string("tokenizer.ggml.pre", "default")
        .strings("tokenizer.ggml.tokens", tokens)
        .integers("tokenizer.ggml.token_type", types)
        .reals("tokenizer.ggml.scores", scores)
        .u32("tokenizer.ggml.bos_token_id", 1)
        .u32("tokenizer.ggml.eos_token_id", 2);
    if (say_so) file.boolean("tokenizer.ggml.add_space_prefix", add_space_prefix);
    return file;
}

}  // namespace parley::test
