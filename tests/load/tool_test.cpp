// The program from outside: standard output, standard error, exit status, signals.
#include <signal.h>
#include <simdjson.h>
#include <sys/wait.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>
#include <set>
#include <sstream>

#include "base/file.hpp"
#include "test_server.hpp"

using namespace parley;
using Catch::Matchers::Contains;
using Catch::Matchers::StartsWith;
using test::TestServer;

namespace {

std::string scratch(const std::string& name) {
    return "/tmp/loadgen-test-" + std::to_string(::getpid()) + "-" + name;
}

struct Ended {
    int status = -1;
    std::string out, err;
};

// With `signal_after_ms` ≥ 0, SIGINT goes to it then.
Ended loadgen(std::vector<std::string> arguments, const char* key = nullptr,
              int signal_after_ms = -1) {
    const std::string out = scratch("out"), err = scratch("err");
    const pid_t pid = ::fork();
    if (pid == 0) {
        if (key) ::setenv("PARLEY_API_KEY", key, 1);
        if (!std::freopen(out.c_str(), "w", stdout) || !std::freopen(err.c_str(), "w", stderr))
            ::_exit(99);
        std::string program = PARLEY_BINARY_DIR "/bin/loadgen";
        std::vector<char*> argv{program.data()};
        for (auto& argument : arguments) argv.push_back(argument.data());
        argv.push_back(nullptr);
        ::execv(program.c_str(), argv.data());
        ::_exit(98);
    }
    if (signal_after_ms >= 0) {
        std::this_thread::sleep_for(std::chrono::milliseconds(signal_after_ms));
        ::kill(pid, SIGINT);
    }
    int status = 0;
    ::waitpid(pid, &status, 0);
    Ended ended;
    ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    ended.out = *base::read_file(out);
    ended.err = *base::read_file(err);
    ::unlink(out.c_str());
    ::unlink(err.c_str());
    return ended;
}

}  // namespace

TEST_CASE("run prints a table on stdout, nothing on stderr, and exits 0", "[load]") {
    TestServer server([](const auto& x) { return test::answer(x, 3, 5, 5); });
    const Ended ended =
        loadgen({"run", "--url", server.url(), "--requests", "6", "--concurrency", "2"});
    CHECK(ended.status == 0);
    CHECK(ended.err.empty());
    CHECK_THAT(ended.out, Contains("closed loop, 2 at once") && Contains("6 completed, 0 failed") &&
                              Contains("\nTTFT ") && Contains("\nE2EL ") &&
                              Contains("output tokens/s") && Contains("stopped by  end_turn 6"));
}

TEST_CASE(
    "--json is one object on one line, --histogram a file, the key comes from the environment",
    "[load]") {
    std::atomic<bool> keyed{false};
    TestServer server([&](const auto& x) {
        keyed = x.head.find("x-api-key: from-env") != std::string::npos;
        return test::answer(x, 3);
    });
    const std::string histogram = scratch("histogram");
    const Ended ended = loadgen({"run", "--url", server.url(), "--requests", "4", "--rate", "200",
                                 "--json", "--prompt", "hi", "--histogram", histogram},
                                "from-env");
    CHECK(ended.status == 0);
    CHECK(keyed);
    CHECK(std::count(ended.out.begin(), ended.out.end(), '\n') == 1);
    simdjson::dom::parser parser;
    simdjson::dom::element json;
    REQUIRE_FALSE(parser.parse(ended.out).get(json));
    CHECK(json["mode"].get_string().value() == "open");
    CHECK(json["requests"]["completed"].get_uint64().value() == 4);
    CHECK(json["output_tokens"].get_uint64().value() == 12);
    auto text = base::read_file(histogram);
    REQUIRE(text);
    CHECK_THAT(*text, StartsWith(R"({"name":"ttft","unit":"ns","count":4,)"));
    ::unlink(histogram.c_str());
}

TEST_CASE("exit statuses: 69 unreachable, 64 usage, 65 and 66 prompts, 1 below the wanted goodput",
          "[load]") {
    std::string dead;
    {
        TestServer gone([](const auto&) { return false; });
        dead = gone.url();
    }
    const Ended unreachable = loadgen({"run", "--url", dead, "--requests", "1"});
    CHECK(unreachable.status == 69);
    CHECK(unreachable.out.empty());
    CHECK_THAT(unreachable.err, Contains("cannot connect"));

    CHECK(loadgen({"run", "--no-such-option"}).status == 64);
    CHECK(loadgen({"run", "--url", dead, "--duration", "10"}).status == 64);  // no unit
    CHECK(loadgen({"run", "--url", "https://x"}).status == 64);
    CHECK(loadgen({"run", "--url", dead, "--endpoint", "ipc:///x"}).status == 64);
    CHECK(loadgen({"run", "--fail-below", "1"}).status == 64);
    CHECK(loadgen({"run", "--temperature", "2"}).status == 64);
    CHECK(loadgen({"compare"}).status == 64);
    CHECK(loadgen({"run", "--prompts", "/nonexistent"}).status == 66);
    CHECK(loadgen({"run", "--metrics", "0.0.0.0:0"}).status == 78);
    const std::string bad = scratch("bad.jsonl");
    std::ofstream(bad) << "{\"nothing\":1}\n";
    const Ended data = loadgen({"run", "--prompts", bad});
    CHECK(data.status == 65);
    CHECK_THAT(data.err, Contains("line 1"));
    ::unlink(bad.c_str());

    TestServer server([](const auto& x) { return test::answer(x, 2, 60); });
    const std::vector<std::string> base = {"run",        "--url", server.url(),
                                           "--requests", "3",     "--slo-ttft"};
    auto with = [&](std::vector<std::string> more) {
        auto all = base;
        all.insert(all.end(), more.begin(), more.end());
        return loadgen(all);
    };
    CHECK(with({"20ms"}).status == 0);
    CHECK(with({"20ms", "--fail-below", "0.1"}).status == 1);
    CHECK(with({"5s", "--fail-below", "0.1"}).status == 0);
    CHECK(loadgen({"--help"}).status == 0);
    CHECK_THAT(loadgen({"--version"}).out, StartsWith("loadgen "));
}

TEST_CASE("errors do not change the exit status, they stand in the report", "[load]") {
    TestServer server(
        [](const auto& x) { return x.write("HTTP/1.1 503 x\r\nContent-Length: 0\r\n\r\n"); });
    const Ended ended =
        loadgen({"run", "--url", server.url(), "--requests", "3", "--error-pause", "1ms"});
    CHECK(ended.status == 0);
    CHECK_THAT(ended.out, Contains("3 x http_503 (HTTP 503)"));
}

TEST_CASE("an interrupt ends the run early with a report of what there is", "[load]") {
    TestServer server([](const auto& x) { return test::answer(x, 2, 50); });
    const Ended ended = loadgen({"run", "--url", server.url(), "--duration", "60s"}, nullptr, 700);
    CHECK(ended.status == 0);
    CHECK_THAT(ended.out, Contains("interrupted"));
    CHECK_THAT(ended.out, !Contains(" 0 completed"));
}

TEST_CASE("every option of run is in the manual, and every option of the manual is in run",
          "[load]") {
    const std::string help = loadgen({"run", "--help"}).out;
    const std::string manual = *base::read_file(PARLEY_SOURCE_DIR "/man/loadgen.1");
    std::set<std::string> offered, told;
    std::istringstream words(help);
    for (std::string word; words >> word;)
        if (word.starts_with("--")) offered.insert(word.substr(0, word.find_first_of("=:,;.)")));
    std::istringstream lines(manual);
    for (std::string line; std::getline(lines, line);)
        if (line.starts_with(".It Fl Fl "))
            told.insert("--" + line.substr(10, line.find(' ', 10) - 10));
    // What every verb of every program has stands in parley(7).
    for (const char* common : {"--help", "--config", "--check-config"}) told.insert(common);
    for (const auto& option : offered) {
        CAPTURE(option);
        CHECK(told.count(option) == 1);
    }
    for (const auto& option : told) {
        CAPTURE(option);
        CHECK((offered.count(option) == 1 || option == "--version" || option == "--completion"));
    }
}
