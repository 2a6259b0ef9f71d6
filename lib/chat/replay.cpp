#include "chat/replay.hpp"

#include <simdjson.h>

#include "base/json.hpp"
#include "store/ids.hpp"

namespace parley::chat {

using messages::ApiError;
using messages::EventType;
using messages::EventWriter;

namespace {

struct Cut {
    uint64_t seq = 0;
    uint64_t bytes = 0;
};

// False for anything that Journal did not write.
bool read_cuts(const store::DeltaRow& row, std::vector<Cut>& cuts) {
    simdjson::dom::parser parser;
    simdjson::dom::array list;
    if (parser.parse(row.data).get(list)) return false;
    uint64_t bytes = 0;
    for (const simdjson::dom::element element : list) {
        simdjson::dom::array triple;
        Cut cut;
        if (element.get(triple) || triple.at(0).get(cut.seq) || triple.at(1).get(cut.bytes))
            return false;
        if (!cuts.empty() && cut.seq <= cuts.back().seq) return false;
        bytes += cut.bytes;
        cuts.push_back(cut);
    }
    return !cuts.empty() && bytes == row.text.size() && cuts.back().seq == row.last_seq;
}

}  // namespace

std::string text_of(const std::string& content_json) {
    std::string text;
    simdjson::dom::parser parser;
    simdjson::dom::array blocks;
    if (parser.parse(content_json).get(blocks)) return text;
    for (const simdjson::dom::element block : blocks) {
        std::string_view piece;
        if (!block["text"].get(piece)) text += piece;
    }
    return text;
}

messages::Usage usage_of(const std::string& usage_json) {
    messages::Usage usage;
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    if (usage_json.empty() || parser.parse(usage_json).get(root)) return usage;
    const auto number = [&](std::string_view name, uint64_t& into) {
        if (root[name].get(into)) into = 0;
    };
    number("input_tokens", usage.input_tokens);
    number("output_tokens", usage.output_tokens);
    number("cache_read_input_tokens", usage.cache_read_input_tokens);
    number("cache_creation_input_tokens", usage.cache_creation_input_tokens);
    return usage;
}

void push_closing(Stream& stream, const store::MessageRow& message, int64_t open_block,
                  const ApiError& error) {
    if (message.status == "failed" || message.status == "interrupted") return stream.fail(error);
    if (open_block >= 0)
        stream.push(EventType::content_block_stop,
                    EventWriter::block_stop(static_cast<uint32_t>(open_block)));
    const messages::Usage usage = usage_of(message.usage);
    if (const auto reason = messages::stop_reason(message.stop_reason)) {
        stream.push(EventType::message_delta,
                    EventWriter::message_delta({*reason, std::nullopt, ""}, usage));
    } else if (message.status == "cancelled") {
        // As Answer::close says it.
        std::string json;
        base::JsonWriter w(json);
        w.object().field("type", "message_delta").key("delta").object();
        w.key("stop_reason").null().key("stop_sequence").null();
        w.key("stop_details").object().field("type", "cancelled").end().end();
        w.key("usage").raw(messages::usage_json(usage)).end();
        stream.push(EventType::message_delta, json);
    }
    stream.push(EventType::message_stop, EventWriter::message_stop());
    stream.close();
}

Replay::Replay(uint32_t epoch, std::vector<store::DeltaRow> rows) : epoch_(epoch) {
    for (store::DeltaRow& row : rows) {
        if (row.epoch > epoch_ || !fold(row)) break;
        if (row.epoch != epoch_) {
            position_ = 4;  // the text of earlier epochs is the fourth event of a later one
            continue;
        }
        rows_.push_back(std::move(row));
    }
}

bool Replay::fold(const store::DeltaRow& row) {
    if (row.block < 0 || static_cast<size_t>(row.block) > blocks_.size()) return false;
    if (static_cast<size_t>(row.block) == blocks_.size()) blocks_.emplace_back();
    std::string& block = blocks_[static_cast<size_t>(row.block)];
    if (row.offset != block.size()) return false;
    block += row.text;
    if (row.epoch == epoch_) {
        std::vector<Cut> cuts;
        if (first_ == 0) first_ = read_cuts(row, cuts) ? cuts.front().seq : UINT64_MAX;
        position_ = row.last_seq;
    }
    return true;
}

std::string Replay::content_json() const {
    std::string out;
    base::JsonWriter w(out);
    w.array();
    for (const std::string& block : blocks_)
        if (!block.empty()) w.object().field("type", "text").field("text", block).end();
    w.end();
    return out;
}

bool Replay::covers(uint64_t seq) const {
    if (seq == position_) return true;
    if (first_ == 0 || seq + 1 < first_ || seq > position_) return false;
    if (seq + 1 == first_) return true;
    for (const store::DeltaRow& row : rows_) {
        if (row.last_seq < seq) continue;
        std::vector<Cut> cuts;
        if (!read_cuts(row, cuts)) return false;
        for (const Cut& cut : cuts)
            if (cut.seq == seq) return true;
        return false;
    }
    return false;
}

std::shared_ptr<Stream> Replay::stream(uint64_t after, uint64_t bytes_max,
                                       const store::MessageRow& message) {
    StreamOptions options;
    options.epoch = epoch_;
    options.first_seq = after + 1;
    options.bytes_max = bytes_max;
    stream_ = std::make_shared<Stream>(options);
    message_ = message;
    open_ = -1;
    if (after < position_) {
        // The reader's block is the one that the first row ahead of it continues or follows.
        for (const store::DeltaRow& row : rows_) {
            if (row.last_seq <= after || row.first_seq <= after) open_ = row.block;
        }
        if (open_ < 0 && !rows_.empty()) open_ = rows_.front().block;
        for (const store::DeltaRow& row : rows_)
            if (row.last_seq > after && !emit(row)) break;
    } else if (!blocks_.empty()) {
        open_ = static_cast<int64_t>(blocks_.size()) - 1;
    }
    rows_.clear();
    return stream_;
}

bool Replay::emit(const store::DeltaRow& row) {
    std::vector<Cut> cuts;
    if (!read_cuts(row, cuts)) return false;
    uint64_t at = 0;
    for (const Cut& cut : cuts) {
        const std::string_view text = std::string_view(row.text).substr(at, cut.bytes);
        const uint64_t offset = row.offset + at;
        at += cut.bytes;
        if (cut.seq < stream_->next_seq()) continue;
        const auto block = static_cast<uint32_t>(row.block);
        if (stream_->next_seq() == 2 && cut.seq == 4) {
            stream_->push(EventType::message_start,
                          EventWriter::message_start(store::show_id(store::kMsg, message_.id),
                                                     message_.sender, {}));
            stream_->push(EventType::content_block_start, EventWriter::text_block_start(block));
        } else if (open_ >= 0 && row.block == open_ + 1 && cut.seq == stream_->next_seq() + 2) {
            stream_->push(EventType::content_block_stop,
                          EventWriter::block_stop(static_cast<uint32_t>(open_)));
            stream_->push(EventType::content_block_start, EventWriter::text_block_start(block));
        }
        if (cut.seq != stream_->next_seq()) return false;
        open_ = row.block;
        stream_->push(EventType::content_block_delta, EventWriter::text_delta(block, text, offset));
    }
    return true;
}

bool Replay::add(const store::DeltaRow& row) {
    if (row.epoch != epoch_ || !fold(row)) return false;
    if (stream_) return emit(row);
    rows_.push_back(row);
    return true;
}

void Replay::end(const store::MessageRow& message, const ApiError& error) {
    if (!stream_ || stream_->ended()) return;
    const bool over = message.status != "failed" && message.status != "interrupted";
    // Nothing was journalled: its start is told, unless what the reader has stands beyond.
    if (over && stream_->next_seq() == 2)
        stream_->push(EventType::message_start,
                      EventWriter::message_start(store::show_id(store::kMsg, message.id),
                                                 message.sender, usage_of(message.usage)));
    push_closing(*stream_, message, open_, error);
}

}  // namespace parley::chat
