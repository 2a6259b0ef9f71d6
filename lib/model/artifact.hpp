// Artifact: what chatd and the router must know of a model version without its weights: tokenizer,
// template, limits, in one small content-addressed file, HASH.tok (format: man/parley-tok.5).
//
// The hash names the GGUF file (SHA-256) and stands inside the artifact; the bytes carry a CRC32C.
// Errors   Errc::corrupt for bytes that fail any check; hostile bytes never crash it.
// Bounds   kBytesMax.
// Threads  immutable; any. Share by shared_ptr.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "model/chat_template.hpp"
#include "model/tokenizer.hpp"

namespace parley::model {

struct Limits {
    uint32_t context_tokens = 0;  // whole window: prompt + answer
    uint32_t output_tokens_max = 0;
};

class Artifact {
  public:
    static constexpr uint64_t kBytesMax = 64ull << 20;

    // `context_tokens` 0: the file's own context length, which is also the most that may be asked for
    // (Errc::invalid beyond it); `family` as in ChatTemplate::recognise. An answer may be as long as
    // the context. Reads all of the file once, for its hash.
    static base::Result<Artifact> from_gguf(const Gguf& file, uint32_t context_tokens,
                                            std::string_view family);
    static base::Result<Artifact> parse(std::string_view bytes);
    std::string serialise() const;

    const std::string& hash() const { return hash_; }          // 64 hex digits
    const std::string& name() const { return name_; }          // general.name, or the hash's first 12
    const std::string& architecture() const { return architecture_; }
    const Limits& limits() const { return limits_; }
    const Tokenizer& tokenizer() const { return tokenizer_; }
    const ChatTemplate& chat_template() const { return template_; }

  private:
    Artifact(Tokenizer tokenizer, ChatTemplate chat_template)
        : tokenizer_(std::move(tokenizer)), template_(std::move(chat_template)) {}
    std::string hash_;
    std::string name_;
    std::string architecture_;
    Limits limits_;
    Tokenizer tokenizer_;
    ChatTemplate template_;
};

}  // namespace parley::model
