// What a power cut leaves of the store, at every moment: a real convstore serves real sends under the
// shim of write_recorder.cpp, and the disk's states are built from what it wrote.
//
// Disk     a write is durable once a sync of the file, or the write itself on an O_DSYNC descriptor, has
//          returned. Until then each of its 512-byte sectors is there or not, on its own: writes are
//          torn, reordered and lost at will.
// Image    after each recorded call: everything that was written; only what is durable; and states
//          between the two drawn by a seeded generator.
// Proof    an image opens, `check_store` (what `convstore check` runs) finds nothing, and it holds every
//          send that was acknowledged by then, once, in order, with the text as it was sent.
// Control  the same images of a disk that takes no notice of syncs must lose or break something, or
//          this test could not fail.
//
// PARLEY_CRASH_ROUNDS and PARLEY_CRASH_DRAWN make it longer (tests/long.sh crash).
#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <fstream>
#include <map>
#include <random>

#include "base/file.hpp"
#include "store/check.hpp"
#include "store/client.hpp"
#include "store/fixture.hpp"

using namespace parley;
using namespace parley::store;

namespace {

constexpr size_t kSector = 512;

struct Recorded {
    char kind;
    uint64_t offset;
    std::string bytes;
    uint64_t end;  // of the record in the log
};

std::vector<Recorded> read_log(const std::string& path) {
    std::ifstream file(path, std::ios::binary);
    const std::string all{std::istreambuf_iterator<char>(file), {}};
    std::vector<Recorded> log;
    for (size_t at = 0; at + 13 <= all.size();) {
        Recorded record{all[at], 0, {}, 0};
        uint32_t size = 0;
        std::memcpy(&record.offset, &all[at + 1], 8);
        std::memcpy(&size, &all[at + 9], 4);
        if (at + 13 + size > all.size()) break;  // the kill cut it
        record.bytes = all.substr(at + 13, size);
        at += 13 + size;
        record.end = at;
        log.push_back(std::move(record));
    }
    return log;
}

// An effect that was acknowledged, and how long the log was by then.
struct Ack {
    uint64_t log = 0;
    Ulid conv, message;
    std::string text;  // of a question; "" for an answer that is done
};

// convstore in a process of its own under the shim.
struct Convstore {
    std::string state, log;
    pid_t child = -1;

    Convstore(std::string folder) : state(std::move(folder)), log(state + "/writes.log") {
        child = ::fork();
        if (child != 0) return;
        ::setenv("LD_PRELOAD", PARLEY_BINARY_DIR "/tests/store_write_recorder.so", 1);
        ::setenv("PARLEY_WRITE_LOG", log.c_str(), 1);
        ::setenv("ASAN_OPTIONS", "verify_asan_link_order=0", 0);
        ::execl(PARLEY_BINARY_DIR "/bin/convstore", "convstore", "serve", "--state", state.c_str(),
                "--map-size", "64MiB", "--log-level", "error", nullptr);
        ::_exit(127);
    }
    ~Convstore() { stop(); }
    void stop() {
        if (child <= 0) return;
        ::kill(child, SIGKILL);
        ::waitpid(child, nullptr, 0);
        child = -1;
    }
    uint64_t logged() const {
        struct stat about {};
        return ::stat(log.c_str(), &about) == 0 ? static_cast<uint64_t>(about.st_size) : 0;
    }
};

// Sends in rounds: those of a round are in flight together, and the log stands still when all its acks
// have come.
struct Users {
    Convstore& server;
    std::unique_ptr<Client> client;
    Ulid org, user;
    std::vector<Ulid> convs;
    std::vector<Ack> acks;
    int count = 0;

    explicit Users(Convstore& to) : server(to) {
        client = *Client::connect(
            {.endpoint = "ipc://" + to.state + "/run/convstore.sock", .name = "crash"});
        const CommandReply made = call(OrgCreate{.name = "acme"}.json());
        org = *parse_id(kOrg, text_at(made.json, "/org"));
        user = user_id(org, "alice");
        for (int i = 0; i < 3; ++i) {
            const CommandReply conv = call(
                ConversationCreate{.org = org, .user = user, .user_name = "alice", .title = "t"}
                    .json());
            convs.push_back(*parse_id(kConv, text_at(conv.json, "/conversation/id")));
        }
    }
    CommandReply call(const std::string& json) {
        auto reply = client->call(json, 20'000);
        REQUIRE(reply);
        INFO(json << " -> " << reply->json);
        REQUIRE(reply->ok());
        return *reply;
    }
    void all(const std::vector<std::string>& commands,
             const std::function<void(size_t, const std::string&)>& done) {
        size_t answered = 0, good = 0;
        for (size_t i = 0; i < commands.size(); ++i)
            REQUIRE(client->submit(commands[i], [&, i](const CommandReply& reply) {
                ++answered;
                good += reply.ok();
                if (reply.ok()) done(i, reply.json);
            }));
        const int64_t until = base::system_clock().mono_ms() + 20'000;
        while (answered < commands.size() && base::system_clock().mono_ms() < until) {
            pollfd fd{client->fd(), POLLIN, 0};
            ::poll(&fd, 1, 2);
            client->step();
        }
        REQUIRE(good == commands.size());
    }
    void round() {
        std::vector<std::string> sends, appends, ends, texts;
        std::vector<Ack> fresh;
        for (size_t i = 0; i < convs.size(); ++i) {
            Send send;
            send.org = org;
            send.user = user;
            send.conv = convs[i];
            // Some rows go to pages of their own.
            ++count;
            texts.push_back(
                "question " + std::to_string(100'000 + count) +
                (count % 4 == 0
                     ? std::string(3000, ' ') + std::to_string(std::hash<int>{}(count)*2654435761u)
                     : ""));
            send.content = "[{\"type\":\"text\",\"text\":\"" + texts.back() + "\"}]";
            send.owner = "boot-a";
            send.idem_key = "k" + std::to_string(count);
            send.fingerprint = "f";
            sends.push_back(send.json());
        }
        std::vector<Ulid> answers(convs.size());
        all(sends, [&](size_t i, const std::string& json) {
            answers[i] = Fixture::answer_of({.json = json});
            fresh.push_back(
                {server.logged(), convs[i], Fixture::question_of({.json = json}), texts[i]});
        });
        for (const Ulid& answer : answers) {
            appends.push_back(Fixture::piece(answer, 1, 0, "an answer").json());
            ends.push_back(Fixture::end_of(answer).json());
        }
        all(appends, [](size_t, const std::string&) {});
        all(ends, [&](size_t i, const std::string&) {
            fresh.push_back({server.logged(), convs[i], answers[i], ""});
        });
        acks.insert(acks.end(), fresh.begin(), fresh.end());
    }
};

// Runs in a process of its own: a broken map is a signal, not the end of the test.
enum Verdict : int { kGood = 0, kNotOpened = 10, kFindings, kLost, kDouble, kOrder, kNoGoingOn };

int judge(const std::string& dir, const Users& users, uint64_t log, bool go_on) {
    EnvOptions options;
    options.dir = dir;
    options.map_bytes = 64u << 20;
    auto env = Env::open(options);
    if (!env) return kNotOpened;
    auto report = check_store(**env);
    if (!report || report->findings > 0) return kFindings;
    auto reader = make_reader(*env);
    for (const Ack& ack : users.acks) {
        if (ack.log > log) continue;
        auto row = (*reader)->message(ack.conv, ack.message);
        if (!row || row->status != "done") return kLost;
        if (!ack.text.empty() && text_at(row->content, "/0/text") != ack.text) return kLost;
    }
    for (const Ulid& conv : users.convs) {
        auto page = (*reader)->messages({conv, kRowsMax, {}, {}, true});
        if (!page) return kFindings;
        std::set<std::string> seen;
        std::string last;
        for (const MessageRow& row : page->rows) {
            if (row.role != "user") continue;
            const std::string text = text_at(row.content, "/0/text");
            if (!seen.insert(text).second) return kDouble;
            if (text <= last) return kOrder;
            last = text;
        }
    }
    if (!go_on) return kGood;
    reader->reset();
    env->reset();
    auto writer = Writer::open({.env = options});
    if (!writer) return kNoGoingOn;
    for (const char* name : {"one", "two"}) {
        auto made = (*writer)->apply_one(OrgCreate{.name = name}.json());
        if (!made || made->refused) return kNoGoingOn;
    }
    auto again = check_store(*(*writer)->env());
    return again && again->findings == 0 ? kGood : kNoGoingOn;
}

struct Images {
    const Users& users;
    std::string dir, pepper;
    uint64_t built = 0;
    std::map<int, uint64_t> verdicts;

    Images(const Users& of, const std::string& folder) : users(of), dir(folder) {
        pepper = *base::read_file(of.server.state + "/store/pepper", 64);
        ::mkdir(dir.c_str(), 0700);
        REQUIRE(base::write_file(dir + "/pepper", pepper, 0600));
        // Keys are synced before the first commit that rests on them, and never moved.
        std::filesystem::copy(users.server.state + "/store/keys", dir + "/keys");
    }
    void judge_one(const std::string& bytes, uint64_t log) {
        ::unlink((dir + "/lock.mdb").c_str());
        std::ofstream(dir + "/data.mdb", std::ios::binary | std::ios::trunc) << bytes;
        const bool go_on = built++ % 8 == 0;
        const pid_t child = ::fork();
        if (child == 0) {
            for (const int number : {SIGSEGV, SIGBUS, SIGABRT}) ::signal(number, SIG_DFL);
            ::_exit(judge(dir, users, log, go_on));
        }
        int status = 0;
        ::waitpid(child, &status, 0);
        ++verdicts[WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status)];
    }
    uint64_t bad() const {
        uint64_t sum = 0;
        for (const auto& [verdict, count] : verdicts) sum += verdict == kGood ? 0 : count;
        return sum;
    }
    std::string text() const {
        std::string out;
        for (const auto& [verdict, count] : verdicts)
            out += fmt::format(" verdict {}: {}", verdict, count);
        return out;
    }
};

void put(std::string& disk, uint64_t offset, std::string_view bytes) {
    if (disk.size() < offset + bytes.size()) disk.resize(offset + bytes.size());
    disk.replace(offset, bytes.size(), bytes);
}

// `syncs` false: a disk that says it has synced and has not. A state's writes since then are `window` at
// most, so that it is not all one.
void enumerate(const std::vector<Recorded>& log, uint64_t from, int drawn, bool syncs,
               size_t stride, Images& images) {
    std::mt19937_64 random(20'26);
    std::string durable;
    std::vector<const Recorded*> pending;
    for (size_t i = 0; i < log.size(); ++i) {
        const Recorded& record = log[i];
        if (record.kind == 'T') durable.resize(record.offset);
        if (record.kind == 'W' || record.kind == 'D') pending.push_back(&record);
        const uint64_t known =
            i > 0 ? log[i - 1].end : 0;  // acks that rest on calls which returned
        // States while this call is under way, and just after it.
        if (known >= from && i % stride == 0) {
            std::string whole = durable;
            for (const Recorded* write : pending) put(whole, write->offset, write->bytes);
            images.judge_one(whole, known);
            if (record.kind != 'S') images.judge_one(durable, known);
            for (int n = 0; n < drawn; ++n) {
                std::string torn = durable;
                const uint64_t odds = random() % 4 + 1;  // few to nearly all
                for (const Recorded* write : pending)
                    for (size_t at = 0; at < write->bytes.size(); at += kSector)
                        if (random() % 5 < odds)
                            put(torn, write->offset + at,
                                std::string_view(write->bytes).substr(at, kSector));
                images.judge_one(torn, known);
            }
        }
        if (!syncs) {
            // The oldest trickle to the disk all the same, a few a call.
            while (pending.size() > 24) {
                put(durable, pending.front()->offset, pending.front()->bytes);
                pending.erase(pending.begin());
            }
        } else if (record.kind == 'S') {
            for (const Recorded* write : pending) put(durable, write->offset, write->bytes);
            pending.clear();
        } else if (record.kind == 'D') {
            pending.pop_back();
            put(durable, record.offset, record.bytes);
        }
    }
}

int number_of(const char* name, int otherwise) {
    const char* text = ::getenv(name);
    return text ? std::atoi(text) : otherwise;
}

}  // namespace

TEST_CASE("no power cut between two bytes loses what was acknowledged or breaks the store",
          "[store][crash]") {
    TempDir dir;
    ::chmod(dir.path().c_str(), 0700);
    Convstore server(dir.path());
    Users users(server);
    const uint64_t from = server.logged();
    const int rounds = number_of("PARLEY_CRASH_ROUNDS", 8);
    for (int i = 0; i < rounds; ++i) users.round();
    server.stop();

    const std::vector<Recorded> log = read_log(server.log);
    size_t syncs = 0, single = 0;
    for (const Recorded& record : log) {
        REQUIRE(record.kind != 'M');  // the shim would not see stores to a map
        syncs += record.kind == 'S';
        single += record.kind == 'D';
    }
    // Three groups a round at least, each with its two barriers.
    REQUIRE(syncs >= static_cast<size_t>(rounds) * 3);
    REQUIRE(single >= static_cast<size_t>(rounds) * 3);
    REQUIRE(users.acks.size() == static_cast<size_t>(rounds) * 6);

    Images images(users, dir.path() + "/image");
    enumerate(log, from, number_of("PARLEY_CRASH_DRAWN", 1), true, 1, images);
    WARN(fmt::format("{} calls, {} images,{}", log.size(), images.built, images.text()));
    CHECK(images.bad() == 0);
    CHECK(images.built > log.size());

    Images control(users, dir.path() + "/control");
    enumerate(log, from, 1, false, std::max<size_t>(1, log.size() / 40), control);
    WARN(fmt::format("without syncs: {} images,{}", control.built, control.text()));
    CHECK(control.bad() > 0);
}
