// Asking: from a checked request to what an Answer needs: the envelope and the times.
#pragma once

#include <functional>
#include <string>

#include "chat/answer.hpp"
#include "exchange.hpp"
#include "messages/request.hpp"

namespace parley::chatd {

inline constexpr uint64_t kCountOnLoopMax = 256u << 10;  // bytes of text; more is counted elsewhere

struct Ask {
    std::string id;              // message id
    std::string model;           // as the client said it
    std::string body;            // for below
    uint64_t prompt_tokens = 0;  // counted or guessed; deadlines only
    uint64_t max_tokens = 0;     // clamped
    bool stream = true;
    uint64_t seed = 0;
    pipe::Sampling sampling;
};

// With what the request's headers say of times and traces, or for a caller alone.
chat::AnswerOptions answer_options(const Exchange& exchange, Ask ask);
chat::AnswerOptions answer_options(const App& app, const Caller& caller, Ask ask);
uint64_t draw_seed();
// A message id that is no conversation's.
std::string new_message_id();

uint64_t text_bytes(const messages::Request& request);
// Who limits count as the end user: metadata.user_id within its org, else the caller's own user.
store::Ulid end_user_of(const Caller& caller, const messages::Request& request);
// The version header, as far as it is required.
std::optional<messages::ApiError> check_version(const Exchange& exchange, bool& newest);
// Both must outlive the parsing.
messages::ParseOptions parse_options(const App& app, const Caller& caller, bool newest_version);
inline messages::ParseOptions parse_options(const Exchange& exchange, bool newest_version) {
    return parse_options(exchange.app, exchange.caller, newest_version);
}
// What is wrong with the schema of the answer, if one is asked for: said before anything is streamed. One
// that takes long to compile is the worker's to judge.
std::optional<messages::ApiError> check_schema(const messages::Request& request);

// The model that answers: the one that was named, or an alias's small one (catalog.hpp).
struct Routed {
    std::shared_ptr<const Model> model;  // null: unknown
    std::string below;                   // what it is called below
    std::string said;                    // what the answer calls it
    uint64_t prompt_tokens = 0;          // as this model counts; 0: not counted
};
// `counted`: as the named model counts, 0: not; without a count nothing is small.
Routed route_by_size(const App& app, const messages::Request& request, uint64_t counted);
// Whether it depends on the count.
bool wants_count(const App& app, const messages::Request& request);

// Calls `then` with the exact count, now or after the helper thread has counted; 0 when it cannot be
// told because the artifact is not there. False: too many wait to be counted.
bool count_then(App& app, std::shared_ptr<const messages::Request> request,
                std::shared_ptr<const model::Artifact> artifact,
                std::function<void(uint64_t)> then);

}  // namespace parley::chatd
