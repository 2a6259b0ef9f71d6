// export of one user, and import: conversations between stores, files and people.
#include "store/transfer.hpp"

#include <fmt/format.h>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "hand.hpp"
#include "options.hpp"

namespace parley::convstore {

using base::Errc;
using base::fail;
using base::Result;

Result<store::Ulid> org_id(store::Reader& reader, const std::string& org) {
    if (auto id = store::parse_id(store::kOrg, org)) return *id;
    auto row = reader.org_by_name(org);
    if (!row) return fail(row.error());
    return row->id;
}

Result<void> export_user(const Options& o) {
    auto reader = store::open_reader(o.store_path());
    if (!reader) return fail(reader.error());
    auto org = org_id(**reader, o.org);
    if (!org) return fail(org.error());
    const store::Ulid user = store::user_id(*org, o.user);
    if (auto row = (*reader)->user(user); !row) return fail(row.error());
    uint64_t any = 0;
    store::UserExport lines(**reader, *org, user);
    simdjson::dom::parser parser;
    for (bool more = true; more;) {
        std::string out;
        auto next = lines.next(out);
        if (!next) return fail(next.error());
        more = *next;
        if (o.format == "markdown") {
            std::string text;
            for (size_t at = 0; at < out.size();) {
                const size_t end = out.find('\n', at);
                simdjson::dom::element row, member;
                if (parser.parse(out.substr(at, end - at)).get(row) == simdjson::SUCCESS) {
                    if (row["conversation"].get(member) == simdjson::SUCCESS &&
                        member.is_object()) {
                        if (auto conv = store::from_json<store::ConvRow>(
                                std::string(simdjson::minify(member))))
                            text += (any++ ? "\n" : "") + store::markdown_head(*conv);
                    } else if (row["message"].get(member) == simdjson::SUCCESS) {
                        if (auto message = store::from_json<store::MessageRow>(
                                std::string(simdjson::minify(member))))
                            text += store::markdown_of(*message);
                    }
                }
                at = end + 1;
            }
            out = std::move(text);
        }
        if (auto put = put_out(out); !put) return put;
    }
    return {};
}

namespace {

// Says one conversation to the store, whole. Whether it is new, and how many of its messages are.
Result<std::pair<bool, uint64_t>> say(Hand& hand, const store::ConversationImport& whole) {
    bool created = false;
    uint64_t messages = 0;
    for (const auto& piece : store::cut_import(whole, 1u << 20)) {
        auto reply = hand.run(piece.json());
        if (!reply) return fail(reply.error());
        simdjson::dom::parser parser;
        simdjson::dom::element said;
        bool made = false;
        uint64_t fresh = 0;
        if (parser.parse(*reply).get(said) || said["created"].get(made) ||
            said["messages"].get(fresh))
            return fail(Errc::internal, "the writer's reply is not one: " + *reply);
        created |= made;
        messages += fresh;
    }
    return std::pair(created, messages);
}

Result<void> import_file(const Options& o) {
    auto file = base::read_file(o.file, o.file_bytes_max);
    if (!file) return fail(file.error());
    Hand hand(o);
    if (auto reached = hand.reach(); !reached) return reached;
    auto reader = store::open_reader(o.places().store());
    if (!reader) return fail(reader.error());
    auto org = org_id(**reader, o.org);
    if (!org) return fail(org.error());
    const store::Ulid user = store::user_id(*org, o.user);
    const int64_t now_ms = base::system_clock().wall_ms();
    uint64_t created = 0, messages = 0;
    auto counts =
        store::read_import(*file, now_ms, [&](store::ConversationImport& conv) -> Result<void> {
            conv.org = *org;
            conv.user = user;
            conv.user_name = o.user;
            // One of ours keeps its ids where they are free, or this user's.
            const bool ours = conv.source_id.starts_with(store::kConv);
            if (!ours) store::draw_ids(conv, user, now_ms);
            auto said = say(hand, conv);
            if (!said && ours &&
                (said.error().code == Errc::conflict || said.error().code == Errc::invalid)) {
                store::draw_ids(conv, user, now_ms);
                said = say(hand, conv);
            }
            if (!said)
                return fail("'" + conv.source_id + "' is not imported, those before it are",
                            said.error());
            created += said->first ? 1 : 0;
            messages += said->second;
            return {};
        });
    if (!counts) return fail(fmt::format("'{}'", o.file), counts.error());
    if (!o.json)
        return put_out(
            fmt::format("{} conversations in the file, {} new; {} new messages; {} parts that are "
                        "no text left out\n",
                        counts->conversations, created, messages, counts->left_out));
    std::string out;
    base::JsonWriter(out)
        .object()
        .field("conversations", counts->conversations)
        .field("created", created)
        .field("messages", messages)
        .field("left_out", counts->left_out)
        .end();
    return put_out(out + "\n");
}

}  // namespace

int import(const Options& o) {
    const auto done = import_file(o);
    return done ? 0 : base::report("convstore", done.error());
}

}  // namespace parley::convstore
