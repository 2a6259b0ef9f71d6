#include "load/prompts.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include <cerrno>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/text.hpp"

namespace parley::load {
namespace {

using base::Errc;
using base::Result;

void finish_body(base::JsonWriter& w, const PromptOptions& options, bool has_model,
                 bool has_max_tokens) {
    if (!options.model.empty())
        w.field("model", options.model);
    else if (!has_model)
        w.field("model", "default");
    if (options.max_tokens)
        w.field("max_tokens", *options.max_tokens);
    else if (!has_max_tokens)
        w.field("max_tokens", 128);
    if (options.temperature) w.field("temperature", *options.temperature);
    w.field("stream", true).end();
}

void user_message(base::JsonWriter& w, std::string_view text) {
    w.key("messages").array().object().field("role", "user").field("content", text).end().end();
}

Result<std::string> body_of(std::string_view line, const PromptOptions& options,
                            simdjson::dom::parser& parser) {
    std::string out;
    base::JsonWriter w(out);
    if (line.front() != '{') {
        if (!base::utf8_valid(line)) return base::fail(Errc::invalid, "not valid UTF-8");
        w.object();
        user_message(w, line);
        finish_body(w, options, false, false);
        return out;
    }
    simdjson::dom::element root;
    if (const auto error = parser.parse(line.data(), line.size()).get(root))
        return base::fail(Errc::invalid,
                          fmt::format("not valid JSON: {}", simdjson::error_message(error)));
    simdjson::dom::object object;
    if (root.get(object)) return base::fail(Errc::invalid, "not a JSON object");
    bool has_messages = false, has_prompt = false, has_model = false, has_max_tokens = false;
    w.object();
    for (const auto& [key, value] : object) {
        if (key == "prompt") {
            std::string_view text;
            if (value.get(text))
                return base::fail(Errc::invalid, "prompt: input should be a valid string");
            if (has_messages) return base::fail(Errc::invalid, "both 'messages' and 'prompt'");
            has_prompt = true;
            user_message(w, text);
            continue;
        }
        if (key == "messages") {
            if (has_prompt) return base::fail(Errc::invalid, "both 'messages' and 'prompt'");
            has_messages = true;
        }
        if (key == "stream" || (key == "model" && !options.model.empty()) ||
            (key == "max_tokens" && options.max_tokens) ||
            (key == "temperature" && options.temperature))
            continue;
        has_model |= key == "model";
        has_max_tokens |= key == "max_tokens";
        w.key(key).raw(simdjson::minify(value));
    }
    if (!has_messages && !has_prompt)
        return base::fail(Errc::invalid, "neither 'messages' nor 'prompt' in it");
    finish_body(w, options, has_model, has_max_tokens);
    return out;
}

Result<std::string> read_stdin(uint64_t bytes_max) {
    std::string out;
    char buffer[65536];
    while (true) {
        const ssize_t n = ::read(STDIN_FILENO, buffer, sizeof buffer);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return base::fail(base::errno_error(errno, "cannot read standard input"));
        if (n == 0) return out;
        out.append(buffer, static_cast<size_t>(n));
        if (out.size() > bytes_max)
            return base::fail(Errc::too_large,
                              fmt::format("standard input is larger than {} bytes", bytes_max));
    }
}

}  // namespace

Result<PromptSet> PromptSet::parse(std::string_view text, const PromptOptions& options) {
    PromptSet out;
    simdjson::dom::parser parser;
    size_t number = 0;
    while (!text.empty()) {
        ++number;
        const size_t end = text.find('\n');
        std::string_view line = text.substr(0, end);
        text = end == std::string_view::npos ? std::string_view() : text.substr(end + 1);
        if (line.ends_with('\r')) line.remove_suffix(1);
        if (line.find_first_not_of(" \t") == std::string_view::npos) continue;
        if (out.bodies_.size() >= options.prompts_max)
            return base::fail(Errc::too_large,
                              fmt::format("more than {} prompts", options.prompts_max));
        auto body = body_of(line, options, parser);
        if (!body) return base::fail(fmt::format("line {}", number), body.error());
        out.bodies_.push_back(std::move(*body));
    }
    if (out.bodies_.empty()) return base::fail(Errc::invalid, "no prompt in it");
    return out;
}

Result<PromptSet> PromptSet::read(const std::string& path, const PromptOptions& options) {
    auto text = path == "-" ? read_stdin(options.file_bytes_max)
                            : base::read_file(path, options.file_bytes_max);
    if (!text) return base::fail(text.error());
    auto out = parse(*text, options);
    if (!out) return base::fail(fmt::format("prompt set '{}'", path), out.error());
    return out;
}

}  // namespace parley::load
