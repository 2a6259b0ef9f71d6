// Any bytes as a chat template's text and as the text of turns: the template is refused or renders, by
// whichever family; what stands in a turn never makes a control token, so that the count of them is that
// of the same turns with a plain text.
//
// Input: one byte of options (family, roles), then the Jinja text, a NUL byte, the turns' text.
#include <cstdlib>
#include <string>
#include <vector>

#include "model/chat_template.hpp"
#include "model/gguf.hpp"
#include "model/small_vocabulary.hpp"
#include "replay_main.hpp"

namespace {

using namespace parley;

// The small vocabulary with the markers of every family.
model::Tokenizer make_tokenizer() {
    std::vector<std::string> tokens = {
        "<|endoftext|>", "<|im_start|>", "<|im_end|>", "<start_of_turn>", "<end_of_turn>",
        "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|begin_of_text|>", "<bos>", "</s>"};
    std::vector<int32_t> types(tokens.size(), 3);
    for (int byte = 0; byte < 256; ++byte)
        tokens.push_back(test::spell(static_cast<uint8_t>(byte)));
    types.resize(tokens.size(), 1);
    test::GgufWriter file;
    file.string("general.architecture", "llama")
        .u32("llama.context_length", 256)
        .string("tokenizer.ggml.model", "gpt2")
        .string("tokenizer.ggml.pre", "smollm")
        .strings("tokenizer.ggml.tokens", tokens)
        .integers("tokenizer.ggml.token_type", types)
        .strings("tokenizer.ggml.merges", {})
        .u32("tokenizer.ggml.bos_token_id", 9)
        .u32("tokenizer.ggml.eos_token_id", 2);
    return std::move(*model::Tokenizer::from_gguf(*model::Gguf::parse(file.build())));
}

size_t controls(const model::ChatTemplate& chat, const model::Tokenizer& tokenizer,
                const std::vector<model::Turn>& turns) {
    size_t count = 0;
    for (const auto id : chat.render(tokenizer, turns)) count += tokenizer.is_control(id);
    return count;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static const model::Tokenizer tokenizer = make_tokenizer();
    static constexpr const char* kFamilies[] = {"", "chatml", "gemma", "llama3", "zephyr"};
    if (size == 0) return 0;
    const uint8_t options = data[0];
    const std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
    const size_t cut = rest.find('\0');
    const std::string_view jinja = rest.substr(0, cut);
    const std::string text(cut == std::string_view::npos ? rest : rest.substr(cut + 1));
    const auto chat = model::ChatTemplate::recognise(jinja, kFamilies[options % 5]);
    if (!chat || !chat->fits(tokenizer)) return 0;
    std::vector<model::Turn> turns, plain;
    const auto add = [&](model::Role role) {
        turns.push_back({role, text});
        plain.push_back({role, "x"});
    };
    if (options & 0x80) add(model::Role::system);
    add(model::Role::user);
    if (options & 0x40) add(model::Role::assistant);
    if (options & 0x20) add(model::Role::user);
    if (controls(*chat, tokenizer, turns) != controls(*chat, tokenizer, plain)) std::abort();
    return 0;
}
