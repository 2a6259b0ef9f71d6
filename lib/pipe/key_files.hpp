// Key files: the public keys that a binding socket lets in, one a line of 40 characters of Z85.
//
// Errors   Errc::config: a line that is no key (its number is named), or no key at all, which would
//          lock everybody out.
// Threads  any.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"

namespace parley::pipe {

base::Result<std::vector<std::string>> read_allowed_keys(const std::string& path);

}  // namespace parley::pipe
