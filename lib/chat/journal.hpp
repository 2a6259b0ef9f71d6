// Journal: what an answer of a conversation writes to the store while it runs, and its end.
//
// Checked deltas are gathered for flush_ms and appended in one command, with their byte offset, token
// ids and where each event ended (`data`: [[seq, bytes, ids]…]), so that the same events can be cut from
// them again. Appends are sent in order; the end follows them on the same way.
// Store away  commands wait in the store's client to its bound; pieces then gather here to bytes_max.
//          backlog() stands at the whole credit from there on: the model waits, no text is lost.
// Fenced   another chatd has taken the stream over, or it was deleted: on_fenced, once; nothing more is written.
// Bounds   unconfirmed_max appends under way, bytes_max gathered.
// Threads  one.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.hpp"
#include "chat/answer.hpp"
#include "store/client.hpp"
#include "store/commands.hpp"

namespace parley::chat {

// How commands reach the store; in tests a script.
class StoreCommands {
  public:
    using Done = store::Client::Done;
    virtual ~StoreCommands() = default;
    virtual base::Result<void> submit(std::string command_json, Done done, int64_t deadline_ms) = 0;
};

struct JournalOptions {
    store::Ulid message;
    std::string owner;
    uint32_t epoch = 1;
    int64_t flush_ms = 30;
    uint64_t piece_bytes_max = 32u << 10;  // a fuller piece goes at once
    uint64_t bytes_max = 1u << 20;
    uint32_t unconfirmed_max = 8;
    int64_t hold_ms = 30'000;  // the end waits this long for pieces that the store does not take
};

class Journal : public std::enable_shared_from_this<Journal> {
  public:
    Journal(JournalOptions options, StoreCommands& store,
            const base::Clock& clock = base::system_clock());

    void add(const Checked& event);
    void tick();  // as Answer::tick
    // Writes what is gathered, then the end: `finish` has all but message, owner and epoch. `done` comes
    // once, whenever the store has answered: without an error exactly if the end is durable.
    void finish(store::Finish finish, std::function<void(const store::CommandReply&)> done);

    size_t backlog(size_t credit) const {
        return gathered_bytes_ >= options_.bytes_max ? credit : 0;
    }
    bool fenced() const { return fenced_; }
    bool gone() const { return gone_; }  // fenced because the store has no such stream: it was deleted
    void on_fenced(std::function<void()> call) { on_fenced_ = std::move(call); }
    // Called when backlog() fell.
    void on_progress(std::function<void()> call) { on_progress_ = std::move(call); }

  private:
    void flush();
    void confirmed(const store::CommandReply& reply);
    void try_finish();

    JournalOptions options_;
    StoreCommands& store_;
    const base::Clock& clock_;
    struct Piece {
        store::DeltaRow delta;
        std::string cuts;
        uint64_t bytes = 0;
    };
    std::deque<Piece> pieces_;  // not yet sent; events join the last one
    uint64_t gathered_bytes_ = 0;
    int64_t since_ms_ = 0;
    uint64_t next_seq_ = 1;  // first event that no piece covers
    uint32_t unconfirmed_ = 0;
    bool fenced_ = false;
    bool gone_ = false;
    bool finished_ = false;  // the end was sent
    std::string finish_json_;
    int64_t finish_since_ms_ = 0;
    std::function<void(const store::CommandReply&)> finish_done_;
    std::function<void()> on_fenced_;
    std::function<void()> on_progress_;
};

}  // namespace parley::chat
