// Files of conversations into imports: our own lines, ChatGPT's and Claude's data exports.
#include <fmt/format.h>
#include <simdjson.h>
#include <sodium.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <unordered_map>

#include "base/json.hpp"
#include "store/fields.hpp"
#include "store/transfer.hpp"

namespace parley::store {
namespace {

using Message = ConversationImport::Message;
using Dom = simdjson::dom::element;

Ulid drawn(int64_t ms, std::string_view text) {
    Ulid id;
    crypto_generichash(id.bytes.data(), id.bytes.size(),
                       reinterpret_cast<const uint8_t*>(text.data()), text.size(), nullptr, 0);
    for (int i = 0; i < 6; ++i)
        id.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(ms >> (40 - 8 * i));
    return id;
}

std::string text_of(const Dom& object, const char* name) {
    std::string_view text;
    return object[name].get(text) ? std::string{} : std::string(text);
}

// "2024-05-01T12:34:56.789Z", with any offset; 0 when it is none.
int64_t time_of(const std::string& text) {
    tm at{};
    double seconds = 0;
    int used = 0;
    if (std::sscanf(text.c_str(), "%d-%d-%dT%d:%d:%lf%n", &at.tm_year, &at.tm_mon, &at.tm_mday,
                    &at.tm_hour, &at.tm_min, &seconds, &used) != 6 ||
        !(seconds >= 0 && seconds < 61) || at.tm_year < 1970 || at.tm_year > 9999)
        return 0;
    at.tm_year -= 1900;
    at.tm_mon -= 1;
    int64_t ms = static_cast<int64_t>(::timegm(&at)) * 1000 + static_cast<int64_t>(seconds * 1000);
    int hours = 0, minutes = 0;
    char sign = 0;
    if (std::sscanf(text.c_str() + used, "%c%d:%d", &sign, &hours, &minutes) == 3 &&
        (sign == '+' || sign == '-'))
        ms -= (sign == '+' ? 1 : -1) * (hours * 60 + minutes) * 60'000ll;
    return std::max<int64_t>(ms, 0);
}

int64_t seconds_of(const Dom& object, const char* name) {
    double seconds = 0;
    return object[name].get(seconds) || !(seconds > 0 && seconds < 1e11)
               ? 0
               : static_cast<int64_t>(seconds * 1000);
}

void add_block(std::string& blocks, std::string_view text) {
    blocks += blocks.empty() ? '[' : ',';
    base::JsonWriter(blocks).object().field("type", "text").field("text", text).end();
}

tl::unexpected<Error> bad(uint64_t number, std::string_view why) {
    return fail(Errc::invalid, fmt::format("conversation {}: {}", number, why));
}

// Ids that rise from parent to child, whatever the file's clocks say.
void give_ids(ConversationImport& conv, std::string_view salt, int64_t now_ms) {
    const auto within = [&](int64_t ms) { return std::clamp<int64_t>(ms, 1, now_ms); };
    conv.created_ms = within(conv.created_ms);
    conv.updated_ms = within(std::max(conv.updated_ms, conv.created_ms));
    const std::string own = std::string(salt) + '\0' + conv.source_id;
    conv.conv = drawn(conv.created_ms, own);
    std::unordered_map<std::string, Ulid> ids;
    int64_t last_ms = conv.created_ms;
    for (Message& message : conv.messages) {
        if (message.created_ms <= 0) message.created_ms = last_ms;
        message.created_ms = within(message.created_ms);
        int64_t ms = message.created_ms;
        message.parent.reset();
        if (const auto it = ids.find(message.source_parent); it != ids.end()) {
            message.parent = it->second;
            ms = std::max(ms, static_cast<int64_t>(it->second.ms()));
        }
        message.id = drawn(ms, own + '\0' + message.source_id);
        if (message.parent && message.id <= *message.parent) {
            // Just above the parent: its time and the bits after it, one more; the rest stays drawn, so that
            // siblings differ.
            for (size_t i = 0; i < 8; ++i) message.id.bytes[i] = message.parent->bytes[i];
            for (size_t i = 8; i-- > 0 && ++message.id.bytes[i] == 0;) {
            }
        }
        ids[message.source_id] = message.id;
        last_ms = ms;
    }
    const auto head = ids.find(conv.source_head);
    conv.head.reset();
    if (head != ids.end())
        conv.head = head->second;
    else if (!conv.messages.empty())
        conv.head = conv.messages.back().id;
}

class Reading {
  public:
    Reading(int64_t now_ms, const std::function<Result<void>(ConversationImport&)>& each)
        : now_ms_(now_ms), each_(each) {}

    Result<ImportCounts> lines(std::string_view file) {
        uint64_t number = 0;
        bool ended = false, begun = false;
        std::optional<ConversationImport> conv;
        while (!file.empty()) {
            const size_t end = std::min(file.find('\n'), file.size());
            const std::string one(file.substr(0, end));
            file.remove_prefix(std::min(end + 1, file.size()));
            ++number;
            if (one.find_first_not_of(" \r\t") == std::string::npos) continue;
            Dom row;
            if (ended || parser_.parse(one).get(row))
                return fail(Errc::invalid,
                            fmt::format("line {} is no JSON object of an export", number));
            const std::string type = text_of(row, "type");
            if (!begun) {
                int64_t version = 0;
                if (type != "export" || row["version"].get(version) || version != 1)
                    return fail(
                        Errc::invalid,
                        R"(line 1 should be {"type":"export","version":1,…}: this is no export of ours)");
                begun = true;
                continue;
            }
            if (type == "message") {
                if (!conv)
                    return fail(Errc::invalid,
                                fmt::format("line {}: a message before any conversation", number));
                auto message = from_json<MessageRow>(member_of(row, "message"));
                if (!message || message->conv != conv->conv)
                    return fail(
                        Errc::invalid,
                        fmt::format("line {}: no message of the conversation above", number));
                Message& into = conv->messages.emplace_back();
                into.id = message->id;
                into.parent = message->parent;
                into.source_id = show_id(kMsg, message->id);
                if (message->parent) into.source_parent = show_id(kMsg, *message->parent);
                into.role = message->role;
                // An answer that had not ended has no stream here to end by.
                into.status = message->status == "streaming" || message->status == "interrupted"
                                  ? "cancelled"
                                  : message->status;
                into.stop_reason = message->stop_reason;
                into.model = message->model;
                into.content = message->content;
                into.usage = message->usage;
                into.token_count = message->token_count;
                into.created_ms = message->created_ms;
                continue;
            }
            if (conv)
                if (auto done = hand_out(*conv); !done) return fail(done.error());
            conv.reset();
            if (type == "conversation") {
                auto read = from_json<ConvRow>(member_of(row, "conversation"));
                if (!read)
                    return fail(Errc::invalid,
                                fmt::format("line {}: {}", number, read.error().what));
                conv.emplace();
                conv->conv = read->id;
                conv->source_id = show_id(kConv, read->id);
                conv->title = read->title;
                conv->model = read->model;
                conv->system = read->system;
                conv->metadata = read->metadata;
                conv->created_ms = read->created_ms;
                conv->updated_ms = read->updated_ms;
                conv->archived = read->archived;
                conv->pinned = read->pinned;
                conv->head = read->head;
                if (read->head) conv->source_head = show_id(kMsg, *read->head);
            } else if (type == "end") {
                ended = true;
            } else {
                return fail(
                    Errc::invalid,
                    fmt::format("line {}: a conversation, a message or the end was expected",
                                number));
            }
        }
        if (!ended)
            return fail(Errc::invalid, "the file is cut: its last line, of type end, is missing");
        return counts_;
    }

    // A JSON array, one object at a time.
    Result<ImportCounts> array(std::string_view file) {
        size_t at = file.find('[') + 1;
        for (;;) {
            at = file.find_first_not_of(" \r\n\t,", at);
            if (at == std::string_view::npos)
                return fail(Errc::invalid, "the file is cut: the array does not end");
            if (file[at] == ']') return counts_;
            size_t depth = 0, end = at;
            bool text = false;
            for (; end < file.size(); ++end) {
                const char c = file[end];
                if (text) {
                    if (c == '\\')
                        ++end;
                    else if (c == '"')
                        text = false;
                } else if (c == '"') {
                    text = true;
                } else if (c == '{' || c == '[') {
                    ++depth;
                } else if ((c == '}' || c == ']') && --depth == 0) {
                    break;
                }
                if (depth == 0) return bad(number_ + 1, "an object was expected");
            }
            if (end >= file.size()) return bad(number_ + 1, "the file is cut within it");
            ++number_;
            const std::string one(file.substr(at, end + 1 - at));
            Dom object;
            if (const auto error = parser_.parse(one).get(object))
                return bad(number_, simdjson::error_message(error));
            simdjson::dom::object mapping;
            simdjson::dom::array chat;
            Result<void> done;
            if (!object["mapping"].get(mapping))
                done = chatgpt(object, mapping);
            else if (!object["chat_messages"].get(chat))
                done = claude(object, chat);
            else
                return bad(number_, "neither ChatGPT's (mapping) nor Claude's (chat_messages)");
            if (!done) return fail(done.error());
            at = end + 1;
        }
    }

  private:
    static std::string member_of(const Dom& row, const char* name) {
        Dom member;
        return row[name].get(member) ? "null" : std::string(simdjson::minify(member));
    }
    Result<void> hand_out(ConversationImport& conv) {
        ++counts_.conversations;
        return each_(conv);
    }

    // A tree of nodes: those of user and assistant with text are kept, the others' children hang under the
    // nearest kept one above.
    Result<void> chatgpt(const Dom& object, const simdjson::dom::object& mapping) {
        ConversationImport conv;
        conv.source_id = text_of(object, "conversation_id");
        if (conv.source_id.empty()) conv.source_id = text_of(object, "id");
        if (conv.source_id.empty()) return bad(number_, "it has no id");
        conv.source_id = "chatgpt:" + conv.source_id;
        conv.title = text_of(object, "title");
        conv.created_ms = seconds_of(object, "create_time");
        conv.updated_ms = seconds_of(object, "update_time");
        struct Node {
            std::string parent;
            std::optional<Message> message;
            std::vector<std::string> children;
        };
        std::map<std::string, Node> nodes;
        for (const auto& [key, value] : mapping) {
            Node node;
            node.parent = text_of(value, "parent");
            simdjson::dom::array children;
            if (!value["children"].get(children))
                for (const Dom child : children) {
                    std::string_view id;
                    if (!child.get(id)) node.children.emplace_back(id);
                }
            Dom said;
            if (!value["message"].get(said) && said.is_object())
                node.message = chatgpt_message(said, std::string(key));
            nodes.emplace(std::string(key), std::move(node));
        }
        // From the roots down, without recursion; a node is met once, so that a circle ends.
        std::vector<std::pair<std::string, std::string>> open;  // node, nearest kept above
        for (auto it = nodes.rbegin(); it != nodes.rend(); ++it)
            if (!nodes.contains(it->second.parent)) open.emplace_back(it->first, "");
        std::map<std::string, std::string>
            kept;  // of every node met: itself, or the nearest kept above
        while (!open.empty()) {
            auto [id, above] = std::move(open.back());
            open.pop_back();
            if (kept.contains(id)) continue;
            Node& node = nodes.at(id);
            if (node.message) {
                node.message->source_parent = above;
                above = id;
                conv.messages.push_back(std::move(*node.message));
            }
            kept[id] = above;
            for (auto child = node.children.rbegin(); child != node.children.rend(); ++child)
                if (nodes.contains(*child)) open.emplace_back(*child, above);
        }
        if (kept.size() != nodes.size()) return bad(number_, "its mapping is no tree");
        if (const auto head = kept.find(text_of(object, "current_node")); head != kept.end())
            conv.source_head = head->second;
        give_ids(conv, "", now_ms_);
        return hand_out(conv);
    }
    std::optional<Message> chatgpt_message(const Dom& said, std::string id) {
        Message message;
        message.source_id = std::move(id);
        std::string_view role, type;
        if (said["author"]["role"].get(role) || (role != "user" && role != "assistant"))
            return std::nullopt;
        message.role = role;
        message.created_ms = seconds_of(said, "create_time");
        std::string_view model;
        if (!said["metadata"]["model_slug"].get(model)) message.model = model;
        simdjson::dom::array parts;
        std::string_view whole;
        if (!said["content"]["parts"].get(parts)) {
            for (const Dom part : parts) {
                std::string_view text;
                if (!part.get(text)) {
                    if (!text.empty()) add_block(message.content, text);
                } else {
                    ++counts_.left_out;
                }
            }
        } else if (!said["content"]["text"].get(whole) && !whole.empty()) {
            add_block(message.content, whole);
        }
        if (message.content.empty()) return std::nullopt;
        message.content += ']';
        return message;
    }

    Result<void> claude(const Dom& object, const simdjson::dom::array& chat) {
        ConversationImport conv;
        conv.source_id = text_of(object, "uuid");
        if (conv.source_id.empty()) return bad(number_, "it has no uuid");
        conv.source_id = "claude:" + conv.source_id;
        conv.title = text_of(object, "name");
        conv.created_ms = time_of(text_of(object, "created_at"));
        conv.updated_ms = time_of(text_of(object, "updated_at"));
        std::string last;
        std::map<std::string, std::string> kept;
        for (const Dom said : chat) {
            const std::string id = text_of(said, "uuid"), sender = text_of(said, "sender");
            if (id.empty() || (sender != "human" && sender != "assistant"))
                return bad(
                    number_,
                    "a message without uuid, or of a sender that is neither human nor assistant");
            const std::string parent = text_of(said, "parent_message_uuid");
            const auto known = kept.find(parent);
            const std::string above = known != kept.end() ? known->second : last;
            Message message;
            message.source_id = id;
            message.source_parent = above;
            message.role = sender == "human" ? "user" : "assistant";
            message.created_ms = time_of(text_of(said, "created_at"));
            simdjson::dom::array blocks;
            if (!said["content"].get(blocks))
                for (const Dom block : blocks) {
                    const std::string text = text_of(block, "text");
                    if (text_of(block, "type") == "text" && !text.empty())
                        add_block(message.content, text);
                    else if (text_of(block, "type") != "text")
                        ++counts_.left_out;
                }
            if (message.content.empty())
                if (const std::string text = text_of(said, "text"); !text.empty())
                    add_block(message.content, text);
            for (const char* files : {"attachments", "files"}) {
                simdjson::dom::array list;
                if (!said[files].get(list)) counts_.left_out += list.size();
            }
            kept[id] = above;
            if (message.content.empty()) continue;
            message.content += ']';
            kept[id] = last = id;
            conv.messages.push_back(std::move(message));
        }
        give_ids(conv, "", now_ms_);
        return hand_out(conv);
    }

    const int64_t now_ms_;
    const std::function<Result<void>(ConversationImport&)>& each_;
    simdjson::dom::parser parser_;
    ImportCounts counts_;
    uint64_t number_ = 0;
};

}  // namespace

Result<ImportCounts> read_import(std::string_view file, int64_t now_ms,
                                 const std::function<Result<void>(ConversationImport&)>& each) {
    if (file.starts_with("\xEF\xBB\xBF")) file.remove_prefix(3);
    const size_t at = file.find_first_not_of(" \r\n\t");
    Reading reading(now_ms, each);
    if (at != std::string_view::npos && file[at] == '{') return reading.lines(file);
    if (at != std::string_view::npos && file[at] == '[') return reading.array(file);
    return fail(
        Errc::invalid,
        "neither an export of ours (JSON Lines) nor a conversations.json of ChatGPT or Claude");
}

void draw_ids(ConversationImport& conversation, const Ulid& user, int64_t now_ms) {
    give_ids(conversation, user.view(), now_ms);
}

std::vector<ConversationImport> cut_import(const ConversationImport& whole, size_t bytes) {
    std::vector<ConversationImport> out;
    const auto fresh = [&] {
        ConversationImport& piece = out.emplace_back(whole);
        piece.messages.clear();
        piece.last = false;
    };
    fresh();
    size_t size = 0;
    for (const Message& message : whole.messages) {
        const size_t own = message.content.size() + 512;
        if (size > 0 && size + own > bytes) {
            fresh();
            size = 0;
        }
        size += own;
        out.back().messages.push_back(message);
    }
    out.back().last = true;
    return out;
}

}  // namespace parley::store
