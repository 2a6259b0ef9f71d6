#include "base/cli.hpp"

#include <unistd.h>

#include <catch2/catch.hpp>
#include <cstdlib>
#include <fstream>

using namespace parley::base;

namespace {

struct Settings {
    std::string bind = "127.0.0.1:8080";
    uint32_t limit = 10;
    bool open = false;
    int64_t drain_ms = 10'000;
    uint64_t body_bytes = 32'000'000;
    std::vector<std::string> names;
    bool secret = false;
};

struct Outcome {
    Result<Parsed> parsed;
    Settings settings;
};

Outcome run(std::vector<const char*> arguments) {
    arguments.insert(arguments.begin(), "frobd");
    Settings s;
    Cli cli("frobd", "a tool for tests");
    auto serve = cli.verb("serve", "serve");
    serve.option("--bind", s.bind, "address").option("--limit", s.limit, "most").range(1, 100);
    serve.flag("--open", s.open, "open").duration("--drain-timeout", s.drain_ms, "drain");
    serve.size("--body-bytes", s.body_bytes, "bytes").option("--name", s.names, "names");
    serve.flag("--allow-unsafe", s.secret, "by flag only").flag_only();
    auto other = cli.verb("other", "another verb");
    other.option("--depth", s.limit, "depth").option("--bind", s.bind, "address");
    auto org = cli.verb("org", "organisations");
    org.verb("create", "make one").option("NAME", s.bind, "name").required();
    auto parsed = cli.parse(static_cast<int>(arguments.size()), arguments.data());
    return {std::move(parsed), s};
}

std::string file(const std::string& text) {
    char name[] = "/tmp/parley-cli-XXXXXX";
    const int fd = ::mkstemp(name);
    ::close(fd);
    std::ofstream(name) << text;
    return name;
}

struct Env {
    const char* name;
    Env(const char* n, const char* value) : name(n) { ::setenv(n, value, 1); }
    ~Env() { ::unsetenv(name); }
};

}  // namespace

TEST_CASE("a flag ranks above the environment, that above the file, that above the default",
          "[cli]") {
    const std::string path = file(
        "bind = \"from-file\"\nlimit = 5\nopen = true\ndrain-timeout = \"3s\"\nname = [\"a\", "
        "\"b\"]\n");
    auto plain = run({"serve"});
    REQUIRE(plain.parsed.has_value());
    REQUIRE(plain.settings.bind == "127.0.0.1:8080");
    auto from_file = run({"serve", "--config", path.c_str()});
    REQUIRE(from_file.parsed.has_value());
    REQUIRE(from_file.settings.bind == "from-file");
    REQUIRE(from_file.settings.limit == 5);
    REQUIRE(from_file.settings.open);
    REQUIRE(from_file.settings.drain_ms == 3000);
    REQUIRE(from_file.settings.names == std::vector<std::string>{"a", "b"});
    Env env("FROBD_BIND", "from-env");
    Env drain("FROBD_DRAIN_TIMEOUT", "4s");
    auto from_env = run({"serve", "--config", path.c_str()});
    REQUIRE(from_env.settings.bind == "from-env");
    REQUIRE(from_env.settings.drain_ms == 4000);
    REQUIRE(from_env.settings.limit == 5);
    auto from_flag =
        run({"serve", "--config", path.c_str(), "--bind", "from-flag", "--drain-timeout", "5s"});
    REQUIRE(from_flag.settings.bind == "from-flag");
    REQUIRE(from_flag.settings.drain_ms == 5000);
}

TEST_CASE("an unknown key, a wrong type, a bad value or a missing file is a configuration error",
          "[cli]") {
    for (const char* text :
         {"bnid = \"x\"\n", "limit = \"many\"\n", "limit = 1000\n", "bind = {a = 1}\n",
          "[nonsense]\na = 1\n", "broken", "drain-timeout = 5\n", "[serve]\ndepth = 3\n"}) {
        CAPTURE(text);
        const std::string path = file(text);
        auto outcome = run({"serve", "--config", path.c_str()});
        REQUIRE_FALSE(outcome.parsed.has_value());
        REQUIRE(outcome.parsed.error().code == Errc::config);
        REQUIRE(outcome.parsed.error().what.find(path) != std::string::npos);
    }
    REQUIRE(run({"serve", "--config", "/no/such/file.toml"}).parsed.error().code == Errc::config);
}

TEST_CASE("a bad duration or size names its option and what it was given", "[cli]") {
    auto duration = run({"serve", "--drain-timeout", "soon"});
    REQUIRE_FALSE(duration.parsed.has_value());
    CHECK(duration.parsed.error().what.find("--drain-timeout: 'soon'") != std::string::npos);
    auto size = run({"serve", "--body-bytes", "much"});
    REQUIRE_FALSE(size.parsed.has_value());
    CHECK(size.parsed.error().what.find("--body-bytes: 'much'") != std::string::npos);
}

TEST_CASE("a key of another verb is no error at top level, and a verb's table is its own",
          "[cli]") {
    const std::string path = file("depth = 3\n[serve]\nbind = \"mine\"\n[other]\ndepth = 4\n");
    auto outcome = run({"serve", "--config", path.c_str()});
    REQUIRE(outcome.parsed.has_value());
    REQUIRE(outcome.settings.bind == "mine");
    REQUIRE(outcome.settings.limit == 10);
}

TEST_CASE("--check-config reads everything and stops: 0 when all is good, the error when not",
          "[cli]") {
    const std::string good = file("bind = \"mine\"\n[serve]\nlimit = 5\n");
    auto outcome = run({"serve", "--config", good.c_str(), "--check-config"});
    REQUIRE(outcome.parsed.has_value());
    REQUIRE(outcome.parsed->exit == 0);
    REQUIRE_FALSE(run({"serve", "--config", good.c_str()}).parsed->exit.has_value());
    const std::string bad = file("[serve]\nlimit = 1000\n");
    REQUIRE(run({"serve", "--check-config", "--config", bad.c_str()}).parsed.error().code ==
            Errc::config);
    // It is no setting: a file that asks for it would keep the daemon from ever starting.
    const std::string key = file("check-config = true\n");
    REQUIRE(run({"serve", "--config", key.c_str()}).parsed.error().code == Errc::config);
}

TEST_CASE("an option that weakens safety is taken from a flag alone", "[cli]") {
    const std::string path = file("allow-unsafe = true\n");
    REQUIRE(run({"serve", "--config", path.c_str()}).parsed.error().code == Errc::config);
    Env env("FROBD_ALLOW_UNSAFE", "true");
    REQUIRE_FALSE(run({"serve"}).settings.secret);
    REQUIRE(run({"serve", "--allow-unsafe"}).settings.secret);
}

TEST_CASE("a bad command line is a usage error that says what is wrong", "[cli]") {
    for (std::vector<const char*> arguments : {std::vector<const char*>{},
                                               {"fly"},
                                               {"serve", "--wings"},
                                               {"serve", "--limit", "x"},
                                               {"serve", "--limit", "0"},
                                               {"serve", "--drain-timeout", "10"},
                                               {"org"},
                                               {"org", "create"}}) {
        auto outcome = run(arguments);
        REQUIRE_FALSE(outcome.parsed.has_value());
        REQUIRE(outcome.parsed.error().code == Errc::usage);
        REQUIRE(exit_status(outcome.parsed.error().code) == 64);
        REQUIRE_FALSE(outcome.parsed.error().what.empty());
    }
}

TEST_CASE("an unknown option is named even where something is missing, too", "[cli]") {
    for (std::vector<const char*> arguments : {std::vector<const char*>{"--wings"},
                                               {"serve", "--wings"},
                                               {"org", "--wings"},
                                               {"org", "create", "--wings"}}) {
        auto outcome = run(arguments);
        REQUIRE_FALSE(outcome.parsed.has_value());
        REQUIRE(outcome.parsed.error().what.find("--wings") != std::string::npos);
    }
    REQUIRE(run({"serve", "--wings", "4"}).parsed.error().what.find("unknown option '--wings'") ==
            0);
    REQUIRE(run({"serve", "four"}).parsed.error().what.find("unexpected argument 'four'") == 0);
    REQUIRE(run({"fly"}).parsed.error().what.find("unknown verb 'fly'") == 0);
    REQUIRE(run({"org", "fly"}).parsed.error().what.find("unknown verb 'fly'") == 0);
}

TEST_CASE("verbs may be nested", "[cli]") {
    auto outcome = run({"org", "create", "acme"});
    REQUIRE(outcome.parsed.has_value());
    REQUIRE(outcome.parsed->is("org", "create"));
    REQUIRE(outcome.settings.bind == "acme");
}
