#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <catch2/catch.hpp>
#include <cstring>

#include "base/file.hpp"
#include "base/text.hpp"
#include "notify/notifier.hpp"
#include "notify/outgoing.hpp"
#include "notify/settings.hpp"
#include "notify/web_push.hpp"
#include "store/fixture.hpp"

namespace parley::notify {
namespace {

using base::Errc;
using store::TempDir;

bool public_address(const char* text) {
    sockaddr_in v4{};
    sockaddr_in6 v6{};
    if (::inet_pton(AF_INET, text, &v4.sin_addr) == 1) {
        v4.sin_family = AF_INET;
        return is_public(reinterpret_cast<const sockaddr&>(v4));
    }
    REQUIRE(::inet_pton(AF_INET6, text, &v6.sin6_addr) == 1);
    v6.sin6_family = AF_INET6;
    return is_public(reinterpret_cast<const sockaddr&>(v6));
}

// A browser's keys that can be parsed: the public half of some key.
std::string some_point(const std::string& folder) {
    return VapidKey::open(folder + "/browser.pem")->public_key();
}

}  // namespace

TEST_CASE("Only addresses of the open internet are public") {
    for (const char* text :
         {"0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "100.64.0.1", "100.127.255.255",
          "127.0.0.1", "127.255.255.255", "169.254.169.254", "172.16.0.1", "172.31.255.255",
          "192.0.0.8", "192.0.2.1", "192.168.1.1", "198.18.0.1", "198.19.255.255", "198.51.100.7",
          "203.0.113.9", "224.0.0.1", "240.0.0.1", "255.255.255.255", "::", "::1",
          "::ffff:127.0.0.1", "::ffff:10.1.2.3", "::127.0.0.1", "64:ff9b::7f00:1",
          "64:ff9b::a9fe:a9fe", "2002:7f00:1::", "2002:c0a8:101::1", "2001::1", "2001:db8::1",
          "fc00::1", "fd12::1", "fe80::1", "fec0::1", "ff02::1", "100::1"}) {
        INFO(text);
        CHECK_FALSE(public_address(text));
    }
    for (const char* text :
         {"1.1.1.1", "9.255.255.255", "11.0.0.1", "100.63.255.255", "100.128.0.0", "126.255.255.255",
          "128.0.0.1", "169.253.255.255", "172.15.255.255", "172.32.0.1", "192.167.255.255",
          "223.255.255.255", "2606:4700::1", "2a00:1450::1", "::ffff:8.8.8.8", "64:ff9b::808:808",
          "2002:808:808::1"}) {
        INFO(text);
        CHECK(public_address(text));
    }
    sockaddr other{};
    other.sa_family = AF_UNIX;
    CHECK_FALSE(is_public(other));
}

TEST_CASE("Settings take what is given, keep what is not, and lose what is null") {
    TempDir dir;
    Settings settings;
    std::optional<std::string> made;
    REQUIRE(settings.put(R"({"webhook":{"url":"https://a.example/x"}})", made));
    REQUIRE(made);
    CHECK(made->size() > 40);
    CHECK(settings.webhook->secret == *made);
    const std::string secret = *made;
    made.reset();
    const std::string push = R"({"email":{"address":"ann@example.org"},"push":[{"endpoint":"https://p.example/1","keys":{"p256dh":")" +
                             some_point(dir.path()) + R"(","auth":"AAAAAAAAAAAAAAAAAAAAAA=="}}]})";
    REQUIRE(settings.put(push, made));
    CHECK(settings.webhook->secret == secret);
    // The same webhook again keeps its secret; another gets another.
    REQUIRE(settings.put(R"({"webhook":{"url":"https://a.example/x"}})", made));
    CHECK_FALSE(made);
    CHECK(settings.webhook->secret == secret);
    REQUIRE(settings.put(R"({"webhook":{"url":"https://b.example/"}})", made));
    CHECK(made.value_or("") != secret);
    CHECK(settings.json(false).find(settings.webhook->secret) == std::string::npos);
    const auto again = Settings::parse(settings.json(true));
    REQUIRE(again);
    CHECK(again->json(true) == settings.json(true));
    REQUIRE(settings.put(R"({"webhook":null,"email":null,"push":null})", made));
    CHECK(settings.empty());
}

TEST_CASE("Settings with a fault change nothing and name it") {
    Settings settings;
    std::optional<std::string> made;
    REQUIRE(settings.put(R"({"email":{"address":"ann@example.org"}})", made));
    const std::string before = settings.json(true);
    for (const char* text :
         {R"({"email":null,"webhook":{"url":"file:///etc/passwd"}})", R"({"webhook":{"url":"http://"}})",
          R"({"webhook":{"url":"http://u:p@h/"}})", R"({"webhook":{"url":"http://h/\r\nx: y"}})",
          R"({"webhook":{"url":7}})", R"({"webhook":{"url":"https://h/","secret":""}})",
          R"({"email":{"address":"-oX@h"}})", R"({"email":{"address":"a@b@c"}})",
          R"({"email":{"address":"a b@c"}})", R"({"quiet_while_connected":1})", R"({"x":1})",
          R"({"push":[{"endpoint":"https://h/","keys":{"p256dh":"AA","auth":"AA"}}]})", "[]", ""}) {
        INFO(text);
        auto put = settings.put(text, made);
        REQUIRE_FALSE(put);
        CHECK(put.error().code == Errc::invalid);
        CHECK(settings.json(true) == before);
    }
}

TEST_CASE("The signing key is made once, privately, and stays") {
    TempDir dir;
    const std::string path = dir.path() + "/vapid.pem";
    const std::string first = VapidKey::open(path)->public_key();
    CHECK(VapidKey::open(path)->public_key() == first);
    CHECK(base::unbase64url(first)->size() == 65);
    CHECK(*base::read_file(path + ".pub") == first + "\n");
    struct stat about {};
    REQUIRE(::stat(path.c_str(), &about) == 0);
    CHECK((about.st_mode & 0777) == 0600);
    REQUIRE(base::write_file(path, "garbage", 0600));
    CHECK(VapidKey::open(path).error().code == Errc::config);
}

TEST_CASE("A push is refused where the keys are none or the text is too long") {
    TempDir dir;
    const std::string point = some_point(dir.path());
    const std::string auth = base::base64url(std::string(16, 'a'));
    const auto sealed = encrypt_push("hello", point, auth);
    REQUIRE(sealed);
    CHECK(sealed->size() == 16 + 4 + 1 + 65 + 5 + 1 + 16);
    CHECK(*encrypt_push("hello", point, auth) != *sealed);  // another key and salt each time
    CHECK(encrypt_push("hello", base::base64url('\x04' + std::string(64, '\x01')), auth).error().code ==
          Errc::invalid);  // no point of the curve
    CHECK(encrypt_push("hello", "AAAA", auth).error().code == Errc::invalid);
    CHECK(encrypt_push("hello", point, "AAAA").error().code == Errc::invalid);
    CHECK(encrypt_push(std::string(kPayloadMax + 1, 'x'), point, auth).error().code ==
          Errc::too_large);
    CHECK(encrypt_push(std::string(kPayloadMax, 'x'), point, auth));
}

TEST_CASE("What an operator says wrong is told before anything is sent") {
    const auto why = [](auto change) {
        NotifierOptions options;
        options.outgoing.smtp_url = "smtp://mail.example:587";
        options.outgoing.smtp_from = "parley@example.org";
        change(options);
        const auto good = check(options);
        return good ? std::string() : good.error().what;
    };
    CHECK(why([](NotifierOptions&) {}).empty());
    CHECK(check(NotifierOptions{}));
    CHECK(why([](auto& o) { o.contact = "nobody"; }).find("--contact") == 0);
    CHECK(why([](auto& o) { o.contact = "mailto:"; }).find("--contact") == 0);
    CHECK(why([](auto& o) { o.outgoing.smtp_url = "http://x"; }).find("--smtp-url is") == 0);
    CHECK(why([](auto& o) { o.outgoing.smtp_url = "smtp://"; }).find("--smtp-url is") == 0);
    CHECK(why([](auto& o) { o.outgoing.smtp_from = ""; }).find("belong together") != std::string::npos);
    CHECK(why([](auto& o) { o.outgoing.smtp_url = ""; }).find("belong together") != std::string::npos);
    CHECK(why([](auto& o) { o.outgoing.smtp_from = "a@b>\r\nRCPT"; }).find("--smtp-from") == 0);
    CHECK(why([](auto& o) { o.outgoing.ca_file = "/no/such"; }).find("/no/such") != std::string::npos);
    CHECK(why([](auto& o) { o.retry_max_ms = 1; }).find("--retry-max") == 0);
}

TEST_CASE("HMAC-SHA256 is that of RFC 4231") {
    CHECK(base::hex(hmac_sha256("Jefe", "what do ya want for nothing?")) ==
          "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

}  // namespace parley::notify
