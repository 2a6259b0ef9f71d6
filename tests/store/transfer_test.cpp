// Export and import: what goes out comes in again, and files of others' as they are.
#include "store/transfer.hpp"

#include "store/check.hpp"
#include "store/fixture.hpp"

using namespace parley;
using namespace parley::store;

namespace {

std::string exported(Fixture& f, const Ulid& user) {
    UserExport lines(*f.reader, f.org, user);
    std::string all;
    for (;;) {
        std::string out;
        auto more = lines.next(out);
        REQUIRE(more);
        REQUIRE(out.size() < 100'000);
        all += out;
        if (!*more) return all;
    }
}

struct Brought {
    uint64_t created = 0, messages = 0;
    ImportCounts counts;
    std::vector<ConversationImport> seen;
};
Brought bring(Fixture& f, const std::string& file, const std::string& name,
              size_t bytes = 1u << 20) {
    Brought out;
    const Ulid user = user_id(f.org, name);
    auto counts =
        read_import(file, f.clock.wall_ms(), [&](ConversationImport& conv) -> Result<void> {
            conv.org = f.org;
            conv.user = user;
            conv.user_name = name;
            if (!conv.source_id.starts_with(kConv)) draw_ids(conv, user, f.clock.wall_ms());
            for (int attempt = 0; attempt < 2; ++attempt) {
                bool taken = false;
                for (const auto& piece : cut_import(conv, bytes)) {
                    auto outcome = f.writer->apply_one(piece.json());
                    REQUIRE(outcome);
                    INFO(outcome->json);
                    taken = outcome->refused && text_at(outcome->json, "/error/reason") == "exists";
                    if (taken) break;
                    REQUIRE_FALSE(outcome->refused);
                    out.created += flag_at(outcome->json, "/created");
                    out.messages += static_cast<uint64_t>(number_at(outcome->json, "/messages"));
                }
                if (!taken) break;
                draw_ids(conv, user, f.clock.wall_ms());
            }
            out.seen.push_back(conv);
            return {};
        });
    INFO((counts ? "" : counts.error().what));
    REQUIRE(counts);
    out.counts = *counts;
    return out;
}

void sound(Fixture& f) {
    auto report = check_store(*f.writer->env());
    REQUIRE(report);
    INFO((report->first.empty() ? "" : report->first[0].table + ": " + report->first[0].what));
    REQUIRE(report->findings == 0);
}

std::string refusal(const std::string& file) {
    auto read =
        read_import(file, 1'800'000'000'000, [](ConversationImport&) { return Result<void>{}; });
    REQUIRE_FALSE(read);
    REQUIRE(read.error().code == Errc::invalid);
    return read.error().what;
}

const char* kChatGpt =
    R"([{"title":"Cats","create_time":1700000000.5,"update_time":1700000100.0,"conversation_id":"c-1","current_node":"n4","mapping":{
 "root":{"id":"root","message":null,"parent":null,"children":["sys"]},
 "sys":{"id":"sys","message":{"author":{"role":"system"},"create_time":null,"content":{"content_type":"text","parts":["be kind"]}},"parent":"root","children":["n1"]},
 "n1":{"id":"n1","message":{"author":{"role":"user"},"create_time":1700000001.0,"content":{"content_type":"text","parts":["hello \"cat\""]}},"parent":"sys","children":["n2","n3"]},
 "n2":{"id":"n2","message":{"author":{"role":"assistant"},"create_time":1700000002.0,"metadata":{"model_slug":"gpt-4"},"content":{"content_type":"text","parts":["first"]}},"parent":"n1","children":[]},
 "n3":{"id":"n3","message":{"author":{"role":"assistant"},"create_time":1600000000.0,"content":{"content_type":"text","parts":["second",{"asset_pointer":"x"}]}},"parent":"n1","children":["tool"]},
 "tool":{"id":"tool","message":{"author":{"role":"tool"},"content":{"content_type":"code","text":"x"}},"parent":"n3","children":["n4"]},
 "n4":{"id":"n4","message":{"author":{"role":"user"},"create_time":1700000004.0,"content":{"content_type":"text","parts":["and \u00e4"]}},"parent":"tool","children":[]}}}])";

const char* kClaude =
    R"([{"uuid":"u-1","name":"Dogs","created_at":"2024-05-01T10:00:00.000000Z","updated_at":"2024-05-01T12:00:00+02:00","chat_messages":[
 {"uuid":"m-1","text":"hi","content":[{"type":"text","text":"hi there"}],"sender":"human","created_at":"2024-05-01T10:00:01Z","attachments":[{"file_name":"a"}],"files":[]},
 {"uuid":"m-2","text":"hello","content":[],"sender":"assistant","created_at":"2024-05-01T10:00:02Z"}]},
 {"uuid":"u-2","name":"","created_at":"2024-05-02T10:00:00Z","updated_at":"2024-05-02T10:00:00Z","chat_messages":[]}])";

}  // namespace

TEST_CASE("what was exported comes in under another user whole, and twice brings nothing",
          "[store]") {
    Fixture f;
    f.clock.advance_ms(1'790'000'000'000);
    const Ulid conv = f.conversation("Title, one\nline");
    for (int i = 0; i < 60; ++i) {
        const Ulid answer =
            Fixture::answer_of(f.run(f.send_to(conv, "question " + std::to_string(i)).json()));
        f.run(Fixture::piece(answer, 1, 0, "answer " + std::to_string(i)).json());
        f.run(Fixture::end_of(answer).json());
    }
    const Ulid running = Fixture::answer_of(f.run(f.send_to(conv, "the last").json()));
    f.conversation("empty");
    const std::string file = exported(f, f.user);
    REQUIRE(file.find(R"("type":"end","conversations":2,"messages":122})") != std::string::npos);

    // To its own user: all is there.
    const Brought same = bring(f, file, "alice");
    REQUIRE((same.created == 0 && same.messages == 0));
    REQUIRE(f.reader->message(conv, running)->status == "streaming");
    // To another: under ids of its own, in small pieces.
    const Brought other = bring(f, file, "bob", 3000);
    REQUIRE((other.created == 2 && other.messages == 122));
    const Brought again = bring(f, file, "bob", 3000);
    REQUIRE((again.created == 0 && again.messages == 0));
    sound(f);

    const Ulid bob = user_id(f.org, "bob");
    const auto list = f.reader->conversations(bob, 10, "");
    REQUIRE(list->rows.size() == 2);
    const auto& copy = list->rows[0].message_count ? list->rows[0] : list->rows[1];
    REQUIRE(copy.title == "Title, one\nline");
    const auto before = f.reader->messages({conv, 200, {}, {}, true});
    const auto after = f.reader->messages({copy.id, 200, {}, {}, true});
    REQUIRE(after->rows.size() == before->rows.size());
    for (size_t i = 0; i < after->rows.size(); ++i) {
        REQUIRE(after->rows[i].content == before->rows[i].content);
        REQUIRE(after->rows[i].role == before->rows[i].role);
        REQUIRE(after->rows[i].parent.has_value() == before->rows[i].parent.has_value());
    }
    REQUIRE(f.reader->path(copy.id, *copy.head, 1000)->rows.size() == 122);
    // An answer that ran has no one here to go on with it.
    REQUIRE(after->rows.back().status == "cancelled");
    REQUIRE(f.reader->unread(bob, copy) == 0);
    // And it can be gone on with.
    Send send = f.send_to(copy.id, "more");
    send.user = bob;
    f.run(send.json());
    sound(f);

    std::string text = markdown_head(copy);
    for (const auto& row : after->rows) text += markdown_of(row);
    REQUIRE(text.starts_with("# Title, one line\n"));
    REQUIRE(text.find("question 59\n") != std::string::npos);
    REQUIRE(text.find("answer 59\n") != std::string::npos);
}

TEST_CASE("a ChatGPT export keeps its branches, and what is no text is counted", "[store]") {
    Fixture f;
    f.clock.advance_ms(1'790'000'000'000);
    const Brought first = bring(f, kChatGpt, "alice");
    REQUIRE((first.created == 1 && first.messages == 4 && first.counts.left_out == 1));
    const Brought again = bring(f, kChatGpt, "alice");
    REQUIRE((again.created == 0 && again.messages == 0));
    const ConvRow conv = f.reader->conversations(f.user, 10, "")->rows[0];
    REQUIRE(conv.title == "Cats");
    REQUIRE(conv.created_ms == 1'700'000'000'500);
    const auto path = f.reader->path(conv.id, *conv.head, 10);
    REQUIRE(path->rows.size() == 3);
    REQUIRE(text_at(path->rows[0].content, "/0/text") == "hello \"cat\"");
    REQUIRE(text_at(path->rows[1].content, "/0/text") == "second");
    REQUIRE(text_at(path->rows[2].content, "/0/text") == "and ä");
    REQUIRE(f.reader->children(conv.id, path->rows[0].id)->size() == 2);
    // Another user has the same file under ids of its own.
    REQUIRE(bring(f, kChatGpt, "bob").created == 1);
    sound(f);
}

TEST_CASE("a Claude export comes in, in order and with its times", "[store]") {
    Fixture f;
    f.clock.advance_ms(1'790'000'000'000);
    const Brought first = bring(f, kClaude, "alice");
    REQUIRE((first.created == 2 && first.messages == 2 && first.counts.left_out == 1));
    REQUIRE(bring(f, kClaude, "alice").messages == 0);
    const auto list = f.reader->conversations(f.user, 10, "");
    REQUIRE(list->rows.size() == 2);
    for (const ConvRow& conv : list->rows) {
        if (conv.title != "Dogs") continue;
        REQUIRE(conv.created_ms == 1'714'557'600'000);
        REQUIRE(conv.updated_ms == 1'714'557'600'000);
        const auto page = f.reader->messages({conv.id, 10, {}, {}, true});
        REQUIRE(text_at(page->rows[0].content, "/0/text") == "hi there");
        REQUIRE(page->rows[1].parent == page->rows[0].id);
        REQUIRE(page->rows[1].role == "assistant");
    }
    sound(f);
}

TEST_CASE("a file that is none is refused and told where", "[store]") {
    REQUIRE(refusal("").find("neither") != std::string::npos);
    REQUIRE(refusal("<html>").find("neither") != std::string::npos);
    REQUIRE(refusal("{\"type\":\"message\"}\n").find("line 1") != std::string::npos);
    REQUIRE(refusal("{\"type\":\"export\",\"version\":2}\n").find("line 1") != std::string::npos);
    REQUIRE(refusal("{\"type\":\"export\",\"version\":1}\n").find("cut") != std::string::npos);
    REQUIRE(refusal("{\"type\":\"export\",\"version\":1}\n{\"type\":\"message\",\"message\":{}}\n")
                .find("line 2") != std::string::npos);
    REQUIRE(refusal("[{\"a\":1}]").find("conversation 1") != std::string::npos);
    REQUIRE(refusal("[1]").find("an object was expected") != std::string::npos);
    REQUIRE(refusal("[").find("cut") != std::string::npos);
    REQUIRE(refusal("[{\"mapping\":{}").find("cut") != std::string::npos);
    REQUIRE(refusal("[{\"mapping\":{}}]").find("no id") != std::string::npos);
    REQUIRE(
        refusal(
            R"([{"id":"x","mapping":{"a":{"parent":"b","children":["b"]},"b":{"parent":"a","children":["a"]}}}])")
            .find("no tree") != std::string::npos);
    REQUIRE(refusal(R"([{"uuid":"x","chat_messages":[{"uuid":"m","sender":"robot"}]}])")
                .find("robot") == std::string::npos);
    const std::string whole = kChatGpt;
    for (size_t cut = 0; cut < whole.size(); cut += 7) refusal(whole.substr(0, cut));
}

TEST_CASE("an import that is no good writes nothing", "[store]") {
    Fixture f;
    f.clock.advance_ms(1'790'000'000'000);
    Brought made = bring(f, kClaude, "alice");
    ConversationImport conv = made.seen[0];
    const uint64_t before = f.writer->last_change();
    SECTION("another's id") {
        conv.user = user_id(f.org, "bob");
        conv.user_name = "bob";
        f.refused(conv.json(), "exists");
    }
    SECTION("a parent that is not there") {
        conv.messages.erase(conv.messages.begin());
        conv.conv.bytes[15] ^= 1;
        f.refused(conv.json());
    }
    SECTION("a message of the future") {
        conv.messages[0].id.bytes[0] = 0x7f;
        f.refused(conv.json(), "future");
    }
    SECTION("an answer that runs") {
        conv.messages[0].status = "streaming";
        f.refused(conv.json());
    }
    REQUIRE(f.writer->last_change() == before);
    sound(f);
}
