// Request: a Messages API request body, checked and reduced to what the stages work with.
//
// Every stage that reads a body reads it through parse_request(), so that none can be shown another
// text than the next one: the filter judges exactly the bytes that the worker tokenises.
//
// Order    JSON, then field types (first offence in the order model, max_tokens, system, messages,
//          the rest), then ParseOptions::check_model, then semantics (what depends on several
//          fields or is not supported here). The first error found is the answer.
// JSON     RFC 8259, UTF-8. A key that stands twice in one object is refused, anywhere in the body:
//          readers disagree on which of the two counts. Lone surrogates are refused. null for an
//          optional field means absent.
// Turns    consecutive messages of one role are one turn. Blocks of one message are joined
// directly,
//          messages by a newline, blocks of `system` by a blank line. The `system` field is the
//          first turn; a role:"system" message stays in place. A system block that begins with
//          "x-anthropic-billing-header:" is dropped (its value changes between releases and would
//          spoil the prefix cache), thinking is dropped, text documents and search results are
//          rendered as text. String content and one text block give the same turns.
// Bounds   ParseOptions. The body's own size is the HTTP front's to bound.
// Threads  pure; any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <tl/expected.hpp>
#include <vector>

#include "messages/error.hpp"

namespace parley::messages {

enum class Role { system, user, assistant };  // the same three, in the same order, as model::Role

struct Turn {
    Role role = Role::user;
    std::string text;
};

// Where a piece of a turn's text came from: who is answerable for it.
enum class Origin { system, user, assistant, document };
std::string_view name(Origin origin);

// One piece of text to judge: bytes [offset, offset + size) of turns[turn].text. In order; together
// they cover every byte of every turn but the joining newlines. Pieces of one turn are read by the
// model as one text: judge across their borders too.
struct JudgedText {
    Origin origin = Origin::user;
    size_t turn = 0;
    size_t offset = 0;
    size_t size = 0;
};

enum class Ttl : uint8_t { five_minutes, one_hour };

// A cache_control mark: the prompt up to bytes `offset` of turns[turn].text (0 turns: at the very start).
// On a tool it reaches to the end of that tool's line. A top-level cache_control is a mark at the end of
// the last turn.
struct CacheMark {
    size_t turn = 0;
    size_t offset = 0;
    Ttl ttl = Ttl::five_minutes;
};

// none: the answer is text, whatever tools are shown. forced: it is one call of one of `tools`.
enum class ToolChoice : uint8_t { none, free, forced };

struct Tool {
    std::string name;
    std::string schema_json;  // its input_schema, minified; "" unless the choice is forced or it is strict
    std::string path;         // where that stood: "tools.0.input_schema"
    bool strict = false;
};

struct Request {
    std::string model;
    uint64_t max_tokens = 0;  // 0: run the prompt only. Not clamped to any context, below 2^53
    bool stream = false;
    std::vector<std::string> stop_sequences;
    std::optional<double> temperature;  // 0…1
    std::optional<double> top_p;        // 0…1
    std::optional<uint64_t> top_k;      // 0: off
    std::string user_id;                // metadata.user_id; never log it raw
    bool thinking = false;              // enabled or adaptive

    // What the answer must be: a JSON Schema, minified; whether it can be compiled is not looked at. Not
    // together with stop_sequences, which would cut it, nor with a prefill, which it could not begin with.
    std::optional<std::string> schema_json;
    std::string schema_path;  // where it stood: "output_config.format.schema"

    // Tools that may be called: all (also those not shown, defer_loading), or the chosen one. Whether a schema
    // can be compiled is not looked at. Forced, stop_sequences and schema_json have nothing to be about.
    ToolChoice tool_choice = ToolChoice::none;
    std::vector<Tool> tools;
    bool parallel_calls = true;  // false: one call at most

    std::vector<Turn> turns;
    bool prefill = false;  // the last turn is the assistant's and is continued
    std::vector<JudgedText> judged;
    std::vector<CacheMark> cache_marks;       // at most 4, in order
    std::vector<std::string> unknown_fields;  // top level, at most 16 names: for a log line

    std::string_view text(const JudgedText& piece) const {
        return std::string_view(turns[piece.turn].text).substr(piece.offset, piece.size);
    }
};

struct ParseOptions {
    bool count_tokens = false;  // max_tokens and stream not required, and not looked at
    bool strict_fields =
        false;  // unknown top-level fields: 400 "X: Extra inputs are not permitted"
    bool strict_sampling = false;  // temperature, top_p, top_k: the same (version 2026-10-21)
    uint32_t messages_max = 100'000;
    uint32_t depth_max = 128;
    uint32_t stop_sequences_max = 256;
    uint32_t stop_sequence_bytes_max = 4096;
    uint32_t user_id_chars_max = 512;
    // Called between types and semantics; a value is the answer (404 for an unknown model).
    std::function<std::optional<ApiError>(const std::string& model)> check_model;
};

// `json` needs no padding; it is copied once.
tl::expected<Request, ApiError> parse_request(std::string_view json,
                                              const ParseOptions& options = {});

// As model::Turn or whatever has {role, text} with the same three roles in the same order.
template <class TurnType>
std::vector<TurnType> turns_as(const Request& request) {
    std::vector<TurnType> out;
    out.reserve(request.turns.size());
    for (const Turn& turn : request.turns) {
        TurnType& to = out.emplace_back();
        to.role = static_cast<decltype(to.role)>(static_cast<int>(turn.role));
        to.text = turn.text;
    }
    return out;
}

}  // namespace parley::messages
