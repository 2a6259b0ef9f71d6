#include "model/tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <bit>

#include "base/text.hpp"
#include "model/bpe.hpp"
#include "model/cursor.hpp"
#include "model/gguf.hpp"
#include "model/pretokenizer.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr uint32_t kVocabMax = 1u << 22;
constexpr uint32_t kMergesMax = 1u << 22;
constexpr size_t kTokenBytesMax = 65'535;
constexpr size_t kWordBytesMax = 1u << 30;  // a longer word is cut: its indices are 32 bits wide

enum Flag : uint8_t { kControl = 1, kEnd = 2, kAdded = 4, kFlagsAll = 7 };

// tokenizer.ggml.token_type
enum TokenType : int64_t {
    kNormalType = 1,
    kUnknownType = 2,
    kControlType = 3,
    kUserDefinedType = 4
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

// Where a token's bytes are looked up while merges are read: the last of equal ones counts.
class TokenIndex {
  public:
    explicit TokenIndex(size_t tokens)
        : mask_(std::bit_ceil(tokens * 2 + 2) - 1), slots_(mask_ + 1, -1) {}

    template <class Bytes>
    void put(Token token, const Bytes& bytes_of) {
        Token& slot = slots_[position(bytes_of(token), bytes_of)];
        slot = token;
    }
    template <class Bytes>
    Token find(std::string_view bytes, const Bytes& bytes_of) const {
        return slots_[position(bytes, bytes_of)];
    }

  private:
    template <class Bytes>
    size_t position(std::string_view bytes, const Bytes& bytes_of) const {
        uint64_t hash = hash_seed() ^ bytes.size();
        size_t i = 0;
        for (; i + 8 <= bytes.size(); i += 8) hash = mix(load<uint64_t>(bytes.data() + i), hash);
        if (i < bytes.size()) {
            uint64_t tail = 0;
            std::memcpy(&tail, bytes.data() + i, bytes.size() - i);
            hash = mix(tail, hash);
        }
        hash = mix(hash, 0);
        size_t at = hash & mask_;
        while (slots_[at] >= 0 && bytes_of(slots_[at]) != bytes) at = (at + 1) & mask_;
        return at;
    }

    size_t mask_;
    std::vector<Token> slots_;
};

}  // namespace

struct Tokenizer::Impl {
    struct Merge {
        uint32_t left, right, merged;
    };

    std::string kind;
    std::string pre;
    Pretokenizer pretokenizer{};
    Token bos_id = -1;
    Token eos_id = -1;
    bool bos_first = false;
    std::string arena;              // the bytes of all tokens, one after the other
    std::vector<uint32_t> offsets;  // vocab + 1
    std::vector<uint8_t> flags;
    std::vector<Merge> merges;    // by rank
    std::vector<Token> controls;  // by spelling
    std::array<uint32_t, 256> byte_tokens{};
    Bpe bpe{0};

    uint32_t size() const { return static_cast<uint32_t>(flags.size()); }
    std::string_view text(uint32_t token) const {
        return std::string_view(arena).substr(offsets[token], offsets[token + 1] - offsets[token]);
    }
    bool valid(Token token) const { return token >= 0 && static_cast<uint32_t>(token) < size(); }

    Result<void> finish();
};

// Checks what is there and builds what is derived: the same for a GGUF file and for an artifact.
Result<void> Tokenizer::Impl::finish() {
    const auto known = model::pretokenizer(pre);
    if (!known)
        return fail(Errc::unsupported,
                    fmt::format("the pre-tokenizer '{}' is not offered (smollm, gpt-2 are)", pre));
    pretokenizer = *known;
    if ((bos_id != -1 && !valid(bos_id)) || (eos_id != -1 && !valid(eos_id)))
        return fail(Errc::corrupt,
                    fmt::format("corrupt tokenizer: BOS {} or EOS {} is not among {} tokens",
                                bos_id, eos_id, size()));
    byte_tokens.fill(Bpe::kNone);
    for (uint32_t token = 0; token < size(); ++token) {
        if (flags[token] & kControl)
            controls.push_back(static_cast<Token>(token));
        else if (!(flags[token] & kAdded) && text(token).size() == 1)
            byte_tokens[static_cast<uint8_t>(text(token)[0])] = token;
    }
    std::sort(controls.begin(), controls.end(), [this](Token a, Token b) {
        return text(static_cast<uint32_t>(a)) < text(static_cast<uint32_t>(b));
    });
    bpe = Bpe(static_cast<uint32_t>(merges.size()));
    for (size_t i = 0; i < merges.size(); ++i) {
        const auto [left, right, merged] = merges[i];
        if (left >= size() || right >= size() || merged >= size())
            return fail(
                Errc::corrupt,
                fmt::format("corrupt tokenizer: merge {} names a token past {}", i, size()));
        // So that no text whatever can merge into a control token.
        if (flags[merged] & (kControl | kAdded))
            return fail(Errc::corrupt,
                        fmt::format("corrupt tokenizer: merge {} makes token {}, which no text may",
                                    i, merged));
        const std::string_view whole = text(merged);
        const size_t split = text(left).size();
        if (whole.size() != split + text(right).size() || whole.substr(0, split) != text(left) ||
            whole.substr(split) != text(right))
            return fail(
                Errc::corrupt,
                fmt::format("corrupt tokenizer: merge {} does not give token {}", i, merged));
        bpe.add(left, right, merged);
    }
    return {};
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;
Tokenizer::~Tokenizer() = default;

Result<Tokenizer> Tokenizer::from_gguf(const Gguf& file) {
    auto impl = std::make_unique<Impl>();
    const auto missing = [](std::string_view key) {
        return fail(Errc::corrupt,
                    fmt::format("the model file has no '{}' of the right kind", key));
    };
    const auto kind = file.string("tokenizer.ggml.model");
    if (!kind) return missing("tokenizer.ggml.model");
    if (*kind != "gpt2")
        return fail(Errc::unsupported,
                    fmt::format("the tokenizer kind '{}' is not offered (gpt2, byte-level BPE, is)",
                                *kind));
    impl->kind = *kind;
    const auto pre = file.string("tokenizer.ggml.pre");
    if (!pre) return missing("tokenizer.ggml.pre");
    impl->pre = *pre;

    const auto tokens = file.strings("tokenizer.ggml.tokens");
    const auto merges = file.strings("tokenizer.ggml.merges");
    if (!tokens || tokens->empty()) return missing("tokenizer.ggml.tokens");
    if (!merges) return missing("tokenizer.ggml.merges");
    if (tokens->size() > kVocabMax || merges->size() > kMergesMax)
        return fail(Errc::corrupt,
                    fmt::format("{} tokens and {} merges, {} and {} are the most", tokens->size(),
                                merges->size(), kVocabMax, kMergesMax));
    const auto types = file.integers("tokenizer.ggml.token_type");
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
    TokenIndex index(vocab);
    const auto bytes_of = [&](Token token) { return impl->text(static_cast<uint32_t>(token)); };
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
            impl->flags[token] = kAdded;
        if (impl->flags[token])
            impl->arena += spelling;
        else
            decode_alphabet(spelling, impl->arena);
        if (impl->flags[token] == kControl && ends_generation(spelling)) impl->flags[token] |= kEnd;
    }
    impl->offsets.push_back(static_cast<uint32_t>(impl->arena.size()));
    for (uint32_t token = 0; token < vocab; ++token)
        if (impl->flags[token] == 0) index.put(static_cast<Token>(token), bytes_of);

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
        const Token left = index.find(whole.substr(0, split), bytes_of);
        const Token right = index.find(whole.substr(split), bytes_of);
        const Token merged = index.find(whole, bytes_of);
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
    impl->bos_first = file.boolean("tokenizer.ggml.add_bos_token").value_or(false);
    for (const char* key : {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                            "tokenizer.ggml.eom_token_id"}) {
        if (const Token id = id_of(key); id >= 0) impl->flags[static_cast<uint32_t>(id)] |= kEnd;
    }
    if (auto ok = impl->finish(); !ok) return fail(ok.error());
    return Tokenizer(std::move(impl));
}

void Tokenizer::encode(std::string_view text, std::vector<Token>& out) const {
    Bpe::Scratch scratch;
    for (size_t start = 0; start < text.size();) {
        const size_t end =
            std::min(word_end(impl_->pretokenizer, text, start), start + kWordBytesMax);
        scratch.symbols.resize(end - start);
        for (size_t i = start; i < end; ++i)
            scratch.symbols[i - start].token = impl_->byte_tokens[static_cast<uint8_t>(text[i])];
        impl_->bpe.merge(scratch, out);
        start = end;
    }
}

std::vector<Token> Tokenizer::encode(std::string_view text) const {
    std::vector<Token> out;
    out.reserve(text.size() / 3 + 1);
    encode(text, out);
    return out;
}

std::optional<Token> Tokenizer::special(std::string_view spelling) const {
    const auto at = std::lower_bound(impl_->controls.begin(), impl_->controls.end(), spelling,
                                     [this](Token token, std::string_view text) {
                                         return impl_->text(static_cast<uint32_t>(token)) < text;
                                     });
    if (at == impl_->controls.end() || impl_->text(static_cast<uint32_t>(*at)) != spelling)
        return std::nullopt;
    return *at;
}

std::string_view Tokenizer::bytes(Token token) const {
    if (!impl_->valid(token) || is_control(token)) return {};
    return impl_->text(static_cast<uint32_t>(token));
}

std::string_view Tokenizer::spelling(Token token) const {
    return impl_->valid(token) ? impl_->text(static_cast<uint32_t>(token)) : std::string_view();
}

std::string Tokenizer::decode(std::span<const Token> tokens) const {
    std::string out;
    for (const Token token : tokens) out += bytes(token);
    return out;
}

bool Tokenizer::is_control(Token token) const {
    return impl_->valid(token) && impl_->flags[static_cast<uint32_t>(token)] & kControl;
}

bool Tokenizer::is_end_of_generation(Token token) const {
    return impl_->valid(token) && impl_->flags[static_cast<uint32_t>(token)] & kEnd;
}

uint32_t Tokenizer::vocab_size() const { return impl_->size(); }
std::optional<Token> Tokenizer::bos() const {
    return impl_->bos_id < 0 ? std::nullopt : std::optional(impl_->bos_id);
}
std::optional<Token> Tokenizer::eos() const {
    return impl_->eos_id < 0 ? std::nullopt : std::optional(impl_->eos_id);
}
bool Tokenizer::add_bos() const { return impl_->bos_first; }
std::string_view Tokenizer::kind() const { return impl_->kind; }
std::string_view Tokenizer::pre() const { return impl_->pre; }

void Tokenizer::save(std::string& out) const {
    const Impl& impl = *impl_;
    append(out, impl.size());
    append(out, static_cast<uint32_t>(impl.merges.size()));
    append(out, impl.bos_id);
    append(out, impl.eos_id);
    append(out, static_cast<uint8_t>(impl.bos_first));
    for (const std::string* name : {&impl.kind, &impl.pre}) {
        append(out, static_cast<uint8_t>(name->size()));
        out += *name;
    }
    out.append(reinterpret_cast<const char*>(impl.flags.data()), impl.flags.size());
    for (uint32_t token = 0; token < impl.size(); ++token)
        append(out, static_cast<uint16_t>(impl.text(token).size()));
    out += impl.arena;
    for (const auto& merge : impl.merges) {
        append(out, merge.left);
        append(out, merge.right);
        append(out, merge.merged);
    }
}

Result<Tokenizer> Tokenizer::load(std::string_view bytes) {
    const auto corrupt = [](std::string_view what) {
        return fail(Errc::corrupt, fmt::format("corrupt tokenizer: {}", what));
    };
    if (bytes.size() > UINT32_MAX) return corrupt("over 4 GiB");
    auto impl = std::make_unique<Impl>();
    Cursor cursor(bytes);
    const auto vocab = cursor.value<uint32_t>();
    const auto merges = cursor.value<uint32_t>();
    impl->bos_id = cursor.value<Token>();
    impl->eos_id = cursor.value<Token>();
    const auto bos_first = cursor.value<uint8_t>();
    impl->kind = cursor.string<uint8_t>();
    impl->pre = cursor.string<uint8_t>();
    if (cursor.failed()) return corrupt("its head is cut short");
    if (bos_first > 1) return corrupt("its BOS flag is neither 0 nor 1");
    impl->bos_first = bos_first != 0;
    if (impl->kind != "gpt2")
        return fail(Errc::unsupported,
                    fmt::format("the tokenizer kind '{}' is not offered (gpt2 is)", impl->kind));
    if (vocab == 0 || vocab > kVocabMax || merges > kMergesMax)
        return corrupt(fmt::format("{} tokens and {} merges, 1 to {} and {} are allowed", vocab,
                                   merges, kVocabMax, kMergesMax));
    const std::string_view flags = cursor.take(vocab);
    const std::string_view lengths = cursor.take(uint64_t{vocab} * sizeof(uint16_t));
    if (cursor.failed()) return corrupt(fmt::format("it is cut short inside {} tokens", vocab));
    impl->flags.assign(flags.begin(), flags.end());
    impl->offsets.reserve(vocab + 1);
    uint64_t total = 0;
    for (uint32_t token = 0; token < vocab; ++token) {
        if (impl->flags[token] > kFlagsAll)
            return corrupt(fmt::format("token {} has unknown flags", token));
        impl->offsets.push_back(static_cast<uint32_t>(total));
        total += model::load<uint16_t>(lengths.data() + token * sizeof(uint16_t));
        if (total > bytes.size())
            return corrupt(fmt::format("it is cut short inside token {}", token));
    }
    impl->offsets.push_back(static_cast<uint32_t>(total));
    impl->arena = cursor.take(total);
    const std::string_view table = cursor.take(uint64_t{merges} * sizeof(Impl::Merge));
    if (cursor.failed()) return corrupt("it is cut short inside its text or merges");
    if (cursor.left() != 0) return corrupt(fmt::format("{} bytes too many", cursor.left()));
    impl->merges.resize(merges);
    if (merges > 0) std::memcpy(impl->merges.data(), table.data(), table.size());
    if (auto ok = impl->finish(); !ok) return fail(ok.error());
    return Tokenizer(std::move(impl));
}

}  // namespace parley::model
