#include <sys/stat.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <set>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "base/ulid.hpp"

using namespace parley::base;

TEST_CASE("ids of one source rise, within a millisecond and when the clock steps back", "[base]") {
    ManualClock clock;
    UlidSource source(clock);
    Ulid last = source.next();
    for (int i = 0; i < 10'000; ++i) {
        if (i % 1000 == 500) clock.set_wall_ms(clock.wall_ms() - 5000);
        if (i % 1000 == 999) clock.advance_ms(7000);
        const Ulid next = source.next();
        REQUIRE(next > last);
        REQUIRE(next.text() > last.text());  // text order is id order
        last = next;
    }
    UlidSource fresh(clock);
    fresh.raise_to(last);
    REQUIRE(fresh.next() > last);
}

TEST_CASE("a ulid's text comes back as the same id; anything else is refused", "[base]") {
    const Ulid id = UlidSource().next();
    REQUIRE(id.text().size() == 26);
    REQUIRE(Ulid::parse(id.text()) == id);
    REQUIRE(Ulid::from_bytes(id.view()) == id);
    for (std::string text : {std::string(), id.text() + "0", std::string("8") + id.text().substr(1),
                             std::string(26, 'I'), std::string(26, 'a')})
        REQUIRE_FALSE(Ulid::parse(text).has_value());
    REQUIRE(Ulid::parse("01ARZ3NDEKTSV4RRFFQ69G5FAV")->ms() == 1469922850259);
}

TEST_CASE("crc32c agrees with the published check values", "[base]") {
    REQUIRE(crc32c("123456789") == 0xE3069283u);
    REQUIRE(crc32c(std::string(32, '\0')) == 0x8A9136AAu);
    REQUIRE(crc32c("") == 0u);
    REQUIRE(crc32c("56789", crc32c("1234")) == crc32c("123456789"));
}

TEST_CASE("durations and sizes need a unit and refuse nonsense", "[base]") {
    REQUIRE(*parse_duration_ms("250ms") == 250);
    REQUIRE(*parse_duration_ms("1.5s") == 1500);
    REQUIRE(*parse_duration_ms("5m") == 300'000);
    REQUIRE(*parse_duration_ms("24h") == 86'400'000);
    REQUIRE(*parse_duration_ms("0") == 0);
    for (const char* text : {"", "10", "s", "-1s", "1x", "nan s", "1e300h", "10 s"})
        REQUIRE_FALSE(parse_duration_ms(text).has_value());
    REQUIRE(*parse_size("4096") == 4096);
    REQUIRE(*parse_size("32MB") == 32'000'000);
    REQUIRE(*parse_size("64MiB") == 64ull << 20);
    for (const char* text : {"", "MiB", "-1", "1XB", "inf"})
        REQUIRE_FALSE(parse_size(text).has_value());
}

TEST_CASE("an incomplete UTF-8 tail is told from a whole character", "[base]") {
    const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80";  // a é € 😀
    const std::set<size_t> whole{0, 1, 3, 6, 10};
    for (size_t n = 0; n <= text.size(); ++n) {
        const size_t prefix = utf8_complete_prefix(std::string_view(text).substr(0, n));
        REQUIRE(whole.count(prefix) == 1);
        REQUIRE(n - prefix <= 3);
    }
    REQUIRE(utf8_valid(text));
    REQUIRE_FALSE(utf8_valid("\xC0\x80"));
    REQUIRE_FALSE(utf8_valid("\xED\xA0\x80"));
}

TEST_CASE("JSON that is written is one line and escapes what could break a frame or a page",
          "[base]") {
    std::string out;
    JsonWriter(out)
        .object()
        .field("a\n\"", "x\r\n\t\\</script>\x01\xE2\x80\xA8")
        .key("n")
        .array()
        .number(-5)
        .number(uint64_t{18446744073709551615u})
        .number(0.5)
        .number(1.0 / 0.0)
        .boolean(true)
        .null()
        .end()
        .key("o")
        .object()
        .end()
        .end();
    REQUIRE(out ==
            "{\"a\\n\\\"\":\"x\\r\\n\\t\\\\\\u003c/"
            "script>\\u0001\\u2028\",\"n\":[-5,18446744073709551615,0.5,null,true,null],\"o\":{}}");
}

TEST_CASE("a log line is logfmt: user bytes cannot forge a field or a line", "[base]") {
    const std::string line = log_line(Level::info, "x.y",
                                      {{"plain", "abc"},
                                       {"number", 42},
                                       {"evil", "a\nlevel=error b=\"c\""},
                                       {"empty", ""},
                                       {"long", std::string(2000, 'z')}});
    REQUIRE(line.rfind("level=info event=x.y plain=abc number=42 evil=\"a\\nlevel=error "
                       "b=\\\"c\\\"\" empty=\"\" long=",
                       0) == 0);
    REQUIRE(line.find('\n') == std::string::npos);
    REQUIRE(line.size() < 800);
}

TEST_CASE("a file is replaced whole, and a lock has one holder", "[base]") {
    char name[] = "/tmp/parley-file-XXXXXX";
    const std::string folder = ::mkdtemp(name);
    const std::string path = folder + "/f";
    REQUIRE(write_file(path, "one", 0600).has_value());
    REQUIRE(write_file(path, "two", 0600).has_value());
    REQUIRE(*read_file(path) == "two");
    struct stat info {};
    REQUIRE(::stat(path.c_str(), &info) == 0);
    REQUIRE((info.st_mode & 0777) == 0600);
    REQUIRE(read_file(path, 2).error().code == Errc::too_large);
    REQUIRE(read_file(folder + "/none").error().code == Errc::not_found);
    REQUIRE(write_file(folder + "/no/such/place", "x").error().code == Errc::not_found);
    REQUIRE(make_dirs(folder + "/a/b/c").has_value());
    REQUIRE(make_dirs(folder + "/a/b/c").has_value());
    REQUIRE(make_dirs(path + "/under-a-file").error().code == Errc::not_found);
    auto lock = LockFile::take(folder + "/lock");
    REQUIRE(lock.has_value());
    const auto second = LockFile::take(folder + "/lock");
    REQUIRE(second.error().code == Errc::conflict);
    REQUIRE(second.error().what.find(std::to_string(::getpid())) != std::string::npos);
}

TEST_CASE("every error code has a sysexits status and a name", "[base]") {
    for (int code = 0; code <= static_cast<int>(Errc::cancelled); ++code) {
        REQUIRE(std::string(name(static_cast<Errc>(code))).size() > 1);
        const int status = exit_status(static_cast<Errc>(code));
        REQUIRE(status >= 64);
        REQUIRE(status <= 78);
    }
    REQUIRE(exit_status(Errc::usage) == 64);
    REQUIRE(exit_status(Errc::config) == 78);
}
