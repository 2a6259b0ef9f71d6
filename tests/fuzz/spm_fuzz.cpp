// Any bytes as text through a SentencePiece vocabulary: they come back byte for byte, but for U+2581,
// which is its space; and no control token comes of them, not even inside a chat template.
#include <cstdlib>

#include "model/chat_template.hpp"
#include "model/gguf.hpp"
#include "model/small_spm.hpp"
#include "model/spm.hpp"
#include "replay_main.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace parley;
    static const auto tokenizer =
        model::Tokenizer::from_gguf(*model::Gguf::parse(test::small_spm(false).build()));
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    std::string expected;
    model::unescape_spaces(text, expected);
    const auto ids = tokenizer->encode(text);
    if (tokenizer->decode(ids) != expected) std::abort();
    for (const auto id : ids)
        if (tokenizer->is_control(id)) std::abort();
    const std::vector<model::Turn> turns = {{model::Role::system, std::string(text)},
                                            {model::Role::user, std::string(text)}};
    // BOS, and what each family writes around two turns and the start of a third
    constexpr std::pair<const char*, size_t> kFamilies[] = {
        {"gemma", 4}, {"llama3", 9}, {"zephyr", 3}};
    for (const auto& [family, expected_controls] : kFamilies) {
        const auto chat = model::ChatTemplate::recognise("", family);
        size_t controls = 0;
        for (const auto id : chat->render(*tokenizer, turns)) controls += tokenizer->is_control(id);
        if (controls != expected_controls) std::abort();
    }
    return 0;
}
