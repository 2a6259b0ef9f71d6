// Random commands against a model that is too simple to be wrong.
#include <algorithm>
#include <map>
#include <random>

#include "store/check.hpp"
#include "store/fixture.hpp"

using namespace parley;
using namespace parley::store;

namespace {

struct ModelMessage {
    std::optional<Ulid> parent;
    std::string role, status, text;
};
struct ModelConv {
    std::map<Ulid, ModelMessage> messages;
    std::optional<Ulid> head;
    int64_t updated_ms = 0;
};
struct ModelStream {
    Ulid conv;
    uint32_t epoch = 1, seq = 0;
    std::string owner = "boot-a", journal;
    uint64_t tokens = 0;
};

std::string text_of(const MessageRow& row) { return text_at(row.content, "/0/text"); }

}  // namespace

TEST_CASE("random commands leave what a simple model says", "[store]") {
    const auto seed = static_cast<unsigned>(Catch::rngSeed() ? Catch::rngSeed() : 20261124);
    std::mt19937 random(seed);
    INFO("seed " << seed << " (--rng-seed)");
    const auto upto = [&](size_t n) { return random() % n; };
    Fixture f;
    std::map<Ulid, ModelConv> convs;
    std::map<Ulid, ModelStream> streams;  // that run or are interrupted
    std::map<std::string, std::pair<std::string, Ulid>>
        keys;  // idempotency key → fingerprint, answer
    uint64_t tokens = 0, answers_done = 0;
    const auto pick = [&](auto& map) {
        return std::next(map.begin(), static_cast<long>(upto(map.size())));
    };

    for (int step = 0; step < 3000; ++step) {
        if (upto(10) == 0) f.clock.advance_ms(static_cast<int64_t>(upto(50)));
        if (upto(200) == 0) f.clock.set_wall_ms(f.clock.wall_ms() - 500);
        if (upto(500) == 0) f.reopen();
        const size_t what = upto(100);
        if (convs.empty() || what < 5) {
            const Ulid id = f.conversation();
            convs[id].updated_ms = f.reader->conversation(f.org, f.user, id)->updated_ms;
        } else if (what < 35) {
            auto& [id, conv] = *pick(convs);
            Send send = f.send_to(id, "q" + std::to_string(step));
            std::optional<Ulid> parent = conv.head;
            if (upto(5) == 0 && !conv.messages.empty()) {
                parent = pick(conv.messages)->first;
                send.parent = show_id(kMsg, *parent);
            }
            if (upto(3) == 0) {
                send.idem_key = "k" + std::to_string(upto(50)) + show_id(kConv, id);
                send.fingerprint = std::to_string(upto(2));
            }
            auto outcome = f.writer->apply_one(send.json());
            REQUIRE(outcome);
            const auto known = keys.find(send.idem_key);
            if (!send.idem_key.empty() && known != keys.end()) {
                if (known->second.first != send.fingerprint) {
                    REQUIRE(text_at(outcome->json, "/error/reason") == "idempotency");
                } else {
                    REQUIRE(flag_at(outcome->json, "/replayed"));
                    REQUIRE(Fixture::answer_of(*outcome) == known->second.second);
                }
                continue;
            }
            bool running = parent && conv.messages[*parent].status == "streaming";
            if (parent && conv.messages[*parent].role == "user") {
                for (const auto& [child, message] : conv.messages)
                    running |= message.parent == parent && message.status == "streaming";
            }
            if (running) {
                REQUIRE(text_at(outcome->json, "/error/reason") == "running");
                continue;
            }
            INFO(outcome->json);
            REQUIRE_FALSE(outcome->refused);
            const Ulid question = Fixture::question_of(*outcome),
                       answer = Fixture::answer_of(*outcome);
            REQUIRE((conv.messages.empty() || conv.messages.rbegin()->first < question));
            REQUIRE(question < answer);
            conv.messages[question] = {parent, "user", "done", "q" + std::to_string(step)};
            conv.messages[answer] = {question, "assistant", "streaming", ""};
            conv.head = answer;
            conv.updated_ms = std::max(conv.updated_ms, f.clock.wall_ms());
            streams[answer].conv = id;
            if (!send.idem_key.empty()) keys[send.idem_key] = {send.fingerprint, answer};
        } else if (streams.empty()) {
            continue;
        } else if (what < 70) {
            auto& [id, stream] = *pick(streams);
            const bool stale = upto(10) == 0, hole = upto(10) == 0;
            const std::string piece = "p" + std::to_string(step % 7);
            auto append = Fixture::piece(id, stream.seq + 1 + static_cast<uint32_t>(upto(3)),
                                         stream.journal.size() + (hole ? 1 : 0), piece,
                                         stream.epoch + (stale ? 1 : 0), stream.owner);
            auto outcome = f.writer->apply_one(append.json());
            REQUIRE(outcome);
            if (!convs.count(stream.conv)) {
                REQUIRE(outcome->refused);
            } else if (stale || hole) {
                REQUIRE(text_at(outcome->json, "/error/reason") == (stale ? "fenced" : "gap"));
            } else {
                INFO(outcome->json);
                REQUIRE_FALSE(outcome->refused);
                stream.journal += piece;
                stream.seq = append.delta.last_seq;
                ++stream.tokens;
                convs[stream.conv].messages[id].status = "streaming";
            }
        } else if (what < 78) {
            auto& [id, stream] = *pick(streams);
            if (!convs.count(stream.conv)) continue;
            const bool resume = upto(2);
            f.run(TakeOver{id, stream.epoch, "boot-" + std::to_string(step), resume}.json());
            f.refused(TakeOver{id, stream.epoch, "boot-late", resume}.json(), "fenced");
            ++stream.epoch;
            stream.seq = 0;
            stream.owner = "boot-" + std::to_string(step);
            convs[stream.conv].messages[id].status = resume ? "streaming" : "interrupted";
            convs[stream.conv].messages[id].text = stream.journal;
        } else if (what < 96) {
            auto it = pick(streams);
            auto& [id, stream] = *it;
            static const char* kEnds[] = {"done", "cancelled", "failed", "done"};
            const std::string status = kEnds[upto(4)];
            auto end = Fixture::end_of(id, status, stream.epoch, stream.owner);
            end.output_tokens = stream.tokens + 1;
            f.run(end.json());
            tokens += end.output_tokens;
            ++answers_done;
            if (auto conv = convs.find(stream.conv); conv != convs.end()) {
                conv->second.messages[id].status = status;
                conv->second.messages[id].text = stream.journal;
            }
            streams.erase(it);
        } else if (what < 97) {
            auto it = pick(convs);
            f.run(ConversationDelete{f.org, f.user, it->first}.json());
            std::erase_if(keys, [&](const auto& key) {
                return it->second.messages.count(key.second.second) > 0;
            });
            convs.erase(it);
        } else {
            f.run(R"({"command":"gc"})");
        }
    }

    // The list: every conversation once, newest first.
    std::vector<std::pair<int64_t, Ulid>> expected, listed;
    for (const auto& [id, conv] : convs) expected.emplace_back(-conv.updated_ms, id);
    std::ranges::sort(expected);
    std::string cursor;
    do {
        auto page = f.reader->conversations(f.user, 7, cursor);
        REQUIRE(page);
        for (const auto& row : page->rows) listed.emplace_back(-row.updated_ms, row.id);
        cursor = page->next_cursor;
    } while (!cursor.empty());
    REQUIRE(listed == expected);
    for (const auto& [id, conv] : convs) {
        auto page = f.reader->messages(
            {.conv = id, .limit = kRowsMax, .before = {}, .after = {}, .ascending = true});
        REQUIRE(page->rows.size() == conv.messages.size());
        auto it = conv.messages.begin();
        for (const auto& row : page->rows) {
            REQUIRE(row.id == it->first);
            REQUIRE(row.parent == it->second.parent);
            REQUIRE(row.role == it->second.role);
            REQUIRE(row.status == it->second.status);
            if (row.status != "streaming") REQUIRE(text_of(row) == it->second.text);
            ++it;
        }
    }
    // Not a token charged twice, none left out: ended answers, and what take-overs charged for others.
    uint64_t charged = 0, requests = 0;
    const auto totals = f.reader->usage(f.user, 0, UINT32_MAX);
    for (const auto& total : *totals) {
        charged += total.output_tokens;
        requests += total.requests;
    }
    uint64_t pending = 0;
    for (const auto& [id, stream] : streams) pending += f.reader->stream(id)->charged_output;
    REQUIRE(charged == tokens + pending);
    REQUIRE(requests == answers_done);
    auto report = check_store(*f.writer->env());
    std::string findings;
    for (const auto& finding : report->first) findings += finding.table + " " + finding.what + "\n";
    REQUIRE(findings.empty());
}

TEST_CASE("what a router leaves of its flows is what the next one gets, without a change",
          "[store]") {
    Fixture f;
    const auto said = [&](const std::string& json) {
        auto outcome = f.writer->apply_one(json);
        REQUIRE(outcome.has_value());
        return *outcome;
    };
    const uint64_t change = f.writer->last_change();
    CHECK(said(RouterFlowsGet{}.json()).json.find(R"("flows":{})") != std::string::npos);
    RouterFlowsPut put;
    put.flows = R"({"flows":[{"org":"a","beyond_s":1.5}]})";
    CHECK_FALSE(said(put.json()).refused);
    put.flows = R"({"flows":[{"org":"b","beyond_s":2}]})";
    CHECK_FALSE(said(put.json()).refused);
    CHECK(said(RouterFlowsGet{}.json()).json.find(put.flows) != std::string::npos);
    CHECK(f.writer->last_change() == change);
    CHECK(said(R"({"command":"router_flows_put","flows":[1]})").refused);
    CHECK(said(R"({"command":"router_flows_put"})").refused);
    CHECK(said(RouterFlowsGet{}.json()).json.find(put.flows) != std::string::npos);
}
