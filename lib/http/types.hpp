// Types: a request and a response, free of HTTP/1.1 detail, so that another version of the protocol
// could stand behind the same handler.
//
// Threads  values.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace parley::http {

class BodyFile;

// In order of arrival; names compare without regard to case and are kept in lower case.
class Headers {
  public:
    struct Field {
        std::string name;
        std::string value;
    };
    void add(std::string_view name, std::string_view value);
    const std::string* find(std::string_view name) const;  // the first; nullptr when absent
    std::string_view get(std::string_view name, std::string_view fallback = "") const;
    bool has(std::string_view name) const { return find(name) != nullptr; }
    size_t count(std::string_view name) const;
    // All values of a name, joined by ", ": for list headers that came repeated.
    std::string joined(std::string_view name) const;
    const std::vector<Field>& fields() const { return fields_; }

  private:
    std::vector<Field> fields_;
};

bool equal_ignoring_case(std::string_view a, std::string_view b);

struct Request {
    std::string method;  // as sent: "GET"
    std::string target;  // as sent: "/v1/models/a%2Fb?limit=5"
    // Percent-decoded, without the query. A trailing slash is the same path and is gone, but "/".
    std::string path;
    // The path between its slashes, each piece decoded by itself: {"v1", "models", "a/b"}.
    std::vector<std::string> segments;
    std::vector<std::pair<std::string, std::string>> query;  // decoded, in order
    Headers headers;
    std::string body;
    std::shared_ptr<BodyFile> body_file;  // where the head's decision asked for it: body is empty then
    std::string peer;  // the address alone: "127.0.0.1"; "unix" on a socket in the file system
    bool tls = false;

    // The first of that name; nullopt when absent.
    std::optional<std::string_view> query_value(std::string_view name) const;
};

struct Response {
    int status = 200;
    std::vector<std::pair<std::string, std::string>> headers;
    std::string body;

    Response& header(std::string name, std::string value) {
        headers.emplace_back(std::move(name), std::move(value));
        return *this;
    }
    static Response json(int status, std::string body) {
        return {status, {{"content-type", "application/json"}}, std::move(body)};
    }
    static Response text(int status, std::string body) {
        return {status, {{"content-type", "text/plain; charset=utf-8"}}, std::move(body)};
    }
};

}  // namespace parley::http
