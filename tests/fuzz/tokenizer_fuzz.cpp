// Any bytes as text: they come back byte for byte, and no control token comes of them, not even inside
// a chat template.
#include <cstdlib>

#include "model/chat_template.hpp"
#include "model/gguf.hpp"
#include "model/small_vocabulary.hpp"
#include "replay_main.hpp"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    using namespace parley;
    static const auto tokenizer =
        model::Tokenizer::from_gguf(*model::Gguf::parse(test::small_vocabulary().build()));
    static const auto chat = model::ChatTemplate::recognise(test::kSmallJinja, "");
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto ids = tokenizer->encode(text);
    if (tokenizer->decode(ids) != text) std::abort();
    for (const auto id : ids)
        if (tokenizer->is_control(id)) std::abort();
    const std::vector<model::Turn> turns = {{model::Role::system, std::string(text)},
                                            {model::Role::user, std::string(text)}};
    size_t controls = 0;
    for (const auto id : chat->render(*tokenizer, turns)) controls += tokenizer->is_control(id);
    if (controls != 5) std::abort();
    return 0;
}
