// request_reader: the walk over a request body. Internal to lib/messages.
//
// A type error stops the walk at once; a semantic one is kept (the first) and answered only if the
// whole body has the right types and the model is known, as the order of checks asks.
#pragma once

#include <string>
#include <string_view>

#include "messages/json_read.hpp"
#include "messages/request.hpp"
#include "messages/tools.hpp"

namespace parley::messages {

// Where in the body we are; written out only when something is wrong.
struct Where {
    std::string_view root;      // "messages", "system"
    int64_t message = -1;       // messages.N
    std::string_view middle{};  // "content"
    int64_t block = -1;         // .M
    std::string_view deeper{};  // "source.content"
    int64_t inner = -1;         // .K

    std::string str(std::string_view leaf = "") const;
};

// Appends text to turns by the rules of request.hpp (Turns).
class TurnBuilder {
  public:
    explicit TurnBuilder(Request& request) : request_(request) {}
    // What follows belongs to one message (or to the `system` field) of this role.
    void begin(Role role, std::string_view joiner);
    void add(Origin origin, std::string_view text);
    // The same on lines of its own: a line break parts it from what stands before and after it.
    void add_lines(Origin origin, std::string text);
    // The user's turn exists even if nothing of it is rendered: an answer before it is not a
    // prefill.
    void keep_empty();
    void mark(Ttl ttl);

  private:
    Turn& turn();

    Request& request_;
    Role role_ = Role::system;
    std::string_view joiner_;
    bool begun_ = false;  // the current message has its turn
    bool line_ended_ = false;  // what was added last is to stand alone
};

class RequestReader {
  public:
    RequestReader(const ParseOptions& options, Request& out)
        : options_(options), out_(out), turns_(out) {}
    // false: error() says what is wrong with the types.
    bool read(json::dom::object body);
    const std::optional<ApiError>& error() const { return error_; }
    const std::optional<ApiError>& semantic() const { return semantic_; }

  private:
    using Element = json::dom::element;
    using Object = json::dom::object;
    using Array = json::dom::array;

    bool fail(std::string_view path, std::string_view why);
    bool fail(ApiError error);
    void later(std::string_view path, std::string_view why);
    void later(const std::optional<CallPairs::Offence>& offence) {
        if (offence) later(offence->path, offence->why);
    }

    // request.cpp: top-level fields
    bool read_model(Object body);
    bool read_max_tokens(Object body);
    bool read_sampling(Object body);
    bool read_stops(Object body);
    bool read_options(Object body);
    bool read_thinking(Object body);
    bool read_output(Object body);
    bool read_format(Element element, const std::string& path);
    bool read_tools(Object body);                            // read_tools.cpp
    bool read_tool(Object tool, const Where& where, std::unordered_set<std::string_view>& names);
    bool read_tool_choice(Object body, bool given);
    bool read_unsupported(Object body);
    bool read_unknown(Object body);
    bool read_cache_control(Object holder, const Where& where, std::optional<Ttl>& ttl);
    bool mark(Object holder, const Where& where);
    bool required_text(Object holder, const Where& where, std::string_view key,
                       std::string_view& out);

    // content.cpp: system and messages
    bool read_system(Object body);
    bool read_messages(Object body);
    bool read_message(Element item, Where where, bool last);
    bool read_block(Element item, Where where, Role role);
    bool read_text(Object block, const Where& where, Origin origin);
    bool read_document(Object block, const Where& where);
    bool read_search_result(Object block, const Where& where);
    // Both append; also of those inside a tool_result.
    bool document_text(Object block, Where where, std::string& rendered);
    bool search_result_text(Object block, Where where, std::string& rendered);
    bool read_tool_use(Object block, const Where& where, Role role);
    bool read_tool_result(Object block, const Where& where, Role role);
    bool read_result_block(Object block, const Where& where, std::string_view type,
                           std::string& out);
    bool read_text_blocks(Array blocks, Where where, std::string& out);
    void read_server_block(Object block);
    void check_text(std::string_view text, const Where& where);

    const ParseOptions& options_;
    Request& out_;
    TurnBuilder turns_;
    std::optional<ApiError> error_;
    std::optional<ApiError> semantic_;
    CallPairs pairs_;
    size_t cache_marks_ = 0;
    std::optional<uint64_t> thinking_budget_;
};

bool blank(std::string_view text);  // nothing but white space (Unicode's)
bool ends_with_space(std::string_view text);

}  // namespace parley::messages
