#include "model/markup.hpp"

#include <algorithm>
#include <array>

namespace parley::model {

std::vector<Token> encode_markup(const Tokenizer& tokenizer, std::string_view text) {
    std::array<std::vector<Token>, 256> by_first_byte;  // longest first
    for (Token token = 0; token < static_cast<Token>(tokenizer.vocab_size()); ++token) {
        const std::string_view spelling = tokenizer.spelling(token);
        if (tokenizer.is_control(token) && !spelling.empty())
            by_first_byte[static_cast<uint8_t>(spelling[0])].push_back(token);
    }
    for (auto& tokens : by_first_byte) {
        std::stable_sort(tokens.begin(), tokens.end(), [&](Token a, Token b) {
            return tokenizer.spelling(a).size() > tokenizer.spelling(b).size();
        });
    }
    std::vector<Token> out;
    size_t plain = 0;  // where the text not yet encoded begins
    for (size_t i = 0; i < text.size();) {
        const auto& tokens = by_first_byte[static_cast<uint8_t>(text[i])];
        const auto found = std::find_if(tokens.begin(), tokens.end(), [&](Token token) {
            return text.substr(i).starts_with(tokenizer.spelling(token));
        });
        if (found == tokens.end()) {
            ++i;
            continue;
        }
        tokenizer.encode(text.substr(plain, i - plain), out);
        out.push_back(*found);
        i += tokenizer.spelling(*found).size();
        plain = i;
    }
    tokenizer.encode(text.substr(plain), out);
    return out;
}

}  // namespace parley::model
