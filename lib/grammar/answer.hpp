// answer: the grammar that a Messages API request asks its answer to be held by.
//
// Schema   output_config.format: the answer is JSON that validates.
// Forced   tool_choice any and tool: one call (messages/calls.hpp) of one of the tools, its input by its schema.
// Strict   tool_choice auto with a tool that is `strict`: text and calls as the model likes; what it begins as a
//          call becomes one, of a tool that there is, the input of a strict tool by its schema and that of
//          another some JSON object. Stop sequences and whoever stops it may cut such an answer.
// Errors   of what cannot be held, as "PATH IN THE BODY: …" (grammar/schema.hpp).
// Threads  pure functions.
#pragma once

#include <string>

#include "grammar/schema.hpp"
#include "messages/request.hpp"

namespace parley::grammar {

// What such a grammar may be kept by: the same for the same grammar. "": there is none.
std::string answer_key(const messages::Request& request);
// Of a request that has a key.
base::Result<Automaton> compile_answer(const messages::Request& request, const Limits& limits = {});

}  // namespace parley::grammar
