// Answer: what the engine gives out for one request, as the stream events of the Messages API.
//
// Grammar  message_start, then one text block if there is any text at all, message_delta, message_stop
//          (messages/events.hpp). A continuation begins in the middle: no message_start, no start of
//          the block that is open.
// Errors   none; an answer that fails is ended by its END, not by an event.
// Threads  values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "engine/engine.hpp"
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
    Marks marks;
};

class Answer {
  public:
    explicit Answer(AnswerStart start);

    // Each appends its events to `out`.
    void begin(uint32_t prompt_tokens, const Reuse& reuse, std::vector<OutEvent>& out);
    void text(const Piece& piece, int64_t stamp_ns, std::vector<OutEvent>& out);
    void finish(const Finished& finished, int64_t stamp_ns, std::vector<OutEvent>& out);

  private:
    AnswerStart start_;
    uint32_t index_ = 0;
    bool block_open_ = false;
};

messages::Stop stop_of(const Finished& finished);

// What the client is told of a prompt: what was reused and what is newly kept, up to its last mark;
// neither without marks.
messages::Usage prompt_usage(uint32_t prompt_tokens, const Reuse& reuse, const Marks& marks);

}  // namespace parley::engine
