// Outgoing: requests to addresses that users have named, and mail to the operator's own server.
//
// Why curl     an HTTP and SMTP client is no part of what parley is for; libcurl is kept well, and its
//              socket callback sees the very address that will be connected to.
// Guard        a user's URL is resolved, and the socket is opened to the checked address or not at all:
//              loopback, private, link-local, shared, multicast and reserved addresses, also inside IPv6
//              (mapped, NAT64, 6to4, Teredo), are refused unless `allow_private`. No redirect is
//              followed, no proxy is used, nothing but http and https is spoken.
// Bounds       requests_max at once (submit: false beyond), timeout_ms each, 64 KiB of an answer are read.
// Threads      one; `done` is called from step().
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"

struct sockaddr;

namespace parley::notify {

// May a user's URL lead there?
bool is_public(const sockaddr& address);

struct OutgoingOptions {
    bool allow_private = false;
    int64_t timeout_ms = 10'000;
    size_t requests_max = 32;
    // SMTP
    std::string smtp_url;            // smtp://host:port, smtps://…
    std::string smtp_from;           // address
    std::string starttls = "try";    // no, try, required
    std::string smtp_user, smtp_password;
    std::string ca_file;             // "" = the system's
};

struct Reply {
    int status = 0;  // of HTTP or SMTP; 0: there was no answer
    int64_t retry_after_ms = 0;
    std::string why;       // for the log, no secret in it
    bool refused = false;  // by the guard: no retry will help
    bool ok() const { return status >= 200 && status < 300; }
};

class Outgoing {
  public:
    using Done = std::function<void(const Reply&)>;
    explicit Outgoing(OutgoingOptions options);
    ~Outgoing();
    bool post(const std::string& url, const std::vector<std::string>& headers, std::string body,
              Done done);
    // `message`: RFC 5322 text with CRLF.
    bool mail(const std::string& to, std::string message, Done done);
    // Goes on with what runs; waits at most wait_ms for something to happen, or extra_fd (or -1).
    void step(int wait_ms, int extra_fd);
    size_t running() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::notify
