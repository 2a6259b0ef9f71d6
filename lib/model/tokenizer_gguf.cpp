#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "model/gguf.hpp"
#include "model/tokenizer_impl.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

// tokenizer.ggml.token_type
enum TokenType : int64_t {
    kNormalType = 1,
    kUnknownType = 2,
    kControlType = 3,
    kUserDefinedType = 4,
    kByteType = 6
};

// GPT-2 writes bytes as printable characters: those that are printable in Latin-1 stand for
// themselves, the others, in order, for U+0100 and up. The inverse, by code point.
constexpr auto kByteOfPoint = [] {
    std::array<int16_t, 0x144> table{};
    for (auto& entry : table) entry = -1;
    int16_t extra = 0x100;
    for (int16_t byte = 0; byte < 256; ++byte) {
        const bool printable = (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte != 0xad);
        table[static_cast<size_t>(printable ? byte : extra++)] = byte;
    }
    return table;
}();

// Appends the bytes that `text` stands for. A character outside the alphabet stands for itself.
void decode_alphabet(std::string_view text, std::string& out) {
    for (size_t i = 0; i < text.size();) {
        const auto lead = static_cast<uint8_t>(text[i]);
        if (lead < 0x80) {
            out += kByteOfPoint[lead] >= 0 ? static_cast<char>(kByteOfPoint[lead]) : text[i];
            ++i;
        } else if ((lead & 0xe0) == 0xc0 && i + 1 < text.size()) {
            const unsigned point =
                (lead & 0x1fu) << 6 | (static_cast<uint8_t>(text[i + 1]) & 0x3fu);
            if (point < kByteOfPoint.size() && kByteOfPoint[point] >= 0)
                out += static_cast<char>(kByteOfPoint[point]);
            else
                out.append(text, i, 2);
            i += 2;
        } else {
            out += text[i++];
        }
    }
}

// Control tokens that end an answer in the families we know, whatever the file says about EOS.
bool ends_generation(std::string_view spelling) {
    constexpr std::string_view kEnds[] = {"<|im_end|>", "<|endoftext|>", "<|eot_id|>",
                                          "<|eom_id|>", "<|end|>",       "<end_of_turn>"};
    return std::find(std::begin(kEnds), std::end(kEnds), spelling) != std::end(kEnds);
}

// Markers of the families we know. Some files call them user-defined, which text may become: old
// converters' do, and Gemma's has </s> among its HTML tags. Ours never does.
bool is_marker(std::string_view spelling) {
    constexpr std::string_view kMarkers[] = {
        "<start_of_turn>",     "<end_of_turn>",     "<|im_start|>",  "<|im_end|>",
        "<|start_header_id|>", "<|eot_id|>",        "<|user|>",      "<|system|>",
        "<|assistant|>",       "<|end_header_id|>", "<|endoftext|>", "</s>"};
    return std::find(std::begin(kMarkers), std::end(kMarkers), spelling) != std::end(kMarkers);
}

// "<0x0A>", two upper-case digits
std::optional<char> byte_of(std::string_view spelling) {
    if (spelling.size() != 6 || !spelling.starts_with("<0x") || spelling[5] != '>')
        return std::nullopt;
    int byte = 0;
    for (const char digit : spelling.substr(3, 2)) {
        if (digit >= '0' && digit <= '9')
            byte = byte * 16 + (digit - '0');
        else if (digit >= 'A' && digit <= 'F')
            byte = byte * 16 + (digit - 'A' + 10);
        else
            return std::nullopt;
    }
    return static_cast<char>(byte);
}

}  // namespace

Result<Tokenizer> Tokenizer::from_gguf(const Gguf& file) {
    auto impl = std::make_unique<Impl>();
    const auto missing = [](std::string_view key) {
        return fail(Errc::corrupt,
                    fmt::format("the model file has no '{}' of the right kind", key));
    };
    const auto kind = file.string("tokenizer.ggml.model");
    if (!kind) return missing("tokenizer.ggml.model");
    if (auto ok = known_kind(*kind); !ok) return fail(ok.error());
    impl->kind = *kind;
    const bool spm = impl->is_spm();
    // A SentencePiece vocabulary has no pre-tokenizer: the name, if there is one, is for people.
    const auto pre = file.string("tokenizer.ggml.pre");
    if (!pre && !spm) return missing("tokenizer.ggml.pre");
    impl->pre = pre.value_or("default").substr(0, UINT8_MAX);

    const auto tokens = file.strings("tokenizer.ggml.tokens");
    const auto merges =
        spm ? std::vector<std::string_view>{} : file.strings("tokenizer.ggml.merges");
    if (!tokens || tokens->empty()) return missing("tokenizer.ggml.tokens");
    if (!merges) return missing("tokenizer.ggml.merges");
    if (tokens->size() > kVocabMax || merges->size() > kMergesMax)
        return fail(Errc::corrupt,
                    fmt::format("{} tokens and {} merges, {} and {} are the most", tokens->size(),
                                merges->size(), kVocabMax, kMergesMax));
    const auto types = file.integers("tokenizer.ggml.token_type");
    if (!types && spm) return missing("tokenizer.ggml.token_type");
    if (types && types->size() != tokens->size())
        return fail(Errc::corrupt,
                    fmt::format("{} token types for {} tokens", types->size(), tokens->size()));

    const auto vocab = static_cast<uint32_t>(tokens->size());
    size_t bytes = 0;
    for (const auto& token : *tokens) bytes += token.size();
    if (bytes > UINT32_MAX) return fail(Errc::corrupt, "the vocabulary's text is over 4 GiB");
    impl->arena.reserve(bytes);
    impl->offsets.reserve(vocab + 1);
    impl->flags.resize(vocab);
    for (uint32_t token = 0; token < vocab; ++token) {
        const std::string_view spelling = (*tokens)[token];
        if (spelling.size() > kTokenBytesMax)
            return fail(Errc::corrupt, fmt::format("token {} is {} bytes long, {} are the most",
                                                   token, spelling.size(), kTokenBytesMax));
        const int64_t type = types ? (*types)[token] : kNormalType;
        impl->offsets.push_back(static_cast<uint32_t>(impl->arena.size()));
        if (type == kControlType || type == kUnknownType)
            impl->flags[token] = kControl;
        else if (type == kUserDefinedType)
            impl->flags[token] = spm && is_marker(spelling) ? kControl : kAdded;
        else if (type == kByteType && spm)
            impl->flags[token] = kByte;
        if (impl->flags[token] == kByte) {
            const auto byte = byte_of(spelling);
            if (!byte)
                return fail(Errc::corrupt,
                            fmt::format("token {} of the vocabulary is to be a byte and is not "
                                        "spelled as one",
                                        token));
            impl->arena += *byte;
        } else if (impl->flags[token]) {
            impl->arena += spelling;
        } else if (spm) {
            unescape_spaces(spelling, impl->arena);
        } else {
            decode_alphabet(spelling, impl->arena);
        }
        if (impl->flags[token] == kControl && ends_generation(spelling)) impl->flags[token] |= kEnd;
    }
    impl->offsets.push_back(static_cast<uint32_t>(impl->arena.size()));
    const auto index = spm ? TokenIndex() : TokenIndex::of_plain(*impl);

    std::string pair;
    impl->merges.reserve(merges->size());
    for (size_t i = 0; i < merges->size(); ++i) {
        const std::string_view merge = (*merges)[i];
        const size_t space = merge.find(' ', 1);
        if (space == std::string_view::npos)
            return fail(Errc::corrupt,
                        fmt::format("merge {} of the vocabulary is not two tokens", i));
        pair.clear();
        decode_alphabet(merge.substr(0, space), pair);
        const size_t split = pair.size();
        decode_alphabet(merge.substr(space + 1), pair);
        const std::string_view whole = pair;
        const Token left = index.find(*impl, whole.substr(0, split));
        const Token right = index.find(*impl, whole.substr(split));
        const Token merged = index.find(*impl, whole);
        if (left < 0 || right < 0 || merged < 0)
            return fail(Errc::corrupt,
                        fmt::format("merge {} is of tokens that the vocabulary lacks", i));
        impl->merges.push_back({static_cast<uint32_t>(left), static_cast<uint32_t>(right),
                                static_cast<uint32_t>(merged)});
    }

    const auto id_of = [&](const char* key) -> Token {
        const auto id = file.uint(key);
        return id && *id < vocab ? static_cast<Token>(*id) : -1;
    };
    impl->bos_id = id_of("tokenizer.ggml.bos_token_id");
    impl->eos_id = id_of("tokenizer.ggml.eos_token_id");
    impl->bos_first =
        file.boolean("tokenizer.ggml.add_bos_token").value_or(spm || impl->pre == "llama-bpe");
    for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                            "tokenizer.ggml.eom_token_id"}) {
        if (const Token id = id_of(key); id >= 0) impl->flags[static_cast<uint32_t>(id)] |= kEnd;
    }
    if (spm) {
        // What begins or ends a text is no text, whatever kind of token the file says it is.
        for (uint32_t token = 0; token < vocab; ++token)
            if (impl->flags[token] & kEnd) impl->flags[token] = kControl | kEnd;
        if (impl->bos_id >= 0)
            impl->flags[static_cast<uint32_t>(impl->bos_id)] =
                kControl | (impl->flags[static_cast<uint32_t>(impl->bos_id)] & kEnd);
        auto scores = file.reals("tokenizer.ggml.scores");
        if (!scores) return missing("tokenizer.ggml.scores");
        auto made = Spm::make(*impl, std::move(*scores),
                              file.boolean("tokenizer.ggml.add_space_prefix").value_or(true));
        if (!made) return fail(made.error());
        impl->spm = std::move(*made);
    }
    if (auto ok = impl->finish(); !ok) return fail(ok.error());
    return Tokenizer(std::move(impl));
}

}  // namespace parley::model
