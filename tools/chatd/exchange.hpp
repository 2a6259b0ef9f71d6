// Exchange: one HTTP request and its answer: ids, headers, errors, the access log.
//
// Answers exactly once: reply(), error(), or begin_sse() and end(). Holds no user text in its log.
// Threads  the loop's.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "app.hpp"
#include "auth.hpp"
#include "http/server.hpp"
#include "messages/error.hpp"
#include "openai/chat_answer.hpp"

namespace parley::chatd {

using HeaderList = std::vector<std::pair<std::string, std::string>>;

// In whose words a route answers; `both`: a body that either SDK reads.
enum class Dialect : uint8_t { messages, openai, both };

// content-type, request-id, x-request-id, and what the error's status calls for.
http::Response json_response(int status, std::string json, std::string_view request_id);
http::Response error_response(const messages::ApiError& error, std::string_view request_id,
                              Dialect dialect = Dialect::messages);
std::string new_request_id();

class Exchange {
  public:
    Exchange(App& app, http::Request request, http::Writer writer, std::string route);

    void reply(int status, std::string json);
    void reply(http::Response response);
    void error(const messages::ApiError& error);
    // 200 and the headers of an event stream.
    void begin_sse();
    void begin_lines();  // 200 and the headers of JSON lines
    // 101; see http/server.hpp. end() and gone() as ever.
    bool upgrade(HeaderList headers, std::function<void(std::string_view)> on_bytes);
    void end();
    void gone();  // the client left before its answer's end
    void note(std::string key, double value) { notes_.emplace_back(std::move(key), value); }

    App& app;
    http::Request request;
    http::Writer writer;
    std::string route;
    std::string request_id;
    Dialect dialect = Dialect::messages;
    std::optional<openai::Chunks> chunks;  // of a chat completion: what its stream's events become
    int64_t created_s = 0;                 // of a chat completion, as its answer says it
    Caller caller;
    HeaderList more_headers;  // of the answer, whatever it is: what limits say
    int64_t since_ns = 0;

  private:
    void log(int status);
    bool logged_ = false;
    int status_ = 0;
    std::vector<std::pair<std::string, double>> notes_;
};
using ExchangePtr = std::shared_ptr<Exchange>;

}  // namespace parley::chatd
