// What must hold when things break: kills, full maps, flipped bits, resends, a second writer.
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>

#include "store/check.hpp"
#include "store/fixture.hpp"
#include "store/record.hpp"

using namespace parley;
using namespace parley::store;

namespace {

std::vector<Outcome> apply(Writer& writer, const std::vector<std::string>& bodies,
                           const std::string& boot = {}, uint64_t first_seq = 1) {
    std::vector<Command> commands;
    for (size_t i = 0; i < bodies.size(); ++i)
        commands.push_back({boot, boot.empty() ? 0 : first_seq + i, bodies[i]});
    auto outcomes = writer.apply(commands);
    REQUIRE(outcomes);
    return *outcomes;
}

std::string summary(Env& env) {
    auto report = check_store(env);
    REQUIRE(report);
    std::string out;
    for (const auto& finding : report->first)
        out += finding.table + " " + finding.key + " " + finding.what + "\n";
    return out;
}

}  // namespace

TEST_CASE("a refused command leaves nothing, and its neighbours in the group stand", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const auto outcomes =
        apply(*f.writer,
              {OrgCreate{.name = "one"}.json(), OrgCreate{.name = "acme"}.json(),
               f.send_to(conv).json(), f.send_to(conv).json(), OrgCreate{.name = "two"}.json()});
    REQUIRE_FALSE(outcomes[0].refused);
    REQUIRE(outcomes[1].refused);
    REQUIRE_FALSE(outcomes[2].refused);
    REQUIRE(text_at(outcomes[3].json, "/error/reason") == "running");  // sees its neighbour
    REQUIRE_FALSE(outcomes[4].refused);
    REQUIRE(f.writer->published().size() == 3);
    REQUIRE(f.reader->orgs()->size() == 3);
    REQUIRE(summary(*f.writer->env()).empty());
}

TEST_CASE("a resend gets the first reply, also of a refusal, also after a restart", "[store]") {
    Fixture f;
    const auto first =
        apply(*f.writer, {OrgCreate{.name = "x"}.json(), OrgCreate{.name = "x"}.json()}, "boot-1");
    REQUIRE_FALSE(first[0].refused);
    REQUIRE(first[1].refused);
    f.reopen();
    const auto again =
        apply(*f.writer, {OrgCreate{.name = "x"}.json(), OrgCreate{.name = "x"}.json()}, "boot-1");
    for (int i = 0; i < 2; ++i) {
        REQUIRE(again[i].resent);
        REQUIRE(again[i].json == first[i].json);
        REQUIRE(again[i].refused == first[i].refused);
        REQUIRE(again[i].code == first[i].code);
    }
    // The number names the command, whatever the body says now.
    REQUIRE(apply(*f.writer, {OrgCreate{.name = "y"}.json()}, "boot-1")[0].json == first[0].json);
    // Another asker's numbers are its own.
    REQUIRE_FALSE(apply(*f.writer, {OrgCreate{.name = "z"}.json()}, "boot-2")[0].resent);
    // Twice in one group.
    std::vector<Command> twice;
    const std::string body = OrgCreate{.name = "w"}.json();
    twice.push_back({"boot-3", 1, body});
    twice.push_back({"boot-3", 1, body});
    auto outcomes = f.writer->apply(twice);
    REQUIRE((*outcomes)[1].resent);
    REQUIRE((*outcomes)[0].json == (*outcomes)[1].json);
}

TEST_CASE("a number behind the window is refused, not run again", "[store]") {
    Fixture f;
    std::vector<std::string> bodies(kReplyWindow + 2,
                                    R"({"command":"model_put","hash":"h","name":"n"})");
    apply(*f.writer, bodies, "boot", 1);
    REQUIRE(apply(*f.writer, {bodies[0]}, "boot", 1)[0].refused);
    REQUIRE(text_at(apply(*f.writer, {bodies[0]}, "boot", 2)[0].json, "/error/reason") == "window");
    REQUIRE(apply(*f.writer, {bodies[0]}, "boot", 3)[0].resent);
    f.reopen();
    REQUIRE(text_at(apply(*f.writer, {bodies[0]}, "boot", 2)[0].json, "/error/reason") == "window");
    // Replies of an asker that has been silent for a day are cleared away.
    f.clock.advance_ms(f.options.idem_ttl_ms + 1);
    std::string boots;
    for (int i = 0; i < 20; ++i) {
        const auto gc = f.run(R"({"command":"gc","boots":")" + boots + "\"}");
        boots = text_at(gc.json, "/boots");
    }
    uint64_t left = 0;
    REQUIRE(each_row(*f.writer->env(), Table::reply, [&](auto, auto) -> Result<void> {
        ++left;
        return {};
    }));
    REQUIRE(left == 0);
}

TEST_CASE("a secret is said once and not kept for a resend", "[store]") {
    Fixture f;
    const std::string body = R"({"command":"key_create","org":"acme"})";
    const auto first = apply(*f.writer, {body}, "boot");
    const std::string secret = text_at(first[0].json, "/key");
    REQUIRE(f.reader->api_key(secret, f.clock.wall_ms()));
    const auto again = apply(*f.writer, {body}, "boot");
    REQUIRE(again[0].resent);
    REQUIRE(text_at(again[0].json, "/key").empty());
    REQUIRE(text_at(again[0].json, "/key_id") == text_at(first[0].json, "/key_id"));
    std::ifstream file(f.options.env.dir + "/data.mdb", std::ios::binary);
    const std::string bytes((std::istreambuf_iterator<char>(file)), {});
    REQUIRE(bytes.find(secret) == std::string::npos);
}

TEST_CASE("a second writer is refused and named the first", "[store]") {
    Fixture f;
    auto second = Writer::open(f.options, f.clock);
    REQUIRE_FALSE(second);
    REQUIRE(second.error().code == Errc::conflict);
    REQUIRE(second.error().what.find(std::to_string(::getpid())) != std::string::npos);
}

TEST_CASE("a full map refuses what does not fit, keeps what is there, and grows at the next start",
          "[store]") {
    Fixture f(1u << 20);
    const Ulid conv = f.conversation();
    // Not compressible, so that the map fills soon.
    uint64_t state = 88172645463325252ull;
    const auto noise = [&](size_t size) {
        std::string text;
        while (text.size() < size) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            text += base::hex({reinterpret_cast<const char*>(&state), 8});
        }
        return text;
    };
    std::vector<Ulid> answers;
    std::string refusal;
    std::string refused_body;
    for (int i = 0; i < 300 && refusal.empty(); ++i) {
        const std::string body = f.send_to(conv, noise(8000)).json();
        const auto outcome = apply(*f.writer, {body}, "boot", static_cast<uint64_t>(2 * i + 1))[0];
        if (outcome.refused) {
            REQUIRE(outcome.code == Errc::again);
            refusal = outcome.json;
            refused_body = body;
            // A small one beside a large one: each for itself. A resend tries anew and is refused anew.
            REQUIRE(apply(*f.writer, {body}, "boot", static_cast<uint64_t>(2 * i + 1))[0].refused);
            break;
        }
        answers.push_back(Fixture::answer_of(outcome));
        const auto end = apply(*f.writer, {Fixture::end_of(answers.back()).json()}, "boot",
                               static_cast<uint64_t>(2 * i + 2))[0];
        if (end.refused) refusal = end.json;
    }
    REQUIRE(answers.size() > 5);
    REQUIRE(refusal.find("--map-size") != std::string::npos);
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->message_count == 2 * answers.size());
    REQUIRE(summary(*f.writer->env()).empty());
    // A reader in another process notices the new size by itself: here, one more environment would be
    // the same process, so the reader is opened anew.
    f.options.env.map_bytes = 64u << 20;
    f.reopen();
    REQUIRE(f.reader->message(conv, answers.back()));
    if (!refused_body.empty()) f.run(refused_body);
    REQUIRE(summary(*f.writer->env()).empty());
}

TEST_CASE("a disk that is full refuses what does not fit, and all goes on when there is room",
          "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    // A limit on the size of files stands for the disk's end: a write beyond it fails at commit.
    rlimit before{};
    REQUIRE(::getrlimit(RLIMIT_FSIZE, &before) == 0);
    const auto handler = ::signal(SIGXFSZ, SIG_IGN);
    const rlimit tight{300'000, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &tight) == 0);
    std::vector<std::string> bodies;
    uint64_t state = 20261124;
    for (int i = 0; i < 40; ++i) {
        Send send =
            f.send_to(conv, std::string(100, static_cast<char>('a' + i % 26)) + std::to_string(i));
        send.parent = Send::kRoot;
        // Raw bytes that no compressor makes smaller.
        std::string noise(12'000, ' ');
        for (char& c : noise) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            c = "0123456789abcdef"[state % 16];
        }
        send.params = "{\"noise\":\"" + noise + "\"}";
        bodies.push_back(send.json());
    }
    std::vector<Command> commands;
    for (size_t i = 0; i < bodies.size(); ++i) commands.push_back({"boot", i + 1, bodies[i]});
    auto outcomes = f.writer->apply(commands);
    const rlimit back{before.rlim_cur, before.rlim_max};
    REQUIRE(::setrlimit(RLIMIT_FSIZE, &back) == 0);
    ::signal(SIGXFSZ, handler);
    REQUIRE(outcomes);
    uint64_t stored = 0, refused = 0;
    for (const auto& outcome : *outcomes) {
        if (!outcome.refused) ++stored;
        if (outcome.refused) {
            ++refused;
            REQUIRE(outcome.code == Errc::again);
        }
    }
    REQUIRE(stored > 0);
    REQUIRE(refused > 0);
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->message_count == 2 * stored);
    REQUIRE(summary(*f.writer->env()).empty());
    // With room again the same numbers run: those that ran before get their first reply.
    const auto again = apply(*f.writer, bodies, "boot");
    for (const auto& outcome : again) REQUIRE_FALSE(outcome.refused);
    REQUIRE(f.reader->conversation(f.org, f.user, conv)->message_count == 2 * bodies.size());
    REQUIRE(summary(*f.writer->env()).empty());
}

TEST_CASE("every flipped bit in a value is found and named by the scrub", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    Send send = f.send_to(conv, std::string(2000, 'a') + "end");  // compressed
    send.idem_key = "k";
    const Ulid answer = Fixture::answer_of(f.run(send.json()));
    f.run(Fixture::piece(answer, 1, 0, "text").json());
    f.run(Fixture::end_of(answer).json());
    Env& env = *f.writer->env();
    uint64_t tried = 0;
    const uint64_t seed = 20261124;
    uint64_t state = seed;
    for (size_t t = 0; t < kTables; ++t) {
        const auto table = static_cast<Table>(t);
        if (table == Table::child) continue;
        std::vector<std::pair<std::string, std::string>> rows;
        {
            auto txn = ReadTxn::begin(env);
            auto walk = Cursor::open(env, txn->handle(), table);
            for (bool on = walk->first(); on; on = walk->next())
                rows.emplace_back(walk->key(), walk->value());
        }
        for (const auto& [key, value] : rows) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            std::string broken = value;
            broken[state % broken.size()] ^= static_cast<char>(1 << (state >> 40) % 8);
            INFO("seed " << seed << " table " << table_name(table));
            REQUIRE_FALSE(decode_record(table, key, broken));
            REQUIRE_FALSE(
                decode_record(table, key, std::string_view(value).substr(0, value.size() - 1)));
            // Whole, but under another key or in another table.
            REQUIRE_FALSE(decode_record(table, key + "x", value));
            REQUIRE_FALSE(
                decode_record(table == Table::conv ? Table::msg : Table::conv, key, value));
            ++tried;
        }
    }
    REQUIRE(tried > 10);
    // And in place: the scrub names the row, reads of it fail, all else is still there.
    MDB_txn* txn = nullptr;
    REQUIRE(mdb_txn_begin(env.handle(), nullptr, 0, &txn) == 0);
    std::string key(conv.view());
    put_u32(key, bucket_of(answer));
    key += answer.view();
    MDB_val k{key.size(), key.data()}, v{};
    REQUIRE(mdb_get(txn, env.dbi(Table::msg), &k, &v) == 0);
    std::string broken(static_cast<const char*>(v.mv_data), v.mv_size);
    broken[broken.size() / 2] ^= 4;
    v = {broken.size(), broken.data()};
    REQUIRE(mdb_put(txn, env.dbi(Table::msg), &k, &v, 0) == 0);
    REQUIRE(mdb_txn_commit(txn) == 0);
    auto report = check_store(env);
    REQUIRE(report->findings >= 1);
    REQUIRE(report->first[0].table == "msg");
    REQUIRE(report->first[0].key == base::hex(key));
    auto read = f.reader->message(conv, answer);
    REQUIRE(read.error().code == Errc::corrupt);
    REQUIRE(read.error().what.find(base::hex(key)) != std::string::npos);
    REQUIRE(f.reader->conversation(f.org, f.user, conv));
    // A command that needs the row is refused; the store goes on.
    REQUIRE(f.refused(f.send_to(conv).json()).code == Errc::corrupt);
    f.conversation();
}

TEST_CASE("rows that belong to nothing are found by the scrub", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    const Ulid answer = Fixture::answer_of(f.run(f.send_to(conv).json()));
    f.run(Fixture::end_of(answer).json());
    Env& env = *f.writer->env();
    const auto without = [&](Table table, auto pick) {
        MDB_txn* txn = nullptr;
        REQUIRE(mdb_txn_begin(env.handle(), nullptr, 0, &txn) == 0);
        {
            auto walk = Cursor::open(env, txn, table);
            REQUIRE(walk);
            REQUIRE(pick(*walk));
            REQUIRE(walk->erase());
        }
        std::string out;
        REQUIRE(mdb_txn_commit(txn) == 0);
        out = summary(env);
        return out;
    };
    // Each is one hole more, so each finding list contains the new one.
    REQUIRE(without(Table::conv_user, [](Cursor& c) {
                return c.first();
            }).find("not in its user's list") != std::string::npos);
    REQUIRE(without(Table::usage_log, [](Cursor& c) { return c.first(); }).find("0 usage rows") !=
            std::string::npos);
    REQUIRE(without(Table::changes, [](Cursor& c) {
                return c.first();
            }).find("the log jumps from 0 to 2") != std::string::npos);
    REQUIRE(without(Table::child, [](Cursor& c) {
                return c.first();
            }).find("not among its parent's children") != std::string::npos);
}

TEST_CASE("kill -9 during group commits loses no acknowledged command", "[store]") {
    TempDir dir;
    const std::string store = dir.path() + "/store";
    uint64_t acknowledged_total = 0;
    std::map<uint64_t, std::string> replies;  // by seq, of boot "b"
    uint64_t next = 1;
    const unsigned seed = 7;
    uint64_t random = seed;
    for (int round = 0; round < 12; ++round) {
        int pipe_fds[2];
        REQUIRE(::pipe(pipe_fds) == 0);
        const pid_t child = ::fork();
        if (child == 0) {
            // Group commits without end; a line per acknowledged command goes up the pipe.
            WriterOptions options;
            options.env.dir = store;
            options.env.map_bytes = 64u << 20;
            auto writer = Writer::open(options);
            if (!writer) ::_exit(1);
            for (uint64_t seq = next;;) {
                std::vector<std::string> bodies;
                std::vector<Command> commands;
                for (int i = 0; i < 8; ++i)
                    bodies.push_back(OrgCreate{.name = "org-" + std::to_string(seq + i)}.json());
                for (int i = 0; i < 8; ++i) commands.push_back({"b", seq + i, bodies[i]});
                auto outcomes = (*writer)->apply(commands);
                if (!outcomes) ::_exit(2);
                std::string lines;
                for (int i = 0; i < 8; ++i)
                    lines += std::to_string(seq + i) + " " + (*outcomes)[i].json + "\n";
                if (::write(pipe_fds[1], lines.data(), lines.size()) < 0) ::_exit(3);
                seq += 8;
            }
        }
        ::close(pipe_fds[1]);
        random = random * 6364136223846793005ull + 1442695040888963407ull;
        // Not before it works, then anywhere within a few commits.
        std::string heard(1 << 16, '\0');
        ssize_t got = ::read(pipe_fds[0], heard.data(), heard.size());
        REQUIRE(got > 0);
        ::usleep(static_cast<useconds_t>(random >> 33) % 15'000);
        ::kill(child, SIGKILL);
        std::string all(heard, 0, static_cast<size_t>(got));
        while ((got = ::read(pipe_fds[0], heard.data(), heard.size())) > 0)
            all.append(heard, 0, static_cast<size_t>(got));
        ::close(pipe_fds[0]);
        int status = 0;
        ::waitpid(child, &status, 0);
        REQUIRE(WIFSIGNALED(status));
        for (size_t at = 0; at < all.size();) {
            const size_t end = all.find('\n', at);
            if (end == std::string::npos) break;  // cut by the kill: not acknowledged
            const uint64_t seq = std::stoull(all.substr(at));
            const std::string json = all.substr(all.find(' ', at) + 1, end - all.find(' ', at) - 1);
            // A resent number of the last round keeps its first reply.
            if (const auto it = replies.find(seq); it != replies.end()) REQUIRE(it->second == json);
            replies[seq] = json;
            acknowledged_total = std::max(acknowledged_total, seq);
            at = end + 1;
        }
        // The next process resends the last group: it cannot know whether that ran.
        next = acknowledged_total >= 8 ? acknowledged_total - 7 : 1;
    }
    INFO("seed " << seed);
    WriterOptions options;
    options.env.dir = store;
    options.env.map_bytes = 64u << 20;
    auto writer = Writer::open(options);
    REQUIRE(writer);
    auto reader = make_reader((*writer)->env());
    for (const auto& [seq, json] : replies) {
        auto org = (*reader)->org_by_name("org-" + std::to_string(seq));
        REQUIRE(org);
        REQUIRE(show_id(kOrg, org->id) == text_at(json, "/org"));
    }
    REQUIRE(replies.size() == acknowledged_total);
    REQUIRE(summary(*(*writer)->env()).empty());
    // Ids rise in the order of the log, over all the kills.
    std::string last;
    auto changes = (*reader)->changes(0, kRowsMax);
    for (const auto& change : *changes) {
        REQUIRE(text_at(change.json, "/org") > last);
        last = text_at(change.json, "/org");
    }
}

TEST_CASE("a reader killed inside a transaction is noticed and its slot freed", "[store]") {
    TempDir dir;
    const std::string store = dir.path() + "/store";
    int ready[2];
    REQUIRE(::pipe(ready) == 0);
    {
        WriterOptions options;
        options.env.dir = store;
        options.env.map_bytes = 64u << 20;
        REQUIRE(Writer::open(options));
    }
    const pid_t child = ::fork();
    if (child == 0) {
        EnvOptions options;
        options.dir = store;
        auto env = Env::open(options);
        auto txn = ReadTxn::begin(**env);
        if (!txn || ::write(ready[1], "x", 1) != 1) ::_exit(1);
        ::pause();
    }
    char byte;
    REQUIRE(::read(ready[0], &byte, 1) == 1);
    WriterOptions options;
    options.env.dir = store;
    options.env.map_bytes = 64u << 20;
    auto writer = Writer::open(options);
    REQUIRE(writer);
    for (int i = 0; i < 5; ++i)
        REQUIRE((*writer)->apply_one(OrgCreate{.name = "o" + std::to_string(i)}.json()));
    REQUIRE((*writer)->env()->info().oldest_reader_lag >= 4);
    REQUIRE((*writer)->env()->reader_check() == 0);  // it lives
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    REQUIRE((*writer)->env()->reader_check() == 1);
    REQUIRE((*writer)->env()->info().oldest_reader_lag == 0);
    ::close(ready[0]);
    ::close(ready[1]);
}

TEST_CASE("a reader beyond the last slot is refused and told why", "[store]") {
    TempDir dir;
    WriterOptions options;
    options.env.dir = dir.path() + "/store";
    options.env.map_bytes = 16u << 20;
    options.env.readers_max = 16;
    auto writer = Writer::open(options);
    REQUIRE(writer);
    Env& env = *(*writer)->env();
    std::vector<ReadTxn> held;
    for (;;) {
        auto txn = ReadTxn::begin(env);
        if (!txn) {
            REQUIRE(txn.error().code == Errc::unavailable);
            REQUIRE(txn.error().what.find("slots") != std::string::npos);
            break;
        }
        held.push_back(std::move(*txn));
        REQUIRE(held.size() <= 16);
    }
    REQUIRE(held.size() == 16);
    REQUIRE((*writer)->apply_one(OrgCreate{.name = "the writer goes on"}.json()));
    held.pop_back();
    REQUIRE(ReadTxn::begin(env));
}

TEST_CASE("a reader in another process takes over a map that has grown", "[store]") {
    TempDir dir;
    WriterOptions options;
    options.env.dir = dir.path() + "/store";
    options.env.map_bytes = 1u << 20;
    REQUIRE(Writer::open(options));
    int up[2], down[2];
    REQUIRE(::pipe(up) == 0);
    REQUIRE(::pipe(down) == 0);
    const pid_t child = ::fork();
    if (child == 0) {
        EnvOptions small;
        small.dir = options.env.dir;
        small.map_bytes = 1u << 20;
        auto env = Env::open(small);
        char byte = env ? 'y' : 'n';
        if (::write(up[1], &byte, 1) != 1 || ::read(down[0], &byte, 1) != 1) ::_exit(1);
        auto reader = make_reader(*env);
        auto orgs = (*reader)->orgs();
        ::_exit(orgs && orgs->size() == 200 ? 0 : 2);
    }
    char byte = 0;
    REQUIRE(::read(up[0], &byte, 1) == 1);
    REQUIRE(byte == 'y');
    options.env.map_bytes = 64u << 20;
    auto writer = Writer::open(options);
    REQUIRE(writer);
    uint64_t state = 1;
    for (int i = 0; i < 200; ++i) {
        std::string noise(16'000, ' ');
        for (char& c : noise) {
            state ^= state << 13, state ^= state >> 7, state ^= state << 17;
            c = "0123456789abcdef"[state % 16];
        }
        OrgCreate create{.name = "o" + std::to_string(i)};
        create.limits = "{\"noise\":\"" + noise + "\"}";
        auto outcome = (*writer)->apply_one(create.json());
        REQUIRE(outcome);
        REQUIRE_FALSE(outcome->refused);
    }
    REQUIRE((*writer)->env()->info().used_bytes > (1u << 20));
    REQUIRE(::write(down[1], "x", 1) == 1);
    int status = 0;
    ::waitpid(child, &status, 0);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    for (const int fd : {up[0], up[1], down[0], down[1]}) ::close(fd);
}

TEST_CASE("a backup made under a writer reads back whole", "[store]") {
    Fixture f;
    const Ulid conv = f.conversation();
    f.run(f.send_to(conv).json());
    const std::string copy = f.dir.path() + "/copy";
    std::filesystem::create_directory(copy);
    REQUIRE(f.writer->env()->copy_to(copy, true));
    // The users' keys are in no backup: what is sealed wants them, all else does not.
    auto bare = open_reader(copy);
    REQUIRE(bare);
    REQUIRE(*(*bare)->last_change() == *f.reader->last_change());
    const auto sealed = (*bare)->conversation(f.org, f.user, conv);
    REQUIRE_FALSE(sealed);
    REQUIRE(sealed.error().code == Errc::unsupported);
    auto env = Env::open({.dir = copy, .keys_dir = f.options.env.dir + "/keys"});
    REQUIRE(env);
    auto reader = make_reader(*env);
    REQUIRE(reader);
    const auto read = (*reader)->conversation(f.org, f.user, conv);
    REQUIRE(read);
    REQUIRE(read->message_count == 2);
    REQUIRE(*(*reader)->last_change() == *f.reader->last_change());
}

TEST_CASE("a store that is not there yet is said to be so", "[store]") {
    TempDir dir;
    auto reader = open_reader(dir.path() + "/none");
    REQUIRE(reader.error().code == Errc::unavailable);
    REQUIRE(reader.error().what.find("convstore") != std::string::npos);
    std::filesystem::create_directory(dir.path() + "/bad");
    std::ofstream(dir.path() + "/bad/data.mdb") << std::string(8192, 'x');
    std::ofstream(dir.path() + "/bad/pepper") << std::string(32, 'p');
    REQUIRE(open_reader(dir.path() + "/bad").error().code == Errc::corrupt);
}
