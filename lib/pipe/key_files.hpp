// Key files: the secret key of one program, and the public keys that a binding socket lets in, one a
// line of 40 characters of Z85.
//
// Errors   Errc::config: a line that is no key (its number is named), or no key at all, which would
//          lock everybody out. Errc::conflict: a key is there already, none is ever written over.
// Threads  any.
#pragma once

#include <string>
#include <vector>

#include "base/result.hpp"
#include "pipe/context.hpp"

namespace parley::pipe {

base::Result<std::vector<std::string>> read_allowed_keys(const std::string& path);
// A new pair: the secret key into `path` (0600), the public one into `path`.pub, a line each, so that
// lists of keys are made with cat. Returns the pair.
base::Result<CurvePair> make_key_files(const std::string& path);

}  // namespace parley::pipe
