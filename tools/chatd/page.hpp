// Page: the files of the web page, compiled in: what is served is what was built, and nothing else.
//
// Source   tools/chatd/web/, as it stands: no build step.
// Headers  a content security policy that lets the page load its own files and talk to us, and lets no
//          string become markup or script (Trusted Types); no other site may frame it.
// Cache    kept by the browser and asked for again each time (ETag: 304), so that page and server match.
#pragma once

#include <string_view>

#include "exchange.hpp"

namespace parley::chatd {

struct PageFile {
    std::string_view name;  // index.html, page.js …
    std::string_view type;
    std::string_view bytes;
};
const PageFile* find_page_file(std::string_view name);
// Answers with one that there is.
void serve_page_file(const ExchangePtr& exchange, std::string_view name);

}  // namespace parley::chatd
