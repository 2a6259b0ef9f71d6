#include "base/result.hpp"

#include <sysexits.h>

#include <cctype>
#include <cerrno>
#include <cstring>

namespace parley::base {

const char* name(Errc code) noexcept {
    switch (code) {
        case Errc::invalid:
            return "invalid";
        case Errc::usage:
            return "usage";
        case Errc::not_found:
            return "not_found";
        case Errc::unavailable:
            return "unavailable";
        case Errc::internal:
            return "internal";
        case Errc::io:
            return "io";
        case Errc::again:
            return "again";
        case Errc::config:
            return "config";
        case Errc::conflict:
            return "conflict";
        case Errc::too_large:
            return "too_large";
        case Errc::denied:
            return "denied";
        case Errc::unsupported:
            return "unsupported";
        case Errc::corrupt:
            return "corrupt";
        case Errc::timeout:
            return "timeout";
        case Errc::cancelled:
            return "cancelled";
    }
    return "internal";
}

int exit_status(Errc code) noexcept {
    switch (code) {
        case Errc::usage:
            return EX_USAGE;
        case Errc::not_found:
            return EX_NOINPUT;
        case Errc::unavailable:
            return EX_UNAVAILABLE;
        case Errc::internal:
            return EX_SOFTWARE;
        case Errc::io:
            return EX_IOERR;
        case Errc::again:
        case Errc::timeout:
        case Errc::cancelled:
            return EX_TEMPFAIL;
        case Errc::config:
            return EX_CONFIG;
        case Errc::denied:
            return EX_NOPERM;
        case Errc::invalid:
        case Errc::conflict:
        case Errc::too_large:
        case Errc::unsupported:
        case Errc::corrupt:
            return EX_DATAERR;
    }
    return EX_SOFTWARE;
}

Error errno_error(int number, std::string doing) {
    Errc code = Errc::io;
    if (number == ENOENT || number == ENOTDIR) code = Errc::not_found;
    if (number == EACCES || number == EPERM) code = Errc::denied;
    if (number == EAGAIN || number == ENOSPC || number == EMFILE || number == ENFILE)
        code = Errc::again;
    std::string text = std::strerror(number);
    if (!text.empty())
        text[0] = static_cast<char>(std::tolower(static_cast<unsigned char>(text[0])));
    return Error{code, std::move(doing) + ": " + text};
}

}  // namespace parley::base
