#include "model/tokenizer.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "model/tokenizer_impl.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr size_t kWordBytesMax = 1u << 30;  // a longer word is cut: its indices are 32 bits wide

}  // namespace

Result<void> known_kind(std::string_view kind) {
    if (kind == kBpeKind || kind == kSpmKind) return {};
    return fail(Errc::unsupported,
                fmt::format("the tokenizer kind '{}' is not offered (gpt2, byte-level BPE, and "
                            "llama, SentencePiece, are)",
                            kind.substr(0, 64)));
}

Result<void> Tokenizer::Impl::finish() {
    if ((bos_id != -1 && !valid(bos_id)) || (eos_id != -1 && !valid(eos_id)))
        return fail(Errc::corrupt,
                    fmt::format("corrupt tokenizer: BOS {} or EOS {} is not among {} tokens",
                                bos_id, eos_id, size()));
    for (uint32_t token = 0; token < size(); ++token)
        if (flags[token] & kControl) controls.push_back(static_cast<Token>(token));
    std::sort(controls.begin(), controls.end(), [this](Token a, Token b) {
        return text(static_cast<uint32_t>(a)) < text(static_cast<uint32_t>(b));
    });
    return is_spm() ? finish_spm() : finish_bpe();
}

Result<void> Tokenizer::Impl::finish_spm() {
    if (!merges.empty()) return fail(Errc::corrupt, "corrupt tokenizer: merges beside scores");
    for (uint32_t token = 0; token < size(); ++token) {
        const uint8_t kind_of = flags[token] & (kControl | kAdded | kByte);
        if ((kind_of & (kind_of - 1)) != 0 || (kind_of == kByte && text(token).size() != 1))
            return fail(Errc::corrupt,
                        fmt::format("corrupt tokenizer: the flags of token {}", token));
        // So that no text whatever ends an answer.
        if (flags[token] & kEnd && !(flags[token] & kControl))
            return fail(Errc::corrupt,
                        fmt::format("corrupt tokenizer: token {} ends an answer, and text may be "
                                    "it",
                                    token));
    }
    return {};
}

Result<void> Tokenizer::Impl::finish_bpe() {
    const auto known = model::pretokenizer(pre);
    if (!known)
        return fail(
            Errc::unsupported,
            fmt::format(
                "the pre-tokenizer '{}' is not offered (smollm, gpt-2, qwen2, llama-bpe are)",
                pre));
    pretokenizer = *known;
    byte_tokens.fill(Bpe::kNone);
    for (uint32_t token = 0; token < size(); ++token) {
        if (flags[token] & kByte)
            return fail(Errc::corrupt,
                        fmt::format("corrupt tokenizer: the flags of token {}", token));
        if (!(flags[token] & (kControl | kAdded)) && text(token).size() == 1)
            byte_tokens[static_cast<uint8_t>(text(token)[0])] = token;
    }
    // As Llama 3's own tokenizer does; the ranks alone would split a few of its words.
    whole_words = pretokenizer == Pretokenizer::llama_bpe;
    if (whole_words) words = TokenIndex::of_plain(*this);
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

void Tokenizer::encode(std::string_view text, std::vector<Token>& out) const {
    if (impl_->is_spm()) return impl_->spm.encode(*impl_, text, out);
    Bpe::Scratch scratch;
    for (size_t start = 0; start < text.size();) {
        const size_t end =
            std::min(word_end(impl_->pretokenizer, text, start), start + kWordBytesMax);
        if (impl_->whole_words) {
            const Token whole = impl_->words.find(*impl_, text.substr(start, end - start));
            if (whole >= 0) {
                out.push_back(whole);
                start = end;
                continue;
            }
        }
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

}  // namespace parley::model
