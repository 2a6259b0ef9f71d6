#include "http/tls.hpp"

#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <fstream>

#include "http/raw_client.hpp"
#include "http/test_server.hpp"

using raw::RawClient;

namespace {

// A self-signed pair in files, made anew for each test.
struct Pair {
    std::string folder;
    std::string certificate = "/cert.pem";
    std::string key = "/key.pem";

    Pair() {
        char name[] = "/tmp/parley-tls-XXXXXX";
        folder = ::mkdtemp(name);
        certificate = folder + certificate;
        key = folder + key;
        write("first");
    }
    ~Pair() { std::filesystem::remove_all(folder); }
    void write(const std::string& common_name) {
        EVP_PKEY* pkey = EVP_EC_gen("P-256");
        X509* x509 = X509_new();
        ASN1_INTEGER_set(X509_get_serialNumber(x509), 1);
        X509_gmtime_adj(X509_getm_notBefore(x509), 0);
        X509_gmtime_adj(X509_getm_notAfter(x509), 3600);
        X509_set_pubkey(x509, pkey);
        X509_NAME* name = X509_get_subject_name(x509);
        X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                                   reinterpret_cast<const unsigned char*>(common_name.c_str()), -1,
                                   -1, 0);
        X509_set_issuer_name(x509, name);
        X509_sign(x509, pkey, EVP_sha256());
        FILE* file = std::fopen(certificate.c_str(), "w");
        PEM_write_X509(file, x509);
        std::fclose(file);
        file = std::fopen(key.c_str(), "w");
        PEM_write_PrivateKey(file, pkey, nullptr, nullptr, 0, nullptr, nullptr);
        std::fclose(file);
        X509_free(x509);
        EVP_PKEY_free(pkey);
    }
};

// A blocking TLS client on a raw socket.
struct TlsClient {
    RawClient socket;
    SSL_CTX* context = SSL_CTX_new(TLS_client_method());
    SSL* ssl = nullptr;
    bool connected = false;

    explicit TlsClient(uint16_t port, int version_max = 0) : socket(port) {
        if (version_max) SSL_CTX_set_max_proto_version(context, version_max);
        ssl = SSL_new(context);
        SSL_set_fd(ssl, socket.fd());
        connected = SSL_connect(ssl) == 1;
    }
    ~TlsClient() {
        SSL_free(ssl);
        SSL_CTX_free(context);
    }
    bool send(const std::string& bytes) {
        return SSL_write(ssl, bytes.data(), static_cast<int>(bytes.size())) ==
               static_cast<int>(bytes.size());
    }
    // Reads until the text has come, or the end.
    std::string read_until(const std::string& text) {
        std::string out;
        char bytes[16384];
        while (out.find(text) == std::string::npos) {
            const int n = SSL_read(ssl, bytes, sizeof bytes);
            if (n <= 0) break;
            out.append(bytes, static_cast<size_t>(n));
        }
        return out;
    }
    std::string common_name() {
        X509* x509 = SSL_get1_peer_certificate(ssl);
        if (!x509) return "";
        char name[64] = "";
        X509_NAME_get_text_by_NID(X509_get_subject_name(x509), NID_commonName, name, sizeof name);
        X509_free(x509);
        return name;
    }
};

std::string get(const std::string& target) {
    return "GET " + target + " HTTP/1.1\r\nHost: a\r\n\r\n";
}

}  // namespace

TEST_CASE("TLS carries the same requests, bodies and streams", "[tls]") {
    const Pair pair;
    auto context = http::TlsContext::load(pair.certificate, pair.key);
    REQUIRE(context);
    TestServer server({}, *context);
    for (const int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
        TlsClient client(server.port, version);
        REQUIRE(client.connected);
        CHECK(SSL_version(client.ssl) == version);
        REQUIRE(client.send(get("/hello")));
        CHECK(client.read_until("GET /hello:").ends_with("GET /hello:"));
        REQUIRE(client.send(get("/stream") + get("/next")));
        const std::string both = client.read_until("GET /next:");
        CHECK(both.find("data: 1") != std::string::npos);
        CHECK(both.ends_with("GET /next:"));
        const std::string big(3 << 20, 'b');
        REQUIRE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " +
                            std::to_string(big.size()) + "\r\n\r\n"));
        for (size_t at = 0; at < big.size(); at += 1 << 16)
            REQUIRE(client.send(big.substr(at, 1 << 16)));
        CHECK(client.read_until("3145728").ends_with("3145728"));
    }
}

TEST_CASE("TLS before 1.2, and no TLS at all, get no answer", "[tls]") {
    const Pair pair;
    auto context = http::TlsContext::load(pair.certificate, pair.key);
    REQUIRE(context);
    TestServer server({}, *context);
    CHECK_FALSE(TlsClient(server.port, TLS1_1_VERSION).connected);
    RawClient plain(server.port);
    REQUIRE(plain.send(get("/hello")));
    plain.read_to_end();
    CHECK(plain.ended);
    CHECK(plain.buffer.find("HTTP") == std::string::npos);
    CHECK(server.eventually([&] { return server.stats().connections == 0; }));
    CHECK(server.stats().requests_total == 0);
}

TEST_CASE("a handshake that does not come is given up", "[tls]") {
    const Pair pair;
    auto context = http::TlsContext::load(pair.certificate, pair.key);
    REQUIRE(context);
    http::Options options;
    options.handshake_ms = 200;
    TestServer server(options, *context);
    RawClient client(server.port);
    client.read_to_end();
    CHECK(client.ended);
}

TEST_CASE("back-pressure and leaving work over TLS", "[tls]") {
    const Pair pair;
    auto context = http::TlsContext::load(pair.certificate, pair.key);
    REQUIRE(context);
    TestServer server({}, *context);
    {
        TlsClient client(server.port);
        REQUIRE(client.connected);
        REQUIRE(client.send(get("/flood")));
        std::this_thread::sleep_for(std::chrono::milliseconds(100));
        size_t bytes = 0;
        char buffer[16384];
        while (bytes < 8u << 20) {
            const int n = SSL_read(client.ssl, buffer, sizeof buffer);
            if (n <= 0) break;
            bytes += static_cast<size_t>(n);
        }
        CHECK(bytes >= 8u << 20);
    }
    TlsClient client(server.port);
    REQUIRE(client.connected);
    REQUIRE(client.send(get("/hold")));
    REQUIRE(server.eventually([&] { return server.stats().requests_active == 1; }));
    client.socket.close();
    CHECK(server.eventually([&] { return server.gone == 1; }));
}

TEST_CASE("a new certificate is taken while serving; a bad one changes nothing", "[tls]") {
    Pair pair;
    auto context = http::TlsContext::load(pair.certificate, pair.key);
    REQUIRE(context);
    TestServer server({}, *context);
    TlsClient first(server.port);
    REQUIRE(first.connected);
    CHECK(first.common_name() == "first");
    pair.write("second");
    bool renewed = false;
    server.call([&] { renewed = static_cast<bool>((*context)->reload()); });
    CHECK(renewed);
    TlsClient second(server.port);
    CHECK(second.common_name() == "second");
    REQUIRE(first.send(get("/hello")));  // goes on with what it began with
    CHECK(first.read_until("GET /hello:").ends_with("GET /hello:"));
    std::ofstream(pair.key) << "nonsense";
    bool reloaded = true;
    server.call([&] { reloaded = static_cast<bool>((*context)->reload()); });
    CHECK_FALSE(reloaded);
    TlsClient third(server.port);
    CHECK(third.common_name() == "second");
}

TEST_CASE("certificates that cannot be used are refused with their name", "[tls]") {
    const Pair pair;
    const Pair other;
    const auto missing = http::TlsContext::load("/nonexistent/cert.pem", pair.key);
    REQUIRE_FALSE(missing);
    CHECK(missing.error().what.find("/nonexistent/cert.pem") != std::string::npos);
    const auto mixed = http::TlsContext::load(pair.certificate, other.key);
    REQUIRE_FALSE(mixed);
    CHECK(mixed.error().what.find(other.key) != std::string::npos);
    CHECK_FALSE(http::TlsContext::load(pair.key, pair.key));
}
