// Wish: what a send asks for, kept in the stream row so that a continuation asks for the same; and from
// a wish and a path to what an Answer needs.
#pragma once

#include <string>
#include <vector>

#include "asking.hpp"
#include "chat/context.hpp"
#include "exchange.hpp"
#include "store/rows.hpp"

namespace parley::chatd {

inline constexpr uint64_t kMaxTokensDefault = 4096;

struct Wish {
    std::string content;  // JSON array of blocks
    std::string model;
    std::string system;   // JSON, "" none
    std::string members;  // sampling members of the body, JSON members
    uint64_t max_tokens = 0;
    uint64_t seed = 0;
    bool stream = true;

    // To and from StreamRow::params; content and stream are not in it.
    std::string params() const;
    static Wish from_params(const std::string& params);
};

tl::expected<chat::Context, messages::ApiError> context_of(App& app, const Wish& wish,
                                                           std::vector<store::MessageRow> path);
chat::AnswerOptions answer_of(const Exchange& exchange, const Wish& wish,
                              const chat::Context& context, const store::MessageRow& message);

}  // namespace parley::chatd
