// Folder: events to the message of a non-streaming answer; and AnswerWriter, the other way.
#include <algorithm>
#include <cassert>

#include "base/json.hpp"
#include "messages/events.hpp"
#include "messages/json_read.hpp"

namespace parley::messages {

void write_stop(base::JsonWriter& w, const Stop& stop);  // events.cpp

namespace {

// `text` without white space between tokens, if it is one JSON object; of a call that was cut it is not.
std::optional<std::string> object_json(std::string_view text) {
    json::dom::parser parser;
    json::dom::object object;
    const simdjson::padded_string padded(text);
    if (parser.parse(padded).get(object)) return std::nullopt;
    return simdjson::minify(object);
}

}  // namespace

AnswerWriter AnswerWriter::resumed(int32_t block, uint64_t released) {
    AnswerWriter writer;
    writer.continued_ = true;
    writer.had_block_ = block;
    writer.had_bytes_ = block >= 0 ? released : 0;
    return writer;
}

void AnswerWriter::start(std::string_view message_id, std::string_view model, const Usage& usage,
                         Out& out) {
    assert(next_index_ == 0 && !stopped_);
    if (!continued_) out.push_back(EventWriter::message_start(message_id, model, usage));
}

// What the reader lacks of text that is said in the open block.
std::string_view AnswerWriter::unseen(std::string_view text) {
    const int64_t index = static_cast<int64_t>(next_index_) - 1;
    if (index > had_block_) return text;
    if (index < had_block_) return {};
    size_t skip = std::min<uint64_t>(had_bytes_, text.size());
    had_bytes_ -= skip;
    // A reader has whole characters; should one claim less, the character is not cut.
    while (skip > 0 && skip < text.size() && (static_cast<uint8_t>(text[skip]) & 0xC0) == 0x80)
        ++skip;
    return text.substr(skip);
}

void AnswerWriter::text(std::string_view text, Out& out) {
    assert(!stopped_);
    if (text.empty()) return;
    if (open_ != BlockType::text) {
        end_block(out);
        open_ = BlockType::text;
        if (!has_start(next_index_)) out.push_back(EventWriter::text_block_start(next_index_));
        ++next_index_;
    }
    if (const auto rest = unseen(text); !rest.empty())
        out.push_back(EventWriter::text_delta(next_index_ - 1, rest));
}

void AnswerWriter::call(std::string_view id, std::string_view name, Out& out) {
    assert(!stopped_);
    end_block(out);
    open_ = BlockType::tool_use;
    if (!has_start(next_index_)) out.push_back(EventWriter::tool_block_start(next_index_, id, name));
    ++next_index_;
}

void AnswerWriter::input(std::string_view partial_json, Out& out) {
    assert(open_ == BlockType::tool_use);
    if (const auto rest = unseen(partial_json); !rest.empty())
        out.push_back(EventWriter::input_delta(next_index_ - 1, rest));
}

void AnswerWriter::end_block(Out& out) {
    if (!open_) return;
    open_.reset();
    // Whoever goes on inside a block has not seen its end.
    if (static_cast<int64_t>(next_index_) - 1 >= had_block_)
        out.push_back(EventWriter::block_stop(next_index_ - 1));
}

void AnswerWriter::stop(const Stop& stop, const Usage& usage, Out& out) {
    assert(!stopped_);
    end_block(out);
    // A continuation that came to less than its reader has: what is open there is closed all the same.
    if (static_cast<int64_t>(next_index_) - 1 < had_block_)
        out.push_back(EventWriter::block_stop(static_cast<uint32_t>(had_block_)));
    stopped_ = true;
    out.push_back(EventWriter::message_delta(stop, usage));
    out.push_back(EventWriter::message_stop());
}

base::Result<void> Folder::add(const Event& event) {
    if (event.type == EventType::message_accepted || event.type == EventType::snapshot)
        return base::fail(base::Errc::invalid,
                          "event '" + std::string(name(event.type)) + "' is not part of an answer");
    const bool block_event = event.type == EventType::content_block_start ||
                             event.type == EventType::content_block_delta;
    if (block_event && event.block == BlockType::thinking)
        return base::fail(base::Errc::unsupported, "thinking blocks cannot be folded");
    if (auto legal = order_.next(event); !legal) return legal;
    switch (event.type) {
        case EventType::message_start:
            message_id_ = event.message_id;
            model_ = event.model;
            if (event.usage) usage_ = *event.usage;
            break;
        case EventType::content_block_start:
            blocks_.push_back({event.block, event.text, event.tool_id, event.tool_name});
            text_bytes_ += event.text.size();
            break;
        case EventType::content_block_delta:
            // A stream taken up inside a block.
            if (blocks_.empty()) blocks_.push_back({event.block, {}, {}, {}});
            blocks_.back().text += event.text;
            text_bytes_ += event.text.size();
            break;
        case EventType::message_delta:
            stop_ = event.stop;
            if (event.usage) {
                // Totals replace; a delta that tells of output alone keeps the prompt's numbers.
                const Usage before = usage_;
                usage_ = *event.usage;
                if (usage_.prompt_tokens() == 0) {
                    usage_ = before;
                    usage_.output_tokens = event.usage->output_tokens;
                }
            }
            break;
        case EventType::error:
            error_ = event.error;
            break;
        default:
            break;
    }
    return {};
}

std::string Folder::text() const {
    std::string out;
    out.reserve(text_bytes_);
    for (const Block& block : blocks_)
        if (block.type == BlockType::text) out += block.text;
    return out;
}

std::string Folder::words() const {
    std::string out;
    out.reserve(text_bytes_);
    for (const Block& block : blocks_) out += block.text;
    return out;
}

std::string Folder::content_json() const {
    std::string out;
    base::JsonWriter w(out);
    w.array();
    for (const Block& block : blocks_) {
        if (block.type == BlockType::text) {
            if (!block.text.empty()) w.object().field("type", "text").field("text", block.text).end();
            continue;
        }
        const bool called = stop_ && stop_->reason == StopReason::tool_use;
        const auto input = block.text.empty() && called ? std::string("{}") : object_json(block.text);
        if (!input) continue;
        w.object().field("type", "tool_use").field("id", block.id).field("name", block.name);
        w.key("input").raw(*input).end();
    }
    w.end();
    return out;
}

std::string Folder::message_json() const {
    std::string out;
    out.reserve(512 + text_bytes_ + text_bytes_ / 8);
    base::JsonWriter w(out);
    w.object().field("id", message_id_).field("type", "message").field("role", "assistant");
    w.field("model", model_).key("content").raw(content_json());
    if (stop_)
        write_stop(w, *stop_);
    else
        w.key("stop_reason").null().key("stop_sequence").null();
    w.key("stop_details");
    if (stop_ && !stop_->details_json.empty())
        w.raw(stop_->details_json);
    else
        w.null();
    w.key("usage").raw(usage_json(usage_)).end();
    return out;
}

}  // namespace parley::messages
