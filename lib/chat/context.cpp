#include "chat/context.hpp"

#include <algorithm>

#include "base/json.hpp"

namespace parley::chat {

using messages::ApiError;
using store::MessageRow;

namespace {

constexpr uint64_t kTokensAroundTurn = 8;  // markers and role of a turn, generously

bool empty_json(const std::string& json) {
    return json.empty() || json == "null" || json == "[]" || json == "\"\"";
}

// Rows that a prompt may show.
std::vector<const MessageRow*> visible(const std::vector<MessageRow>& path) {
    std::vector<const MessageRow*> rows;
    for (size_t i = 0; i < path.size(); ++i) {
        const MessageRow& row = path[i];
        const bool last = i + 1 == path.size();
        if (row.status == "blocked" || row.status == "failed") continue;
        const bool question_of_blocked = !last && row.role == "user" &&
                                         path[i + 1].role == "assistant" &&
                                         path[i + 1].status == "blocked";
        if (question_of_blocked || empty_json(row.content)) continue;
        rows.push_back(&row);
    }
    return rows;
}

std::string body_of(const std::vector<const MessageRow*>& rows, size_t from,
                    const ContextOptions& options, uint64_t max_tokens) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("model", options.model).field("max_tokens", max_tokens);
    w.field("stream", options.stream);
    if (!empty_json(options.system)) w.key("system").raw(options.system);
    w.key("messages").array();
    for (size_t i = from; i < rows.size(); ++i)
        w.object().field("role", rows[i]->role).key("content").raw(rows[i]->content).end();
    w.end();
    if (!options.extra_members.empty()) {
        out += ',';
        out += options.extra_members;
    }
    w.end();
    return out;
}

}  // namespace

uint64_t count_prompt(const messages::Request& request, const model::Artifact& artifact) {
    const auto turns = messages::turns_as<model::Turn>(request);
    return artifact.chat_template().render(artifact.tokenizer(), turns).size();
}

tl::expected<Context, ApiError> build_context(const std::vector<MessageRow>& path,
                                              const ContextOptions& options,
                                              const model::Artifact* artifact) {
    const auto rows = visible(path);
    if (rows.empty()) return tl::make_unexpected(ApiError::invalid("content", "Field required"));
    Context context;
    context.max_tokens = options.max_tokens;
    if (!artifact) {
        context.body = body_of(rows, 0, options, options.max_tokens);
        return context;
    }
    const uint64_t window = artifact->limits().context_tokens;
    const uint64_t room = std::max<uint64_t>(1, std::min(options.max_tokens, window / 4));
    const uint64_t prompt_max = window > room ? window - room : 1;

    // What each row costs, from the newest back; the JSON form and the margin make it a little too much.
    std::vector<uint64_t> cost(rows.size(), 0);
    size_t from = rows.size() - 1;
    uint64_t sum = 0;
    std::vector<model::Token> ids;
    for (size_t i = rows.size(); i-- > 0;) {
        ids.clear();
        artifact->tokenizer().encode(rows[i]->content, ids);
        cost[i] = ids.size() + kTokensAroundTurn;
        sum += cost[i];
        if (sum > prompt_max + prompt_max / 2 && i + 1 < rows.size()) break;
        from = i;
    }
    // A turn is a question and its answer: never begin with an answer.
    const auto to_question = [&] {
        while (from + 1 < rows.size() && rows[from]->role == "assistant") ++from;
    };
    if (from > 0) to_question();
    for (;;) {
        std::string body = body_of(rows, from, options, options.max_tokens);
        auto request = messages::parse_request(body);
        if (!request) return tl::make_unexpected(request.error());
        const uint64_t tokens = count_prompt(*request, *artifact);
        const bool alone = from + 1 >= rows.size();
        if (tokens <= prompt_max || (alone && tokens < window)) {
            context.prompt_tokens = tokens;
            context.truncated_messages = static_cast<uint32_t>(from);
            context.max_tokens = std::min(options.max_tokens, window - tokens);
            context.body = context.max_tokens == options.max_tokens
                               ? std::move(body)
                               : body_of(rows, from, options, context.max_tokens);
            return context;
        }
        if (alone) return tl::make_unexpected(ApiError::prompt_too_long(tokens, window - 1));
        // As costs are overstated, this drops too little rather than too much; the count decides again.
        for (uint64_t freed = 0; from + 1 < rows.size() && freed < tokens - prompt_max; ++from)
            freed += cost[from];
        to_question();
    }
}

}  // namespace parley::chat
