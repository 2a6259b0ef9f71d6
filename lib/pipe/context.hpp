// Context: the process's ZeroMQ context, made after any fork, and CURVE for what leaves the
// machine.
//
// Threads  links of one context may live on different threads; each link on one.
// Errors   key files: Errc::config when readable by others or malformed.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace parley::pipe {

// Keys are Z85 text of 40 characters, as zmq_curve_keypair makes them.
struct CurveOptions {
    std::string secret_key;            // ours
    std::string public_key;            // ours
    std::string server_key;            // connecting: the binder's public key
    std::vector<std::string> allowed;  // binding: public keys of the clients that get in
    bool empty() const { return secret_key.empty(); }
};

struct CurvePair {
    std::string public_key, secret_key;
};
CurvePair make_curve_pair();
// Reads a secret key file (0600: one line of Z85) and derives the public key.
base::Result<CurvePair> read_curve_pair(const std::string& path);

class Context {
  public:
    Context();
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;

    struct Impl;
    Impl& impl() { return *impl_; }

  private:
    std::unique_ptr<Impl> impl_;
};

}  // namespace parley::pipe
