// infer-worker info, tokenize: what a model file holds, and what its tokenizer makes of a text.
#include "inspect.hpp"

#include <fmt/format.h>
#include <unicode/utf8.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <map>

#include "base/cli.hpp"
#include "base/file.hpp"
#include "base/json.hpp"
#include "base/text.hpp"
#include "messages/request.hpp"
#include "model/chat_template.hpp"
#include "model/gguf.hpp"
#include "model/markup.hpp"
#include "model/tokenizer.hpp"

namespace parley::infer_worker {
namespace {

using base::Errc;
using base::fail;
using base::Result;

Result<void> print(std::string_view text) {
    while (!text.empty()) {
        const ssize_t n = ::write(STDOUT_FILENO, text.data(), text.size());
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(base::errno_error(errno, "cannot write to standard output"));
        text.remove_prefix(static_cast<size_t>(n));
    }
    return {};
}

int finish(const Result<void>& result) {
    return result ? 0 : base::report("infer-worker", result.error());
}

Result<std::string> read_input(const TokenizeOptions& o) {
    if (o.text) return *o.text;
    if (o.input != "-") return base::read_file(o.input, o.input_bytes_max);
    std::string out;
    char buffer[64 * 1024];
    while (true) {
        const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail(base::errno_error(errno, "cannot read standard input"));
        if (n == 0) return out;
        out.append(buffer, static_cast<size_t>(n));
        if (out.size() > o.input_bytes_max)
            return fail(Errc::too_large,
                        fmt::format("standard input is longer than {} bytes", o.input_bytes_max));
    }
}

// Invalid bytes as U+FFFD: JSON is UTF-8, a model file or a row of tokens need not be.
std::string utf8(std::string_view text) {
    if (base::utf8_valid(text)) return std::string(text);
    std::string out;
    for (size_t i = 0; i < text.size();) {
        const auto* bytes = reinterpret_cast<const uint8_t*>(text.data()) + i;
        const auto length = static_cast<int32_t>(std::min<size_t>(text.size() - i, 4));
        int32_t size = 0;
        UChar32 point = 0;
        U8_NEXT(bytes, size, length, point);
        if (point < 0)
            out += "\xef\xbf\xbd";
        else
            out.append(text, i, static_cast<size_t>(size));
        i += point < 0 ? 1 : static_cast<size_t>(size);
    }
    return out;
}

struct TypeSum {
    uint64_t count = 0;
    uint64_t weights = 0;
    uint64_t bytes = 0;
};

struct Info {
    std::string architecture;
    std::string name;
    uint64_t parameters = 0;
    std::optional<uint64_t> context, layers, embedding, heads, kv_heads;
    std::map<std::string, TypeSum> types;
    uint64_t vocab = 0;
    std::string kind, pre;
    std::string family;           // "" if the template is not offered,
    std::string tokenizer_error;  // and why; the same of the tokenizer
    std::string template_error;
};

Info gather(const model::Gguf& file) {
    Info info;
    const auto text = [&](std::string_view key) { return utf8(file.string(key).value_or("")); };
    info.architecture = text("general.architecture");
    info.name = text("general.name");
    const auto number = [&](std::string_view key) {
        return file.uint(fmt::format("{}.{}", info.architecture, key));
    };
    info.context = number("context_length");
    info.layers = number("block_count");
    info.embedding = number("embedding_length");
    info.heads = number("attention.head_count");
    info.kv_heads = number("attention.head_count_kv");
    for (const auto& tensor : file.tensors()) {
        uint64_t weights = 1;
        for (const uint64_t dim : tensor.dims) weights *= dim;
        TypeSum& sum = info.types[kernels::traits(tensor.type).name];
        ++sum.count;
        sum.weights += weights;
        sum.bytes += tensor.data.size();
        info.parameters += weights;
    }
    info.kind = text("tokenizer.ggml.model");
    info.pre = text("tokenizer.ggml.pre");
    if (const auto tokenizer = model::Tokenizer::from_gguf(file))
        info.vocab = tokenizer->vocab_size();
    else
        info.tokenizer_error = utf8(tokenizer.error().what);
    const auto jinja = file.string("tokenizer.chat_template").value_or("");
    if (const auto chat = model::ChatTemplate::recognise(jinja, ""))
        info.family = chat->family();
    else
        info.template_error = utf8(chat.error().what);
    return info;
}

std::string info_json(const model::Gguf& file, const std::string& path, const Info& info) {
    std::string out;
    base::JsonWriter w(out);
    const auto maybe = [&](std::string_view key, std::optional<uint64_t> value) {
        w.key(key);
        value ? w.number(*value) : w.null();
    };
    w.object().field("file", utf8(path)).field("bytes", file.file_bytes());
    w.field("hash", file.content_hash());
    w.field("architecture", info.architecture)
        .field("name", info.name)
        .field("parameters", info.parameters);
    maybe("context_tokens", info.context);
    maybe("layers", info.layers);
    maybe("embedding", info.embedding);
    maybe("heads", info.heads);
    maybe("kv_heads", info.kv_heads);
    w.key("tokenizer")
        .object()
        .field("kind", info.kind)
        .field("pre", info.pre)
        .field("vocab", info.vocab);
    if (!info.tokenizer_error.empty()) w.field("error", info.tokenizer_error);
    w.end();
    w.key("template").object().field("family", info.family);
    if (!info.template_error.empty()) w.field("error", info.template_error);
    w.end();
    w.field("tensor_count", file.tensors().size());
    w.key("tensors").array();
    for (const auto& [type, sum] : info.types) {
        w.object().field("type", type).field("count", sum.count).field("weights", sum.weights);
        w.field("bytes", sum.bytes).end();
    }
    w.end().key("metadata").object();
    for (const auto& key : file.keys()) w.field(utf8(key), file.show(key));
    w.end().end();
    return out + "\n";
}

std::string info_text(const model::Gguf& file, const std::string& path, const Info& info) {
    std::string out;
    const auto line = [&](std::string_view name, std::string_view value) {
        out += fmt::format("{:<14}{}\n", name, value);
    };
    const auto number = [](std::optional<uint64_t> value) {
        return value ? fmt::format("{}", *value) : std::string("not said");
    };
    line("file", path);
    line("hash", file.content_hash());
    line("bytes", fmt::format("{}", file.file_bytes()));
    line("architecture", info.architecture);
    line("name", info.name);
    line("parameters", fmt::format("{}", info.parameters));
    line("context", number(info.context) + " tokens");
    line("layers", number(info.layers));
    line("embedding", number(info.embedding));
    line("heads", fmt::format("{}, {} key-value", number(info.heads), number(info.kv_heads)));
    line("vocabulary", info.tokenizer_error.empty()
                           ? fmt::format("{} tokens, {}, {}", info.vocab, info.kind, info.pre)
                           : info.tokenizer_error);
    line("template", info.template_error.empty() ? info.family : info.template_error);
    line("tensors", fmt::format("{}", file.tensors().size()));
    for (const auto& [type, sum] : info.types)
        out += fmt::format("  {:<6} {:>6} tensors {:>14} weights {:>14} bytes\n", type, sum.count,
                           sum.weights, sum.bytes);
    out += "metadata\n";
    for (const auto& key : file.keys())
        out += fmt::format("  {} = {}\n", utf8(key), file.show(key));
    return out;
}

Result<std::vector<model::Token>> read_ids(std::string_view text, uint32_t vocab) {
    constexpr std::string_view kBetween = " \t\r\n,[]";
    std::vector<model::Token> ids;
    for (size_t at = text.find_first_not_of(kBetween); at != std::string_view::npos;
         at = text.find_first_not_of(kBetween, at)) {
        const size_t end = std::min(text.find_first_of(kBetween, at), text.size());
        const std::string_view word = text.substr(at, end - at);
        uint32_t id = 0;
        const auto [stop, error] = std::from_chars(word.data(), word.data() + word.size(), id);
        if (error != std::errc{} || stop != word.data() + word.size() || id >= vocab)
            return fail(Errc::invalid, fmt::format("'{}' is not a token id (0 to {})",
                                                   utf8(word.substr(0, 32)), vocab - 1));
        ids.push_back(static_cast<model::Token>(id));
        at = end;
    }
    return ids;
}

Result<std::vector<model::Token>> prompt_ids(const model::Gguf& file,
                                             const model::Tokenizer& tokenizer,
                                             const TokenizeOptions& o, std::string_view body) {
    const auto chat = model::ChatTemplate::recognise(
        file.string("tokenizer.chat_template").value_or(""), o.chat_template);
    if (!chat) return fail(chat.error());
    if (auto ok = chat->fits(tokenizer); !ok) return fail(ok.error());
    messages::ParseOptions options;
    options.count_tokens = true;
    const auto request = messages::parse_request(body, options);
    if (!request) return fail(Errc::invalid, request.error().message);
    const auto turns = messages::turns_as<model::Turn>(*request);
    return chat->render(tokenizer, turns);
}

Result<void> tokenize(const TokenizeOptions& o) {
    if (o.decode && o.messages)
        return fail(Errc::usage,
                    "--decode and --messages exclude each other: ids or a body of messages?");
    if (o.model.empty())
        return fail(Errc::usage, "no model: name a GGUF file with --model or PARLEY_MODEL");
    const auto file = model::Gguf::open(o.model);
    if (!file) return fail(file.error());
    const auto tokenizer = model::Tokenizer::from_gguf(*file);
    if (!tokenizer) return fail("'" + o.model + "'", tokenizer.error());
    const auto input = read_input(o);
    if (!input) return fail(input.error());

    std::string out;
    if (o.decode) {
        const auto ids = read_ids(*input, tokenizer->vocab_size());
        if (!ids) return fail(ids.error());
        std::string text;
        for (const auto id : *ids)
            text += o.special ? tokenizer->spelling(id) : tokenizer->bytes(id);
        // Plain: the bytes and nothing else, so that encoding them again gives the same.
        if (!o.json) return print(text);
        base::JsonWriter(out).object().field("text", utf8(text)).field("count", ids->size()).end();
        return print(out + "\n");
    }
    Result<std::vector<model::Token>> ids = std::vector<model::Token>();
    if (o.messages)
        ids = prompt_ids(*file, *tokenizer, o, *input);
    else if (o.special)
        ids = model::encode_markup(*tokenizer, *input);
    else
        ids = tokenizer->encode(*input);
    if (!ids) return fail(ids.error());
    if (o.json) {
        base::JsonWriter w(out);
        w.object().key("ids").array();
        for (const auto id : *ids) w.number(id);
        w.end().field("count", ids->size()).end();
    } else {
        for (const auto id : *ids) out += fmt::format("{}{}", out.empty() ? "" : " ", id);
    }
    return print(out + "\n");
}

}  // namespace

int run_info(const std::string& model_path, bool json) {
    if (model_path.empty())
        return base::report(
            "infer-worker",
            {Errc::usage, "no model: name a GGUF file with --model or PARLEY_MODEL"});
    const auto file = model::Gguf::open(model_path);
    if (!file) return base::report("infer-worker", file.error());
    const Info info = gather(*file);
    return finish(
        print(json ? info_json(*file, model_path, info) : info_text(*file, model_path, info)));
}

int run_tokenize(const TokenizeOptions& options) { return finish(tokenize(options)); }

}  // namespace parley::infer_worker
