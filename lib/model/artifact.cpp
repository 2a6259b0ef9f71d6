#include "model/artifact.hpp"

#include <fmt/format.h>

#include "base/text.hpp"
#include "model/cursor.hpp"
#include "model/gguf.hpp"

namespace parley::model {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr std::string_view kMagic = "parleyTK";
constexpr uint32_t kVersion = 1;
constexpr size_t kHashBytes = 32;
constexpr size_t kNameBytesMax = 256;

tl::unexpected<base::Error> corrupt(std::string_view what) {
    return fail(Errc::corrupt, fmt::format("corrupt tokenizer file: {}", what));
}

// Names go into JSON, logs and pages.
bool presentable(std::string_view name) {
    for (const char c : name)
        if (static_cast<uint8_t>(c) < 0x20 || c == 0x7f) return false;
    return base::utf8_valid(name);
}

void append_text16(std::string& out, std::string_view text) {
    append(out, static_cast<uint16_t>(text.size()));
    out += text;
}

}  // namespace

Result<Artifact> Artifact::from_gguf(const Gguf& file, uint32_t context_tokens,
                                     std::string_view family) {
    auto tokenizer = Tokenizer::from_gguf(file);
    if (!tokenizer) return fail(tokenizer.error());
    auto chat_template =
        ChatTemplate::recognise(file.string("tokenizer.chat_template").value_or(""), family);
    if (!chat_template) return fail(chat_template.error());
    if (auto ok = chat_template->fits(*tokenizer); !ok) return fail(ok.error());

    const auto architecture = file.string("general.architecture");
    if (!architecture || architecture->empty() || architecture->size() > kNameBytesMax ||
        !presentable(*architecture))
        return fail(Errc::corrupt, "the model file has no usable 'general.architecture'");
    const std::string key = fmt::format("{}.context_length", *architecture);
    const auto trained = file.uint(key);
    if (!trained || *trained == 0 || *trained > INT32_MAX)
        return fail(Errc::corrupt, fmt::format("the model file has no usable '{}'", key));
    if (context_tokens > *trained)
        return fail(Errc::invalid, fmt::format("a context of {} tokens: the model was made for {}",
                                               context_tokens, *trained));

    Artifact out(std::move(*tokenizer), std::move(*chat_template));
    out.hash_ = file.content_hash();
    out.architecture_ = *architecture;
    std::string_view name = file.string("general.name").value_or("");
    name = name.substr(0, base::utf8_complete_prefix(name.substr(0, kNameBytesMax)));
    out.name_ = name.empty() || !presentable(name) ? out.hash_.substr(0, 12) : std::string(name);
    out.limits_.context_tokens = context_tokens ? context_tokens : static_cast<uint32_t>(*trained);
    out.limits_.output_tokens_max = out.limits_.context_tokens;
    return out;
}

std::string Artifact::serialise() const {
    std::string body;
    body += base::unhex(hash_).value_or(std::string(kHashBytes, '\0'));
    append(body, limits_.context_tokens);
    append(body, limits_.output_tokens_max);
    append_text16(body, name_);
    append_text16(body, architecture_);
    append_text16(body, template_.family());
    append(body, static_cast<uint32_t>(template_.jinja().size()));
    body += template_.jinja();
    tokenizer_.save(body);

    std::string out(kMagic);
    append(out, kVersion);
    append(out, base::crc32c(body));
    return out + body;
}

Result<Artifact> Artifact::parse(std::string_view bytes) {
    if (bytes.size() > kBytesMax)
        return corrupt(fmt::format("{} bytes, {} are the most", bytes.size(), kBytesMax));
    Cursor cursor(bytes);
    if (cursor.take(kMagic.size()) != kMagic) return corrupt("it does not begin with 'parleyTK'");
    const auto version = cursor.value<uint32_t>();
    const auto crc = cursor.value<uint32_t>();
    if (cursor.failed()) return corrupt("its head is cut short");
    if (version != kVersion)
        return fail(Errc::unsupported, fmt::format("tokenizer file of version {}: only {} is read",
                                                   version, kVersion));
    if (base::crc32c(bytes.substr(cursor.position())) != crc)
        return corrupt("its check sum does not fit");

    const std::string_view hash = cursor.take(kHashBytes);
    Limits limits;
    limits.context_tokens = cursor.value<uint32_t>();
    limits.output_tokens_max = cursor.value<uint32_t>();
    const auto name = cursor.string<uint16_t>();
    const auto architecture = cursor.string<uint16_t>();
    const auto family = cursor.string<uint16_t>();
    const auto jinja = cursor.string<uint32_t>();
    if (cursor.failed()) return corrupt("it is cut short before its tokenizer");
    if (limits.context_tokens == 0 || limits.context_tokens > INT32_MAX ||
        limits.output_tokens_max == 0 || limits.output_tokens_max > limits.context_tokens)
        return corrupt(fmt::format("limits of {} and {} tokens", limits.context_tokens,
                                   limits.output_tokens_max));
    if (name.empty() || name.size() > kNameBytesMax || !presentable(name))
        return corrupt("its name");
    if (architecture.size() > kNameBytesMax || !presentable(architecture))
        return corrupt("its architecture");
    if (family.empty()) return corrupt("it names no template family");
    if (!presentable(family)) return corrupt("its template family");

    auto chat_template = ChatTemplate::recognise(jinja, family);
    if (!chat_template) return fail(chat_template.error());
    auto tokenizer = Tokenizer::load(cursor.take(cursor.left()));
    if (!tokenizer) return fail(tokenizer.error());
    if (auto ok = chat_template->fits(*tokenizer); !ok) return fail(ok.error());
    Artifact out(std::move(*tokenizer), std::move(*chat_template));
    out.hash_ = base::hex(hash);
    out.name_ = name;
    out.architecture_ = architecture;
    out.limits_ = limits;
    return out;
}

}  // namespace parley::model
