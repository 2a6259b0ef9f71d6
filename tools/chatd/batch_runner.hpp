// BatchRunner: runs the entries of message batches in the gaps: class batch, a bounded number at once.
//
// A batch belongs to one chatd (its boot id in the row); what a dead one has left is claimed within a
// second or so. An entry is pending until its result is stored, so one that was under way when its chatd
// died, or that a drain broke off, is run again, and only what was stored was charged.
// Order    batches in turn, the entries of each as they came.
// Trying   what would fail again is the entry's result (errored). What broke is tried again: kTriesMax times
//          after a pause that doubles; without end, until the batch expires, while there is no room (429, 503,
//          529) and what would miss the batch's end (504).
// Limits   of the batch's org and key as they are now, and of the server: an entry past a rate waits, so that
//          a batch is stretched rather than refused; past a limit of spend, or asking for more than a rate
//          ever admits, it is errored. Requests at once are bounded by Options::batch_concurrency instead.
// Ending   canceled or expired: nothing more is started, what runs is stopped, what is pending is swept.
// Bounds   Options::batch_concurrency entries in memory, beside a page of what comes next.
// Threads  the loop's.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "app.hpp"
#include "store/message_batches.hpp"

namespace parley::chatd {

class BatchRunner {
  public:
    static constexpr uint32_t kTriesMax = 8;

    explicit BatchRunner(App& app);
    ~BatchRunner();
    BatchRunner(const BatchRunner&) = delete;
    BatchRunner& operator=(const BatchRunner&) = delete;

    void each_second();  // looks for what is new, changed, or left behind
    void tick(int64_t now_ms);
    // A batch that this process owns, as it stands now.
    void own(const store::MessageBatchRow& row);
    void stop();  // the process ends: what runs is broken off and stays pending
    size_t in_flight() const { return in_flight_; }

    // What running a batch must know of its caller; kept in its row.
    static std::string params_of(const Caller& caller, bool newest_version);

  private:
    struct Job;
    class Item;
    void start_some();
    bool refill(Job& job);
    void wind_up(Job& job, int64_t wall_ms);
    void sweep(Job& job, store::BatchOutcome outcome);
    void drop(const std::string& batch);
    void clear_away(const store::MessageBatchRow& row);
    void claim(const store::MessageBatchRow& row);

    App& app_;
    std::map<std::string, std::unique_ptr<Job>> jobs_;  // by the batch's id
    std::string turn_;                                  // the job that was served last
    size_t in_flight_ = 0;
    bool stopped_ = false;
    std::shared_ptr<bool> alive_ = std::make_shared<bool>(true);
};

}  // namespace parley::chatd
