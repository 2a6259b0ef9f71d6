#include "search/searcher.hpp"

#include <simdjson.h>

#include <algorithm>
#include <map>
#include <set>

#include "base/clock.hpp"
#include "base/json.hpp"
#include "search/words.hpp"

namespace parley::search {

using base::Errc;
using base::fail;
using base::Result;

Result<std::vector<Document>> gather(store::Reader& reader, const Ulid& org, const Ulid& user,
                                     uint64_t after) {
    auto changes = reader.feed(user, after, kTailMax + 1);
    if (!changes) return fail(changes.error());
    if (changes->size() > kTailMax)
        return fail(Errc::again, "the search index is behind: convstore index has to catch up");
    simdjson::dom::parser parser;
    std::set<std::pair<Ulid, Ulid>> wanted;  // conversation, message
    std::set<Ulid> whole;
    for (const store::Change& change : *changes) {
        simdjson::dom::object object;
        if (parser.parse(change.json).get(object)) continue;
        const auto text = [&](const char* name) {
            std::string_view out;
            return object[name].get(out) ? std::string_view{} : out;
        };
        const std::string_view type = text("type");
        const auto conv = store::parse_id(store::kConv, text("conversation"));
        if (!conv) continue;
        if (type == "conversation.imported") whole.insert(*conv);
        if (!type.starts_with("message.")) continue;
        for (const char* name : {"user_message", "message"})
            if (const auto id = store::parse_id(store::kMsg, text(name))) wanted.insert({*conv, *id});
    }
    std::vector<Document> out;
    const auto add = [&](const store::MessageRow& row) {
        if (row.status == "streaming") return;
        Document document{user, row.conv, row.id, text_of_content(row.content)};
        if (!document.text.empty()) out.push_back(std::move(document));
    };
    std::map<Ulid, bool> ours;
    const auto own = [&](const Ulid& conv) {
        auto known = ours.find(conv);
        if (known == ours.end())
            known = ours.emplace(conv, reader.conversation(org, user, conv).has_value()).first;
        return known->second;
    };
    for (const Ulid& conv : whole) {
        if (!own(conv)) continue;
        store::MessagesQuery query;
        query.conv = conv;
        query.limit = kTailMax - std::min(kTailMax, out.size()) + 1;
        auto page = reader.messages(query);
        if (!page) return fail(page.error());
        for (const auto& row : page->rows) add(row);
        if (out.size() > kTailMax)
            return fail(Errc::again, "the search index is behind: convstore index has to catch up");
    }
    for (const auto& [conv, id] : wanted) {
        if (whole.contains(conv) || !own(conv)) continue;
        auto row = reader.message(conv, id);
        if (!row && row.error().code == Errc::not_found) continue;
        if (!row) return fail(row.error());
        add(*row);
    }
    return out;
}

Result<std::vector<Shown>> fetch(store::Reader& reader, const Ulid& org, const Ulid& user,
                                 const std::vector<Hit>& hits) {
    std::vector<Shown> out;
    for (const Hit& hit : hits) {
        auto conv = reader.conversation(org, user, hit.conv);
        if (!conv && conv.error().code == Errc::not_found) continue;
        if (!conv) return fail(conv.error());
        auto row = reader.message(hit.conv, hit.message);
        if (!row && row.error().code == Errc::not_found) continue;
        if (!row) return fail(row.error());
        Shown shown;
        shown.conv = hit.conv;
        shown.message = hit.message;
        shown.title = std::move(conv->title);
        shown.role = std::move(row->role);
        shown.text = text_of_content(row->content);
        shown.score = hit.score;
        shown.created_ms = row->created_ms;
        out.push_back(std::move(shown));
    }
    return out;
}

void show(std::vector<Shown>& results, const Query& query) {
    for (Shown& result : results) {
        result.snippet = snippet(result.text, query, kSnippetBytes, kTextBytesMax);
        result.text = {};
    }
}

std::string results_json(const std::vector<Shown>& results, const Found& found) {
    std::string out;
    base::JsonWriter w(out);
    w.object().key("data").array();
    for (const Shown& result : results)
        w.object()
            .field("conversation_id", store::show_id(store::kConv, result.conv))
            .field("message_id", store::show_id(store::kMsg, result.message))
            .field("title", result.title)
            .field("role", result.role)
            .field("snippet", result.snippet)
            .field("score", result.score)
            .field("created_at", base::rfc3339(result.created_ms))
            .end();
    w.end().field("has_more", found.has_more).key("next_cursor");
    if (found.next_cursor.empty())
        w.null();
    else
        w.string(found.next_cursor);
    w.end();
    return out;
}

}  // namespace parley::search
