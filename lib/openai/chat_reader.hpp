// chat_reader: the walk over a chat completions body. Internal to lib/openai.
#pragma once

#include <string>
#include <string_view>

#include "base/json.hpp"
#include "messages/json_read.hpp"
#include "messages/request_reader.hpp"
#include "openai/chat_request.hpp"

namespace parley::openai {

inline constexpr std::string_view kRequired = "Field required";
inline constexpr std::string_view kString = "Input should be a valid string";
inline constexpr std::string_view kBoolean = "Input should be a valid boolean";
inline constexpr std::string_view kList = "Input should be a valid list";
inline constexpr std::string_view kObject = "Input should be an object";
inline constexpr size_t kDepthMax = 128;
// As messages::ParseOptions has them.
inline constexpr size_t kStopsMax = 256;
inline constexpr size_t kStopBytesMax = 4096;
inline constexpr size_t kMessagesMax = 100'000;
// A call's arguments stand six levels deep in the body that is written.
inline constexpr size_t kArgumentsDepthMax = kDepthMax - 8;

class ChatReader {
  public:
    explicit ChatReader(ChatRequest& out) : out_(out), w_(out.body) {}
    // false: error() says what is wrong with the types.
    bool read(messages::json::dom::object body);
    const messages::ApiError& error() const { return error_; }

  private:
    using Element = messages::json::dom::element;
    using Object = messages::json::dom::object;
    using Array = messages::json::dom::array;

    bool fail(std::string_view path, std::string_view why);
    void later(std::string_view path, std::string_view why);
    bool text(Object holder, std::string_view key, const std::string& path, std::string_view& out);

    bool read_model(Object body);
    bool read_max_tokens(Object body);
    bool read_stream(Object body);
    bool read_sampling(Object body);
    bool read_stops(Object body);
    bool read_tools(Object body);
    bool write_parameters(Object function, const std::string& path);
    bool read_tool_choice(Object body);
    bool read_format(Object body);
    bool read_user(Object body);
    void read_unsupported(Object body);

    // chat_messages.cpp
    bool read_messages(Object body);
    bool read_message(Object message, const std::string& path);
    // The text of a content: a string, or text parts joined directly.
    bool read_content(Element content, const std::string& path, bool assistant, std::string& out);
    bool write_calls(Array calls, const std::string& path);
    void write_nothing(std::string_view role);

    ChatRequest& out_;
    base::JsonWriter w_;
    messages::ApiError error_;
    simdjson::dom::parser arguments_;
    bool has_tools_ = false;
    bool answer_last_ = false;  // the last message is the assistant's
};

}  // namespace parley::openai
