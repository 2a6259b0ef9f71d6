// Cors: what browsers are told about pages of other origins (Fetch standard, "CORS protocol").
//
// Off      without --cors-origin: no header, and OPTIONS is 405 as any other method that a path lacks.
// Whom     the origins that --cors-origin names, exactly, or all by "*". A page elsewhere has an API key;
//          cookies are never offered to it (no access-control-allow-credentials), and "*" grants no more.
// Another  origin gets its answer without these headers: its browser keeps it from the page.
#pragma once

#include <string>
#include <vector>

#include "exchange.hpp"

namespace parley::chatd {

// For any answer to a request with this head; nothing without CORS. Says `vary: origin` where it depends.
HeaderList cors_headers(const std::vector<std::string>& origins, const http::Request& head);
// The same, in an answer that is being made.
void add_cors(const std::vector<std::string>& origins, const http::Request& head,
              http::Response& response);
// The answer to OPTIONS: 204. `methods` of the path; empty: a path that is none.
http::Response preflight(const std::vector<std::string>& origins, const http::Request& head,
                         const std::vector<std::string_view>& methods);
// "*" or SCHEME://HOST[:PORT] without a path.
bool is_cors_origin(const std::string& text);

}  // namespace parley::chatd
