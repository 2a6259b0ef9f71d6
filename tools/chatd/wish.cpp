#include "wish.hpp"

#include <simdjson.h>

#include "base/json.hpp"
#include "json_in.hpp"

namespace parley::chatd {

using messages::ApiError;

std::string Wish::params() const {
    std::string out;
    base::JsonWriter w(out);
    w.object()
        .field("model", model)
        .field("max_tokens", max_tokens)
        .field("seed", std::to_string(seed));
    w.key("system").raw(system.empty() ? "null" : system).key("sampling").raw("{" + members + "}");
    w.end();
    return out;
}

Wish Wish::from_params(const std::string& json) {
    Wish wish;
    simdjson::dom::parser parser;
    simdjson::dom::element params;
    std::string_view text;
    if (!parser.parse(json).get(params)) {
        if (!params["model"].get(text)) wish.model = text;
        if (params["max_tokens"].get(wish.max_tokens)) wish.max_tokens = kMaxTokensDefault;
        if (!params["seed"].get(text))
            wish.seed = std::strtoull(std::string(text).c_str(), nullptr, 10);
    }
    wish.system = member_json(json, "system");
    if (wish.system == "null") wish.system.clear();
    const std::string sampling = member_json(json, "sampling");
    if (sampling.size() > 2) wish.members = sampling.substr(1, sampling.size() - 2);
    return wish;
}

tl::expected<chat::Context, ApiError> context_of(App& app, const Wish& wish,
                                                 std::vector<store::MessageRow> path) {
    const auto model = app.catalog->find(wish.model);
    if (!model) return tl::make_unexpected(ApiError::unknown_model(wish.model));
    chat::ContextOptions options;
    options.model = app.catalog->below(wish.model);
    options.max_tokens = wish.max_tokens;
    options.system = wish.system;
    options.extra_members = wish.members;
    return chat::build_context(path, options, model->artifact.get());
}

chat::AnswerOptions answer_of(const Exchange& exchange, const Wish& wish,
                              const chat::Context& context, const store::MessageRow& message) {
    Ask ask;
    ask.id = store::show_id(store::kMsg, message.id);
    ask.model = wish.model;
    ask.body = context.body;
    ask.prompt_tokens = context.prompt_tokens > 0 ? context.prompt_tokens : context.body.size() / 3;
    ask.max_tokens = context.max_tokens;
    ask.stream = wish.stream;
    ask.seed = wish.seed;
    chat::AnswerOptions options = answer_options(exchange, std::move(ask));
    options.envelope.conversation = store::show_id(store::kConv, message.conv);
    if (context.prompt_tokens > 0)
        options.count_prompt = [tokens = context.prompt_tokens] { return tokens; };
    return options;
}

}  // namespace parley::chatd
