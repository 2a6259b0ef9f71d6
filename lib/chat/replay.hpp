// Replay: the events of an answer made again from its journal and its message, for a reader where nobody
// is producing it: another chatd does, or it is over.
//
// Numbers  those that the producer gave: message_accepted 1, message_start 2, the first block 3, then
//          the deltas as the journal's cuts say. An epoch that took an answer up begins with the text of
//          the ones before as event 4.
// Exact    covers(seq) says whether all that followed `seq` stands in the journal. Else a reader is given
//          the content as it is, at position(), and what follows that.
// Not told message_start's usage, where it has to be made anew: the journal does not hold it.
// Threads  one.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "chat/stream.hpp"
#include "store/rows.hpp"

namespace parley::chat {

class Replay {
  public:
    // `rows` is the whole journal in order, all epochs up to `epoch`, which is the stream's.
    Replay(uint32_t epoch, std::vector<store::DeltaRow> rows);

    uint32_t epoch() const { return epoch_; }
    uint64_t position() const { return position_; }
    std::string content_json() const;
    uint64_t offset() const { return blocks_.empty() ? 0 : blocks_.back().size(); }
    bool covers(uint64_t seq) const;

    // A stream whose next event is `after` + 1 (covered, or position()), with what is known by now.
    std::shared_ptr<Stream> stream(uint64_t after, uint64_t bytes_max,
                                   const store::MessageRow& message);
    // A later row of the same epoch. False: it does not follow, or its cuts cannot be read.
    bool add(const store::DeltaRow& row);
    // The closing events as the message's status has them; a failed one ends with `error`.
    void end(const store::MessageRow& message, const messages::ApiError& error);

  private:
    bool fold(const store::DeltaRow& row);
    bool emit(const store::DeltaRow& row);

    uint32_t epoch_;
    std::vector<store::DeltaRow> rows_;  // of this epoch
    std::vector<std::string> blocks_;
    uint64_t first_ = 0;  // number of the first delta of this epoch; 0: none
    uint64_t position_ = 1;
    std::shared_ptr<Stream> stream_;
    store::MessageRow message_;
    int64_t open_ = -1;  // the block that the stream's reader has open
};

// block_stop (if a block is open), message_delta and message_stop of a message that is over; then the
// stream is closed, or failed with `error` for a failed one.
void push_closing(Stream& stream, const store::MessageRow& message, int64_t open_block,
                  const messages::ApiError& error);
// The whole text of blocks, as in a message row's content.
std::string text_of(const std::string& content_json);
messages::Usage usage_of(const std::string& usage_json);

}  // namespace parley::chat
