#include "page.hpp"

#include <array>

#include "base/text.hpp"
#include "routes.hpp"

// The assembler reads the files: no array of numbers for the compiler, no script for the build.
#define PARLEY_EMBED(symbol, file)                                    \
    asm(".section .rodata\n"                                          \
        ".global parley_web_" #symbol "\n.global parley_web_" #symbol \
        "_end\n"                                                      \
        "parley_web_" #symbol ":\n.incbin \"" PARLEY_WEB_DIR "/" file \
        "\"\n"                                                        \
        "parley_web_" #symbol "_end:\n.byte 0\n.previous\n");         \
    extern "C" const char parley_web_##symbol[];                      \
    extern "C" const char parley_web_##symbol##_end[];

PARLEY_EMBED(index, "index.html")
PARLEY_EMBED(style, "page.css")
PARLEY_EMBED(script, "page.js")
PARLEY_EMBED(markdown, "markdown.js")
PARLEY_EMBED(net, "net.js")
PARLEY_EMBED(search, "search.js")
PARLEY_EMBED(icon, "icon.svg")
PARLEY_EMBED(operator_index, "operator.html")
PARLEY_EMBED(operator_script, "operator.js")

namespace parley::chatd {

namespace {

constexpr std::string_view kPolicy =
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'";

std::string_view between(const char* begin, const char* end) {
    return {begin, static_cast<size_t>(end - begin)};
}

void serve(const ExchangePtr& exchange, const PageFile& file) {
    const std::string tag = '"' + base::hex(base::sha256(file.bytes)).substr(0, 32) + '"';
    http::Response response;
    response.headers = {{"etag", tag},
                        {"cache-control", "no-cache"},
                        {"content-security-policy", std::string(kPolicy)},
                        {"x-content-type-options", "nosniff"},
                        {"x-frame-options", "DENY"},
                        {"referrer-policy", "no-referrer"},
                        {"cross-origin-opener-policy", "same-origin"},
                        {"cross-origin-resource-policy", "same-origin"},
                        {"request-id", exchange->request_id},
                        {"x-request-id", exchange->request_id}};
    if (exchange->request.headers.get("if-none-match") == tag) {
        response.status = 304;
    } else {
        response.header("content-type", std::string(file.type));
        response.body = std::string(file.bytes);
    }
    exchange->reply(std::move(response));
}

}  // namespace

const PageFile* find_page_file(std::string_view name) {
    static const std::array<PageFile, 9> files = {{
        {"index.html", "text/html; charset=utf-8", between(parley_web_index, parley_web_index_end)},
        {"page.css", "text/css; charset=utf-8", between(parley_web_style, parley_web_style_end)},
        {"page.js", "text/javascript; charset=utf-8",
         between(parley_web_script, parley_web_script_end)},
        {"markdown.js", "text/javascript; charset=utf-8",
         between(parley_web_markdown, parley_web_markdown_end)},
        {"net.js", "text/javascript; charset=utf-8", between(parley_web_net, parley_web_net_end)},
        {"search.js", "text/javascript; charset=utf-8",
         between(parley_web_search, parley_web_search_end)},
        {"icon.svg", "image/svg+xml", between(parley_web_icon, parley_web_icon_end)},
        {"operator.html", "text/html; charset=utf-8",
         between(parley_web_operator_index, parley_web_operator_index_end)},
        {"operator.js", "text/javascript; charset=utf-8",
         between(parley_web_operator_script, parley_web_operator_script_end)},
    }};
    for (const PageFile& file : files)
        if (file.name == name) return &file;
    return nullptr;
}

void serve_page_file(const ExchangePtr& exchange, std::string_view name) {
    serve(exchange, *find_page_file(name));
}

void get_index(const ExchangePtr& exchange) { serve_page_file(exchange, "index.html"); }

void get_page_file(const ExchangePtr& exchange) {
    const PageFile* file = find_page_file(exchange->request.segments[1]);
    if (!file)
        return exchange->error(messages::ApiError::of(messages::ErrorType::not_found_error,
                                                      "this path does not exist"));
    serve(exchange, *file);
}

}  // namespace parley::chatd
