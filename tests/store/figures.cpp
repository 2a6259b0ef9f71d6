// store_figures: what the store does in a second, beside raw LMDB and SQLite that write the same rows.
//
// Sends    through the real sockets of a server in a process of its own, `senders` of them under way at any time,
//          each with a message of 1 KiB that does not compress. Raw LMDB then writes the very rows (keys and
//          values, as they stand in the store) of those sends, `senders` of them a transaction, and SQLite
//          (WAL, synchronous=FULL) writes them with `senders` connections, one transaction a send. In turns.
// Reads    a store that is filled by imports, then read by a Reader as chatd has it.
// Prints   one JSON object; tests/bench/store_figures.py judges it.
#include <poll.h>
#include <signal.h>
#include <simdjson.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>

#include "base/json.hpp"
#include "store/client.hpp"
#include "store/commands.hpp"
#include "store/figures_sides.hpp"
#include "store/keys.hpp"
#include "store/reader.hpp"
#include "store/server.hpp"

using namespace parley;
using namespace parley::store;
using namespace parley::store::figures;

namespace {

std::string text_at(std::string_view json, std::string_view pointer) {
    simdjson::dom::parser parser;
    std::string_view text;
    if (parser.parse(json).at_pointer(pointer).get(text))
        die("a reply without " + std::string(pointer) + ": " + std::string(json.substr(0, 300)));
    return std::string(text);
}
// Letters of six bits each: what is left of them after compression is three quarters.
std::string letters(std::mt19937_64& rng, size_t count) {
    static constexpr char kLetters[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789 .";
    std::string text(count, ' ');
    for (char& c : text) c = kLetters[rng() & 63];
    return text;
}
std::string content(const std::string& text) {
    return R"([{"type":"text","text":")" + text + R"("}])";
}
Ulid past_id(uint64_t ms, uint64_t number) {
    Ulid id;
    for (int i = 0; i < 6; ++i)
        id.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(ms >> (40 - 8 * i));
    for (int i = 0; i < 8; ++i)
        id.bytes[static_cast<size_t>(8 + i)] = static_cast<uint8_t>(number >> (56 - 8 * i));
    return id;
}

// The store in a process of its own, with conversations that wait for a question.
class Served {
  public:
    explicit Served(const std::string& dir) : dir_(dir) {
        std::filesystem::create_directories(dir);
        std::filesystem::permissions(dir, std::filesystem::perms::owner_all);
        endpoint_ = "ipc://" + dir + "/c.sock";
        child_ = ::fork();
        if (child_ == 0) serve();
        client_ = need(Client::connect({.endpoint = endpoint_, .name = "figures"}), "connect");
        org_ = *parse_id(kOrg, text_at(call(OrgCreate{.name = "figures"}.json()), "/org"));
        user_ = user_id(org_, "u");
        const auto ms = static_cast<uint64_t>(base::system_clock().wall_ms()) - 10'000;
        for (uint64_t i = 0; i < 1000; ++i) {
            ConversationImport one;
            one.org = org_;
            one.user = user_;
            one.user_name = "u";
            one.conv = past_id(ms, i);
            one.created_ms = one.updated_ms = static_cast<int64_t>(ms);
            ConversationImport::Message question, answer;
            question.id = past_id(ms + 1, i);
            question.role = "user";
            answer.id = past_id(ms + 2, i);
            answer.parent = question.id;
            answer.role = "assistant";
            question.content = answer.content = content("What was said before.");
            question.created_ms = answer.created_ms = static_cast<int64_t>(ms + 1);
            one.messages = {question, answer};
            call(one.json());
            places_.emplace_back(one.conv, answer.id);
        }
    }
    ~Served() { end(); }
    void end() {
        if (child_ <= 0) return;
        client_.reset();
        ::kill(child_, SIGTERM);
        ::waitpid(child_, nullptr, 0);
        child_ = -1;
    }

    Timed send(size_t count, size_t senders) {
        Timed timed;
        size_t submitted = 0, answered = 0;
        const auto submit = [&] {
            const auto& [conv, parent] = places_[next_ % places_.size()];
            Send one;
            one.org = org_;
            one.user = user_;
            one.conv = conv;
            one.parent = show_id(kMsg, parent);
            one.content = content(letters(rng_, 1024));
            one.model = "m";
            one.owner = "figures";
            one.idem_key = "send-" + std::to_string(next_++);
            one.fingerprint = "0123456789abcdef0123456789abcdef";
            ++submitted;
            const double begun = now_ms();
            const auto done = client_->submit(one.json(), [&, begun](const CommandReply& reply) {
                if (!reply.ok()) die("a send was refused: " + reply.json);
                timed.waits_ms.push_back(now_ms() - begun);
                ++answered;
                replies_.push_back(reply.json);
            });
            if (!done) die("submit: " + done.error().what);
        };
        const double begun = now_ms();
        while (answered < count) {
            while (submitted < count && submitted - answered < senders) submit();
            client_->step();
            if (answered < submitted &&
                submitted - answered == std::min(senders, count - answered)) {
                pollfd fd{client_->fd(), POLLIN, 0};
                ::poll(&fd, 1, static_cast<int>(std::clamp<int64_t>(client_->wait_ms(), 1, 5)));
                client_->step();
            }
        }
        timed.seconds = (now_ms() - begun) / 1000;
        return timed;
    }

    // The rows of the sends since the last call, read out of the store.
    std::vector<Sent> take_rows() {
        if (!env_) {
            EnvOptions options;
            options.dir = dir_ + "/store";
            env_ = need(Env::open(options), "open the store");
        }
        auto txn = need(ReadTxn::begin(*env_), "read the store");
        std::vector<Sent> out;
        for (const std::string& reply : replies_) {
            const Ulid conv = *parse_id(kConv, text_at(reply, "/conversation_id"));
            const Ulid asked = *parse_id(kMsg, text_at(reply, "/user_message/id"));
            const Ulid answer = *parse_id(kMsg, text_at(reply, "/message/id"));
            const Ulid parent = *parse_id(kMsg, text_at(reply, "/user_message/parent"));
            simdjson::dom::parser parser;
            uint64_t change = 0;
            if (parser.parse(reply)["change"].get(change)) die("a reply without change");
            Sent sent;
            const auto take = [&](Table table, const std::string& key) {
                MDB_val k{key.size(), const_cast<char*>(key.data())}, v{};
                if (mdb_get(txn.handle(), env_->dbi(table), &k, &v))
                    die("no row in " + std::string(table_name(table)));
                sent.rows.push_back({table, key, {static_cast<const char*>(v.mv_data), v.mv_size}});
            };
            take(Table::msg, keys::msg(conv, asked));
            take(Table::msg, keys::msg(conv, answer));
            sent.rows.push_back(
                {Table::child, keys::child(conv, parent), std::string(asked.view())});
            sent.rows.push_back(
                {Table::child, keys::child(conv, asked), std::string(answer.view())});
            take(Table::stream, keys::of(answer));
            take(Table::conv, keys::of(conv));
            take(Table::read, keys::pair(user_, conv));
            take(Table::changes, keys::seq(change));
            take(Table::feed, keys::feed(user_, change));
            const std::string idem = keys::idem(user_, "send", "send-" + std::to_string(taken_++));
            take(Table::idem, idem);
            sent.rows.push_back(
                {Table::idem_exp,
                 keys::idem_exp(static_cast<int64_t>(answer.ms()) + 90'000'000, idem),
                 std::string(8, ' ')});
            sent.rows.push_back({Table::conv_user,
                                 keys::conv_user(user_, static_cast<int64_t>(answer.ms()), conv),
                                 std::string(8, ' ')});
            int64_t& before = moved_[conv.text()];
            if (before && before != static_cast<int64_t>(answer.ms()))
                sent.erased = keys::conv_user(user_, before, conv);
            before = static_cast<int64_t>(answer.ms());
            // What a resend would be given stands there too: the reply itself, sealed.
            std::string kept = "figures";
            kept += '\0';
            put_u64(kept, taken_);
            sent.rows.push_back({Table::reply, kept, reply});
            out.push_back(std::move(sent));
        }
        replies_.clear();
        return out;
    }
    // Commits so far, by the number of LMDB's newest transaction.
    uint64_t commits() {
        if (!env_) (void)take_rows();
        auto txn = need(ReadTxn::begin(*env_), "read the store");
        return env_->info().last_txn;
    }

  private:
    [[noreturn]] void serve() {
        pipe::Context context;
        pipe::Loop loop;
        telemetry::Registry metrics;
        ServerOptions options;
        options.writer.env.dir = dir_ + "/store";
        options.endpoint = endpoint_;
        options.changes_endpoint = "ipc://" + dir_ + "/p.sock";
        auto server = need(Server::open(context, loop, options, metrics), "serve");
        while (server->run_once(25)) {
        }
        ::_exit(1);
    }
    std::string call(const std::string& body) {
        auto reply = client_->call(body, 10'000);
        if (!reply || !reply->ok())
            die("a command failed: " + (reply ? reply->json : reply.error().what));
        return reply->json;
    }

    std::string dir_, endpoint_;
    pid_t child_ = -1;
    std::unique_ptr<Client> client_;
    std::shared_ptr<Env> env_;
    Ulid org_, user_;
    std::vector<std::pair<Ulid, Ulid>> places_;
    std::vector<std::string> replies_;
    std::map<std::string, int64_t> moved_;
    std::mt19937_64 rng_{1};
    uint64_t next_ = 0, taken_ = 0;
};

void sends(base::JsonWriter& w, const std::string& dir, int rounds, double scale) {
    Served served(dir + "/served");
    Raw raw(dir + "/raw");
#ifdef PARLEY_SQLITE
    Sqlite sqlite(dir + "/sqlite");
#endif
    (void)served.send(200, 8);  // the first pages of every table
    (void)raw.write(served.take_rows(), 8);
    w.key("sends").array();
    for (const size_t senders : {1, 8, 64}) {
        const auto count = static_cast<size_t>(scale * (senders == 1   ? 1000
                                                        : senders == 8 ? 4000
                                                                       : 12'800));
        std::vector<double> ours, raws, theirs, groups, waits, commits, sqlite_waits;
        for (int round = 0; round < rounds; ++round) {
            const uint64_t before = served.commits();
            const Timed mine = served.send(count, senders);
            groups.push_back(static_cast<double>(count) /
                             static_cast<double>(served.commits() - before));
            const auto rows = served.take_rows();
            const Timed theirs_raw = raw.write(rows, senders);
            ours.push_back(static_cast<double>(count) / mine.seconds);
            waits.insert(waits.end(), mine.waits_ms.begin(), mine.waits_ms.end());
            raws.push_back(static_cast<double>(count) / theirs_raw.seconds);
            commits.insert(commits.end(), theirs_raw.waits_ms.begin(), theirs_raw.waits_ms.end());
#ifdef PARLEY_SQLITE
            const std::vector<Sent> part(
                rows.begin(),
                rows.begin() + static_cast<std::ptrdiff_t>(std::max(senders, count / 4)));
            const Timed lite = sqlite.write(part, senders);
            theirs.push_back(static_cast<double>(part.size()) / lite.seconds);
            sqlite_waits.insert(sqlite_waits.end(), lite.waits_ms.begin(), lite.waits_ms.end());
#endif
        }
        w.object().field("senders", senders).field("store_s", percentile(ours, 0.5));
        w.field("lmdb_s", percentile(raws, 0.5)).field("group", percentile(groups, 0.5));
        w.field("ack_p50_ms", percentile(waits, 0.5)).field("ack_p99_ms", percentile(waits, 0.99));
        w.field("lmdb_commit_p50_ms", percentile(commits, 0.5))
            .field("lmdb_commit_p99_ms", percentile(commits, 0.99));
        if (!theirs.empty())
            w.field("sqlite_s", percentile(theirs, 0.5))
                .field("sqlite_p99_ms", percentile(sqlite_waits, 0.99));
        w.end();
    }
    w.end();
}

void reads(base::JsonWriter& w, const std::string& dir, uint64_t messages, uint64_t conversations) {
    WriterOptions options;
    options.env.dir = dir + "/filled";
    constexpr uint64_t kLong = 50'000;
    const uint64_t each =
        std::max<uint64_t>(2, (messages - std::min(messages, kLong)) / conversations);
    const auto start = static_cast<uint64_t>(base::system_clock().wall_ms()) - 1'000'000'000;
    const auto conv_id = [&](uint64_t i) { return past_id(start + i, 0); };
    const double begun = now_ms();
    std::mt19937_64 rng(2);
    std::vector<std::string> words;
    for (int i = 0; i < 5000; ++i) words.push_back(letters(rng, 2 + rng() % 7));
    Ulid user;
    {
        auto writer = need(Writer::open(options), "open");
        auto made = need(writer->apply_one(OrgCreate{.name = "figures"}.json()), "org");
        const Ulid org = *parse_id(kOrg, text_at(made.json, "/org"));
        user = user_id(org, "u");
        std::vector<std::string> bodies;
        size_t held = 0;
        const auto flush = [&] {
            std::vector<Command> commands;
            for (const auto& body : bodies) commands.push_back({{}, 0, body});
            const auto outcomes = need(writer->apply(commands), "import");
            for (const auto& outcome : outcomes)
                if (outcome.refused) die("an import was refused: " + outcome.json);
            bodies.clear();
            held = 0;
        };
        for (uint64_t i = 0; i <= conversations; ++i) {
            // The last is the long one; it comes in pieces.
            const uint64_t count = i == conversations ? kLong : each;
            ConversationImport one;
            one.org = org;
            one.user = user;
            one.user_name = "u";
            one.conv = conv_id(i);
            one.title = "Conversation " + std::to_string(i);
            one.created_ms = one.updated_ms = static_cast<int64_t>(start + i);
            std::optional<Ulid> parent;
            for (uint64_t m = 0; m < count; ++m) {
                ConversationImport::Message message;
                // Over 100 days in the long one, so that it has buckets.
                message.id =
                    past_id(start + i + (i == conversations ? m * 10'000 : m), (i << 20) + m + 1);
                message.parent = parent;
                message.role = m % 2 ? "assistant" : "user";
                std::string text;
                for (uint64_t left = 20 + rng() % 40; left > 0; --left)
                    text += words[rng() % 5000] + " ";
                message.content = content(text);
                message.created_ms = static_cast<int64_t>(message.id.ms());
                parent = message.id;
                one.messages.push_back(std::move(message));
                if (one.messages.size() == 500 && m + 1 < count) {
                    one.last = false;
                    bodies.push_back(one.json());
                    one.messages.clear();
                    one.last = true;
                }
            }
            bodies.push_back(one.json());
            if (held += count; held >= 5000) flush();
        }
        flush();
    }
    const double filled = (now_ms() - begun) / 1000;
    auto reader = need(open_reader(options.env.dir), "open a reader");
    const auto page = [&](uint64_t conv, std::optional<Ulid> before) {
        MessagesQuery query;
        query.conv = conv_id(conv);
        query.before = before;
        const double from = now_ms();
        const auto got = need(reader->messages(query), "messages");
        const double spent = now_ms() - from;
        if (got.rows.size() < std::min<uint64_t>(50, conv == conversations ? 50 : each) && !before)
            die("a page that is short");
        return spent;
    };
    std::vector<double> history, deep, list;
    for (int i = 0; i < 5000; ++i) history.push_back(page(rng() % conversations, {}));
    for (int i = 0; i < 5000; ++i) {
        const uint64_t m = 50 + rng() % (kLong - 50);
        deep.push_back(page(conversations, past_id(start + conversations + m * 10'000,
                                                   (conversations << 20) + m + 1)));
    }
    std::string cursor;
    uint64_t listed = 0;
    do {
        const double from = now_ms();
        const auto got = need(reader->conversations(user, 20, cursor), "conversations");
        list.push_back(now_ms() - from);
        cursor = got.next_cursor;
        listed += got.rows.size();
    } while (!cursor.empty());
    if (listed != conversations + 1) die("the list has another number of conversations");
    w.key("reads").object().field("messages", each * conversations + kLong);
    w.field("conversations", conversations + 1).field("fill_s", filled);
    w.field("bytes", std::filesystem::file_size(options.env.dir + "/data.mdb"));
    w.field("history_p50_ms", percentile(history, 0.5))
        .field("history_p99_ms", percentile(history, 0.99));
    w.field("long_p50_ms", percentile(deep, 0.5)).field("long_p99_ms", percentile(deep, 0.99));
    w.field("list_p50_ms", percentile(list, 0.5))
        .field("list_p99_ms", percentile(list, 0.99))
        .end();
}

}  // namespace

int main(int argc, char** argv) {
    CLI::App app("What the store does in a second, beside raw LMDB and SQLite");
    std::string dir = ".";
    uint64_t messages = 200'000, conversations = 2000;
    int rounds = 3;
    double scale = 1;
    app.add_option("--dir", dir,
                   "a folder on the disk to be measured; what is made there is removed");
    app.add_option("--messages", messages, "that the history has; 0: sends only")
        ->check(CLI::Range(0, 100'000'000));
    app.add_option("--conversations", conversations, "beside one of 50,000 messages")
        ->check(CLI::Range(1, 1'000'000));
    app.add_option("--rounds", rounds, "of the sends, in turns")->check(CLI::Range(1, 99));
    app.add_option("--scale", scale, "times the sends of a round");
    CLI11_PARSE(app, argc, argv);
    std::string place = dir + "/store-figures-XXXXXX";
    if (!::mkdtemp(place.data())) die("no folder in " + dir);
    place = std::filesystem::absolute(place);
    std::string out;
    {
        base::JsonWriter w(out);
        w.object();
        sends(w, place, rounds, scale);
        if (messages) reads(w, place, messages, conversations);
        w.end();
    }
    std::printf("%s\n", out.c_str());
    std::error_code ignored;
    std::filesystem::remove_all(place, ignored);
    return 0;
}
