#include "http/tls.hpp"

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <unistd.h>

namespace parley::http {
namespace {

std::string reason() {
    const unsigned long code = ERR_get_error();
    ERR_clear_error();
    const char* text = code ? ERR_reason_error_string(code) : nullptr;
    return text ? text : "unknown error";
}

// Only http/1.1 is spoken; a client that offers other protocols as well is told so.
int choose_protocol(SSL*, const unsigned char** out, unsigned char* out_size,
                    const unsigned char* offered, unsigned offered_size, void*) {
    static constexpr unsigned char kHttp11[] = "\x08http/1.1";
    unsigned char* chosen = nullptr;
    if (SSL_select_next_proto(&chosen, out_size, kHttp11, sizeof kHttp11 - 1, offered,
                              offered_size) != OPENSSL_NPN_NEGOTIATED)
        return SSL_TLSEXT_ERR_NOACK;
    *out = chosen;
    return SSL_TLSEXT_ERR_OK;
}

base::Result<std::shared_ptr<SSL_CTX>> make(const std::string& certificate_file,
                                            const std::string& key_file) {
    for (const std::string& path : {certificate_file, key_file})
        if (::access(path.c_str(), R_OK) != 0)
            return base::fail(base::errno_error(errno, "cannot read '" + path + "'"));
    ERR_clear_error();
    std::shared_ptr<SSL_CTX> context(SSL_CTX_new(TLS_server_method()), SSL_CTX_free);
    if (!context) return base::fail(base::Errc::internal, "cannot make a TLS context: " + reason());
    SSL_CTX* const c = context.get();
    SSL_CTX_set_min_proto_version(c, TLS1_2_VERSION);
    SSL_CTX_set_mode(c, SSL_MODE_RELEASE_BUFFERS | SSL_MODE_ENABLE_PARTIAL_WRITE |
                            SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER);
    SSL_CTX_set_session_cache_mode(c, SSL_SESS_CACHE_OFF);
    SSL_CTX_set_num_tickets(c, 0);
    SSL_CTX_set_options(c, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION | SSL_OP_NO_TICKET |
                               SSL_OP_CIPHER_SERVER_PREFERENCE | SSL_OP_IGNORE_UNEXPECTED_EOF);
    SSL_CTX_set_alpn_select_cb(c, choose_protocol, nullptr);
    if (SSL_CTX_use_certificate_chain_file(c, certificate_file.c_str()) != 1)
        return base::fail(base::Errc::config,
                          "cannot use certificate '" + certificate_file + "': " + reason());
    if (SSL_CTX_use_PrivateKey_file(c, key_file.c_str(), SSL_FILETYPE_PEM) != 1)
        return base::fail(base::Errc::config, "cannot use key '" + key_file + "': " + reason());
    if (SSL_CTX_check_private_key(c) != 1)
        return base::fail(base::Errc::config, "key '" + key_file + "' does not belong to '" +
                                                  certificate_file + "': " + reason());
    return context;
}

}  // namespace

base::Result<std::shared_ptr<TlsContext>> TlsContext::load(std::string certificate_file,
                                                           std::string key_file) {
    std::shared_ptr<TlsContext> tls(
        new TlsContext(std::move(certificate_file), std::move(key_file)));
    if (auto done = tls->reload(); !done) return base::fail(done.error());
    return tls;
}

base::Result<void> TlsContext::reload() {
    auto context = make(certificate_file_, key_file_);
    if (!context) return base::fail(context.error());
    context_ = std::move(*context);
    return {};
}

}  // namespace parley::http
