// TlsContext: a certificate and its key, ready for handshakes; can be reloaded while it serves.
//
// Owns     the OpenSSL context; connections keep the one that they began with.
// Errors   Errc::not_found or config when a file cannot be read, is not PEM, or key and certificate
//          do not belong together; a failed reload keeps the old pair.
// Bounds   TLS 1.2 and later, no session cache, no renegotiation, no compression.
// Threads  the loop's.
#pragma once

#include <memory>
#include <string>

#include "base/result.hpp"

typedef struct ssl_ctx_st SSL_CTX;

namespace parley::http {

class TlsContext {
  public:
    // PEM files; the certificate's may hold its chain after it.
    static base::Result<std::shared_ptr<TlsContext>> load(std::string certificate_file,
                                                          std::string key_file);
    base::Result<void> reload();
    SSL_CTX* native() const { return context_.get(); }

  private:
    TlsContext(std::string certificate_file, std::string key_file)
        : certificate_file_(std::move(certificate_file)), key_file_(std::move(key_file)) {}
    std::string certificate_file_;
    std::string key_file_;
    std::shared_ptr<SSL_CTX> context_;
};

}  // namespace parley::http
