#include "store/transfer.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <set>

#include "base/json.hpp"

namespace parley::store {
namespace {

constexpr size_t kPage = 50;

void line(std::string& out, std::string_view type, std::string_view json) {
    base::JsonWriter(out).object().field("type", type).key(type).raw(json).end();
    out += '\n';
}

}  // namespace

Result<void> UserExport::begin(std::string& out) {
    begun_ = true;
    std::set<Ulid> seen;
    std::string cursor;
    do {
        auto page = reader_.conversations(user_, 1000, cursor);
        if (!page) return fail(page.error());
        for (const ConvRow& row : page->rows)
            if (row.org == org_ && seen.insert(row.id).second) convs_.push_back(row.id);
        cursor = page->next_cursor;
    } while (!cursor.empty());
    base::JsonWriter(out)
        .object()
        .field("type", "export")
        .field("version", 1)
        .field("org", show_id(kOrg, org_))
        .field("user", show_id(kUser, user_))
        .end();
    out += '\n';
    return {};
}

Result<bool> UserExport::next(std::string& out) {
    if (!begun_)
        if (auto done = begin(out); !done) return fail(done.error());
    for (size_t empty = 0; at_ < convs_.size() && empty < kPage; ++at_, ++empty) {
        if (!inside_) {
            auto conv = reader_.conversation(org_, user_, convs_[at_]);
            if (!conv && conv.error().code == Errc::not_found) continue;  // deleted since
            if (!conv) return fail(conv.error());
            line(out, "conversation", to_json(*conv));
            ++conversations_;
            inside_ = true;
            after_.reset();
        }
        auto page = reader_.messages({convs_[at_], kPage, {}, after_, true});
        if (!page) return fail(page.error());
        for (const MessageRow& row : page->rows) line(out, "message", to_json(row));
        messages_ += page->rows.size();
        if (!page->rows.empty()) after_ = page->rows.back().id;
        if (page->has_more) return true;
        inside_ = false;
    }
    if (at_ < convs_.size()) return true;
    base::JsonWriter(out)
        .object()
        .field("type", "end")
        .field("conversations", conversations_)
        .field("messages", messages_)
        .end();
    out += '\n';
    return false;
}

std::string markdown_head(const ConvRow& conv) {
    // A title is one line, whatever it holds.
    std::string title = conv.title.empty() ? "Untitled" : conv.title;
    for (char& c : title)
        if (c == '\n' || c == '\r') c = ' ';
    return fmt::format("# {}\n\n{}, {}\n", title, base::rfc3339(conv.created_ms),
                       show_id(kConv, conv.id));
}

std::string markdown_of(const MessageRow& message) {
    std::string out =
        fmt::format("\n## {}, {}{}\n\n", message.role == "user" ? "User" : "Assistant",
                    base::rfc3339(message.created_ms),
                    message.status == "done" ? "" : " (" + message.status + ")");
    simdjson::dom::parser parser;
    simdjson::dom::array blocks;
    if (parser.parse(message.content).get(blocks)) return out;
    for (const simdjson::dom::element block : blocks) {
        std::string_view type, text;
        if (!block["type"].get(type) && type == "text" && !block["text"].get(text))
            out += fmt::format("{}\n", text);
        else
            out += fmt::format("```json\n{}\n```\n", simdjson::minify(block));
    }
    return out;
}

}  // namespace parley::store
