// Answer: what the engine gives out for one request, as the stream events of the Messages API.
//
// Blocks   text and calls of tools (messages/calls.hpp), none empty; by messages::AnswerWriter, so in the only
//          order there is. A continuation is said again from its first token on, and what the reader has is left
//          out: the engine gives out all of its text.
// Ids      a token's id goes with the last event that its text let out; what let nothing out waits for the next.
// Errors   none; an answer that fails is ended by its END, not by an event.
// Threads  values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.hpp"
#include "messages/calls.hpp"
#include "messages/events.hpp"

namespace parley::engine {

struct OutEvent {
    std::string body;               // one line of JSON
    std::vector<model::Token> ids;  // whose text ends within it
    int64_t stamp_ns = 0;           // when the token that let it out was chosen; 0: no token did
};

// How far cache_control marks reach into the prompt.
struct Marks {
    uint32_t tokens = 0;       // up to the last one; 0: there are none
    uint32_t hour_tokens = 0;  // up to the last one with a ttl of one hour
};

struct AnswerStart {
    std::string message_id;
    std::string model;  // as the client named it
    std::string service_tier = "standard";
    bool continued = false;  // message_start has been sent
    int32_t block = -1;      // index of the block that is open already; -1: none
    uint64_t released = 0;   // bytes of it that the reader has
    Marks marks;
    messages::CallReader::Mode calls = messages::CallReader::Mode::none;
    std::vector<std::string> tools;  // their names
    bool parallel_calls = true;
    uint64_t call_key = 0;  // of messages::tool_use_id()
};

class Answer {
  public:
    explicit Answer(AnswerStart start);

    // Each appends its events to `out`.
    void begin(uint32_t prompt_tokens, const Reuse& reuse, std::vector<OutEvent>& out);
    void text(const Piece& piece, int64_t stamp_ns, std::vector<OutEvent>& out);
    // The answer is whole by the one call in it: what the engine goes on to say is not wanted.
    bool complete() const { return reader_.complete(); }
    void finish(const Finished& finished, int64_t stamp_ns, std::vector<OutEvent>& out);

  private:
    void say(int64_t stamp_ns, std::vector<OutEvent>& out);

    AnswerStart start_;
    messages::CallReader reader_;
    messages::AnswerWriter writer_;
    std::vector<messages::AnswerPart> parts_;
    std::vector<std::string> lines_;
    std::vector<model::Token> ids_;  // in no event yet
};

messages::Stop stop_of(const Finished& finished);

// What the client is told of a prompt: what was reused and what is newly kept, up to its last mark;
// neither without marks.
messages::Usage prompt_usage(uint32_t prompt_tokens, const Reuse& reuse, const Marks& marks);

}  // namespace parley::engine
