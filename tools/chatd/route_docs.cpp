// /docs and /openapi.json: what chatd serves, told from the table of routes, so that neither can lack one.
#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <map>

#include "base/json.hpp"
#include "routes.hpp"

namespace parley::chatd {

namespace {

constexpr std::string_view kSse = "text/event-stream";

constexpr std::string_view kSchemas =
#include "openapi_schemas.inc"
    ;

// "/v1/models/{id}"
std::string path_of(const Route& route) {
    if (route.pattern.empty()) return "/";
    std::string path;
    int ids = 0;
    for (const std::string_view segment : route.pattern) {
        path += '/';
        if (segment != "*")
            path += segment;
        else
            path += ids++ == 0 ? "{id}" : "{message_id}";
    }
    return path;
}

void write_schema(base::JsonWriter& w, std::string_view name) {
    w.key("schema").object().field("$ref", "#/components/schemas/" + std::string(name)).end();
}

void write_media(base::JsonWriter& w, std::string_view media, std::string_view schema) {
    w.key(media).object();
    if (media == "application/json" && !schema.empty())
        write_schema(w, schema);
    else
        w.key("schema").object().field("type", "string").end();
    w.end();
}

void write_error(base::JsonWriter& w, std::string_view status, std::string_view what,
                 Dialect dialect) {
    w.key(status).object().field("description", what).key("content").object();
    write_media(w, "application/json", dialect == Dialect::openai ? "ChatError" : "Error");
    w.end().end();
}

void write_parameter(base::JsonWriter& w, std::string_view name, std::string_view in,
                     bool required) {
    w.object().field("name", name).field("in", in).field("required", required);
    w.key("schema").object().field("type", "string").end().end();
}

void write_parameters(base::JsonWriter& w, const Route& route, const Served& served) {
    w.key("parameters").array();
    int ids = 0;
    for (const std::string_view segment : route.pattern)
        if (segment == "*") write_parameter(w, ids++ == 0 ? "id" : "message_id", "path", true);
    for (std::string_view left = served.parameters; !left.empty();) {
        const size_t space = std::min(left.find(' '), left.size());
        write_parameter(w, left.substr(0, space), "query", false);
        left.remove_prefix(std::min(space + 1, left.size()));
    }
    if (route.pattern.size() > 1 && route.pattern[1] == "messages") {
        w.object().field("name", "anthropic-version").field("in", "header");
        w.field("required", route.name != "message_stream").key("schema").object();
        w.field("type", "string").key("enum").array();
        for (const std::string_view version : {"2023-06-01", "2026-10-21"}) w.string(version);
        w.end().end().end();
    }
    w.end();
}

void write_operation(base::JsonWriter& w, const Route& route, const Served& served, size_t twins) {
    std::string lower(served.method);
    for (char& c : lower) c = static_cast<char>(c | 0x20);
    std::string id = lower + "_" + std::string(route.name);
    if (twins > 0)
        id += "_" + std::to_string(twins + 1);  // names must differ, routes may share one
    w.key(lower).object().field("operationId", id).field("summary", served.summary);
    write_parameters(w, route, served);
    if (!served.request.empty()) {
        w.key("requestBody").object().field("required", true).key("content").object();
        write_media(w, "application/json", served.request);
        w.end().end();
    }
    w.key("responses").object();
    w.key(std::to_string(served.status))
        .object()
        .field("description", "As asked.")
        .key("content")
        .object();
    write_media(w, served.media, served.response);
    if (served.stream) write_media(w, kSse, "");
    w.end().end();
    if (!route.open) {
        write_error(w, "400", "Malformed, or not supported.", route.dialect);
        write_error(w, "401", "No key, or a wrong one.", route.dialect);
    }
    write_error(w, "default", "Any other refusal.", route.dialect);
    w.end();
    if (route.open) w.key("security").array().end();
    w.end();
}

// The paths in the order of the table; several routes may share a path.
std::vector<std::pair<std::string, std::vector<const Route*>>> paths() {
    std::vector<std::pair<std::string, std::vector<const Route*>>> out;
    for (const Route& route : all_routes()) {
        const std::string path = path_of(route);
        auto at = out.begin();
        while (at != out.end() && at->first != path) ++at;
        if (at == out.end()) at = out.insert(out.end(), {path, {}});
        at->second.push_back(&route);
    }
    return out;
}

std::string make_openapi() {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("openapi", "3.1.0").key("info").object().field("title", "parley");
    w.field("version", PARLEY_VERSION).field("description", "The HTTP front of parley: chatd(8).");
    w.end().key("security").array();
    w.object().key("key").array().end().end().object().key("bearer").array().end().end().end();
    w.key("paths").object();
    std::map<std::string_view, size_t> seen;  // routes of one name so far
    for (const auto& [path, routes] : paths()) {
        w.key(path).object();
        for (const Route* route : routes) {
            const size_t twins = seen[route->name]++;
            for (const Served& served : route->methods) write_operation(w, *route, served, twins);
        }
        w.end();
    }
    w.end().key("components").object().key("securitySchemes").object();
    w.key("key").object().field("type", "apiKey").field("in", "header").field("name", "x-api-key");
    w.end().key("bearer").object().field("type", "http").field("scheme", "bearer").end().end();
    simdjson::dom::parser parser;
    w.key("schemas").raw(simdjson::minify(parser.parse(kSchemas))).end().end();
    return out;
}

std::string escaped(std::string_view text) {
    std::string out;
    for (const char c : text) {
        if (c == '<')
            out += "&lt;";
        else if (c == '&')
            out += "&amp;";
        else
            out += c;
    }
    return out;
}

std::string schema_link(std::string_view name) {
    return name.empty() ? "" : fmt::format("<a href=\"#{0}\">{0}</a>", name);
}

std::string make_page() {
    std::string out =
        "<!doctype html><html lang=en><meta charset=utf-8><title>parley: the interface</title>"
        "<meta name=viewport content=\"width=device-width\"><style>"
        "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;"
        "color:#222;background:#fff}h2{font-size:1.1em;margin:1.5em 0 .2em}code,pre{font:14px/1.4 "
        "ui-monospace,monospace}pre{background:#f4f4f4;padding:.6em;white-space:pre-wrap;"
        "overflow-wrap:anywhere}b{display:inline-block;min-width:4.5em}a{color:#06c}"
        "@media(prefers-color-scheme:dark){body{color:#ddd;background:#181818}"
        "pre{background:#242424}a{color:#7bf}}</style><h1>parley: the interface</h1><p>A key goes "
        "into <code>x-api-key</code> or <code>Authorization: Bearer</code>. The same as a document "
        "for programs: <a href=\"/openapi.json\">/openapi.json</a>. See also chatd(8).</p>";
    for (const auto& [path, routes] : paths()) {
        out += fmt::format("<h2><code>{}</code></h2>", escaped(path));
        for (const Route* route : routes)
            for (const Served& served : route->methods) {
                out += fmt::format("<p><b>{}</b>{}{}", served.method, escaped(served.summary),
                                   route->open ? " No key." : "");
                if (!served.request.empty()) out += " Takes " + schema_link(served.request) + ".";
                out += fmt::format(" Gives {}{}.",
                                   served.media == "application/json" ? schema_link(served.response)
                                                                      : escaped(served.media),
                                   served.stream ? " or " + escaped(kSse) : "");
                if (!served.parameters.empty())
                    out += fmt::format(" Query: <code>{}</code>.", escaped(served.parameters));
                out += "</p>";
            }
    }
    out += "<h1>Bodies</h1>";
    simdjson::dom::parser parser;
    simdjson::dom::object schemas;
    if (!parser.parse(kSchemas).get(schemas))
        for (const auto field : schemas)
            out += fmt::format("<h2 id=\"{0}\">{0}</h2><pre>{1}</pre>", field.key,
                               escaped(simdjson::to_string(field.value)));
    return out;
}

}  // namespace

void get_openapi(const ExchangePtr& exchange) {
    static const std::string document = make_openapi();
    exchange->reply(200, document);
}

void get_docs(const ExchangePtr& exchange) {
    static const std::string page = make_page();
    http::Response response = http::Response::text(200, page);
    response.headers = {{"content-type", "text/html; charset=utf-8"},
                        {"content-security-policy",
                         "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; "
                         "form-action 'none'; frame-ancestors 'none'"},
                        {"x-content-type-options", "nosniff"},
                        {"referrer-policy", "no-referrer"},
                        {"request-id", exchange->request_id},
                        {"x-request-id", exchange->request_id}};
    exchange->reply(std::move(response));
}

}  // namespace parley::chatd
