#include <algorithm>
#include <charconv>

#include "base/json.hpp"
#include "routes.hpp"

namespace parley::chatd {

using messages::ApiError;

namespace {

void write_model(base::JsonWriter& w, const Named& named) {
    const store::ModelRow& row = named.model->row;
    w.object().field("type", "model").field("object", "model").field("id", named.id);
    w.field("display_name", named.id).field("created_at", base::rfc3339(named.created_ms));
    w.field("created", named.created_ms / 1000)
        .field("owned_by", "chatd")
        .field("lifecycle", "active");
    w.field("max_input_tokens", row.context)
        .field("max_tokens", row.output_max > 0 ? row.output_max : row.context);
    w.key("capabilities").null().end();
}

// `lifecycle[]` names the states that are wanted; every model here is active.
bool wants_active(const http::Request& request) {
    bool asked = false;
    for (const auto& [name, value] : request.query) {
        if (name != "lifecycle[]" && name != "lifecycle") continue;
        if (value == "active") return true;
        asked = true;
    }
    return !asked;
}

}  // namespace

void list_models(const ExchangePtr& exchange) {
    App& app = exchange->app;
    size_t limit = 20;
    if (const auto text = exchange->request.query_value("limit")) {
        const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), limit);
        if (error != std::errc() || end != text->data() + text->size() || limit < 1 || limit > 1000)
            return exchange->error(
                ApiError::invalid("limit", "Input should be an integer from 1 to 1000"));
    }
    std::vector<Named> all = app.catalog->list();
    std::erase_if(all, [&](const Named& named) { return !exchange->caller.may_ask(named.id); });
    if (!wants_active(exchange->request)) all.clear();
    const auto index_of = [&](std::string_view id) -> std::optional<size_t> {
        for (size_t i = 0; i < all.size(); ++i)
            if (all[i].id == id) return i;
        return std::nullopt;
    };
    size_t from = 0, to = all.size();
    if (const auto after = exchange->request.query_value("after_id")) {
        const auto index = index_of(*after);
        if (!index) return exchange->error(ApiError::invalid("after_id", "no such model"));
        from = *index + 1;
    }
    bool more = false;
    if (const auto before = exchange->request.query_value("before_id")) {
        const auto index = index_of(*before);
        if (!index) return exchange->error(ApiError::invalid("before_id", "no such model"));
        to = std::max(from, *index);
        if (to - from > limit) {
            from = to - limit;
            more = true;
        }
    } else if (to - from > limit) {
        to = from + limit;
        more = true;
    }
    std::string out;
    base::JsonWriter w(out);
    w.object().field("object", "list").key("data").array();
    for (size_t i = from; i < to; ++i) write_model(w, all[i]);
    w.end().field("has_more", more);
    if (from < to) {
        w.field("first_id", all[from].id).field("last_id", all[to - 1].id);
    } else {
        w.key("first_id").null().key("last_id").null();
    }
    w.end();
    exchange->reply(200, std::move(out));
}

void get_model(const ExchangePtr& exchange) {
    const std::string& id = exchange->request.segments[2];
    const auto model = exchange->app.catalog->find(id);
    if (!model || !exchange->caller.may_ask(id))
        return exchange->error(ApiError::unknown_model(id));
    std::string out;
    base::JsonWriter w(out);
    write_model(w, Named{id, model, model->row.created_ms});
    exchange->reply(200, std::move(out));
}

}  // namespace parley::chatd
