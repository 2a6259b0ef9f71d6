// A store in a folder of its own, with a clock that the test owns.
#pragma once

#include <simdjson.h>
#include <stdlib.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <memory>
#include <set>
#include <string>

#include "base/clock.hpp"
#include "base/text.hpp"
#include "store/commands.hpp"
#include "store/reader.hpp"
#include "store/secret.hpp"
#include "store/writer.hpp"

namespace parley::store {

class TempDir {
  public:
    TempDir() {
        // In memory where there is such a place: a thousand commits are then not a thousand disk syncs,
        // and what a killed process leaves in the page cache is the same.
        char shm[] = "/dev/shm/parley-store-XXXXXX";
        char tmp[] = "/tmp/parley-store-XXXXXX";
        const char* made = ::mkdtemp(shm);
        path_ = made ? made : ::mkdtemp(tmp);
    }
    ~TempDir() {
        std::error_code ignored;
        std::filesystem::remove_all(path_, ignored);
    }
    const std::string& path() const { return path_; }

  private:
    std::string path_;
};

// A member of a reply, by JSON pointer; "" when absent or no string.
inline std::string text_at(std::string_view json, std::string_view pointer) {
    simdjson::dom::parser parser;
    std::string_view text;
    if (parser.parse(json).at_pointer(pointer).get(text) != simdjson::SUCCESS) return {};
    return std::string(text);
}
inline int64_t number_at(std::string_view json, std::string_view pointer) {
    simdjson::dom::parser parser;
    int64_t number = -1;
    if (parser.parse(json).at_pointer(pointer).get(number) != simdjson::SUCCESS) return -1;
    return number;
}
inline bool flag_at(std::string_view json, std::string_view pointer) {
    simdjson::dom::parser parser;
    bool flag = false;
    return parser.parse(json).at_pointer(pointer).get(flag) == simdjson::SUCCESS && flag;
}

struct Fixture {
    TempDir dir;
    base::ManualClock clock;
    WriterOptions options;
    std::unique_ptr<Writer> writer;
    std::unique_ptr<Reader> reader;
    Ulid org, user;

    explicit Fixture(uint64_t map_bytes = 256u << 20) {
        options.env.dir = dir.path() + "/store";
        options.env.map_bytes = map_bytes;
        open();
        const Outcome made = run(OrgCreate{.name = "acme"}.json());
        org = *parse_id(kOrg, text_at(made.json, "/org"));
        user = user_id(org, "alice");
    }
    void open() {
        auto opened = Writer::open(options, clock);
        REQUIRE(opened);
        writer = std::move(*opened);
        reader = *make_reader(writer->env());
    }
    void reopen() {
        reader.reset();
        writer.reset();
        open();
    }
    // Succeeds or fails the test.
    Outcome run(const std::string& json) {
        auto outcome = writer->apply_one(json);
        REQUIRE(outcome);
        INFO(json << " -> " << outcome->json);
        REQUIRE_FALSE(outcome->refused);
        return *outcome;
    }
    // Is refused, or fails the test.
    Outcome refused(const std::string& json, const std::string& reason = {}) {
        auto outcome = writer->apply_one(json);
        REQUIRE(outcome);
        INFO(json << " -> " << outcome->json);
        REQUIRE(outcome->refused);
        if (!reason.empty()) REQUIRE(text_at(outcome->json, "/error/reason") == reason);
        return *outcome;
    }
    Ulid conversation(const std::string& title = "t") {
        const auto made =
            run(ConversationCreate{.org = org, .user = user, .user_name = "alice", .title = title}
                    .json());
        return *parse_id(kConv, text_at(made.json, "/conversation/id"));
    }
    Send send_to(const Ulid& conv, const std::string& text = "hello") {
        Send send;
        send.org = org;
        send.user = user;
        send.conv = conv;
        send.content = "[{\"type\":\"text\",\"text\":\"" + text + "\"}]";
        send.owner = "boot-a";
        return send;
    }
    static Ulid answer_of(const Outcome& sent) {
        return *parse_id(kMsg, text_at(sent.json, "/message/id"));
    }
    static Ulid question_of(const Outcome& sent) {
        return *parse_id(kMsg, text_at(sent.json, "/user_message/id"));
    }
    static Append piece(const Ulid& message, uint32_t seq, uint64_t offset, const std::string& text,
                        uint32_t epoch = 1, const std::string& owner = "boot-a") {
        Append append;
        append.message = message;
        append.owner = owner;
        append.delta.epoch = epoch;
        append.delta.first_seq = append.delta.last_seq = seq;
        append.delta.offset = offset;
        append.delta.text = text;
        append.delta.ids = {static_cast<int32_t>(seq)};
        return append;
    }
    static Finish end_of(const Ulid& message, const std::string& status = "done",
                         uint32_t epoch = 1, const std::string& owner = "boot-a") {
        Finish finish;
        finish.message = message;
        finish.owner = owner;
        finish.epoch = epoch;
        finish.status = status;
        finish.stop_reason = "end_turn";
        finish.model = "m";
        finish.input_tokens = 10;
        finish.output_tokens = 5;
        return finish;
    }
};

}  // namespace parley::store
