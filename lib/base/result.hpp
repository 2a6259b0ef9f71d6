// Result: what a correct program can meet comes back as a value.
//
// Errors   `what` reads like git's messages: lower case, the subject quoted, no full stop:
//          "cannot open 'smol.gguf': no such file". Add context once, where it is known; log or
//          return, not both. A broken invariant is a bug: assert, do not return it.
// Threads  values; nothing shared.
#pragma once

#include <string>
#include <tl/expected.hpp>
#include <utility>

namespace parley::base {

enum class Errc {
    invalid,      // bad input data                        exit 65
    usage,        // bad command line                      exit 64
    not_found,    // no such file, row, model              exit 66
    unavailable,  // a peer or service cannot be reached   exit 69
    internal,     // our own fault                         exit 70
    io,           // the disk or a socket failed           exit 74
    again,        // full or busy: try later               exit 75
    config,       // bad configuration                     exit 78
    conflict,     // a precondition did not hold           exit 65
    too_large,    // over a stated bound                   exit 65
    denied,       // not allowed                           exit 77
    unsupported,  // understood, and not offered           exit 65
    corrupt,      // stored data fails its check           exit 65
    timeout,      // a deadline passed                     exit 75
    cancelled,    // the asker went away or said so        exit 75
};

// The name as it stands in logs: "not_found".
const char* name(Errc code) noexcept;
// sysexits.h status of a program that stops because of this error.
int exit_status(Errc code) noexcept;

struct Error {
    Errc code = Errc::internal;
    std::string what;
};

template <class T>
class [[nodiscard]] Result : public tl::expected<T, Error> {
  public:
    using Base = tl::expected<T, Error>;
    using Base::Base;
    Result(Base base) : Base(std::move(base)) {}  // so that map() and and_then() still fit
};

inline tl::unexpected<Error> fail(Errc code, std::string what) {
    return tl::unexpected<Error>(Error{code, std::move(what)});
}
inline tl::unexpected<Error> fail(Error error) { return tl::unexpected<Error>(std::move(error)); }
// "context: what", same code.
inline tl::unexpected<Error> fail(std::string context, Error error) {
    error.what = std::move(context) + ": " + error.what;
    return tl::unexpected<Error>(std::move(error));
}
// errno as an Error: "cannot open 'x': no such file or directory".
Error errno_error(int number, std::string doing);

}  // namespace parley::base
