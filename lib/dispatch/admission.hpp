// Admission: what is refused before it waits, and how busy the whole is said to be.
//
// Predicted  the wait before a request is the compute-seconds that its flow's fair share has to give
//            first, times a factor learnt from how long those before it did wait. `error_ms` is the
//            moving average of |predicted − actual| TTFT, `bias_ms` of predicted − actual.
// Steps      judged once a window (window_ms) by what even the luckiest request waited, as a share of the
//            time that it had: above half of standing_share brownout() begins, above standing_share the
//            level rises by one. From 1 on batch is refused, from 2 on also online requests of a tenth more
//            of the organisations with each level, which ones changes with the window; at most level_max.
//            Back goes one step after calm_windows calm ones on end (below half, or nobody waits); a window
//            in between, or in which none with a deadline started while some wait, leaves all as it is.
// Brownout   answers of batch are cut to brownout_batch_tokens: less is given before anything is refused.
// Zones      zone_lost(): the lowest class goes at once, level 1, not when the queue has become long.
// Retries    retry_share of what is started may be started again after its worker was lost before the
//            first event; what goes on in mid-stream is not counted.
// Threads    one. No clock.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace parley::dispatch {

struct AdmissionOptions {
    bool predict = true;  // refuse what would start after its deadline
    // Of the time that a request has, what a prediction must leave free: predictions err, and what the
    // filter holds back comes after the first event. Without it an overload fills the queue up to the
    // deadline, and half of what is taken is late.
    double late_margin = 0.25;
    double standing_share = 0.5;  // of its time, waited even by the luckiest: a standing queue
    int64_t window_ms = 5000;
    uint32_t calm_windows = 2;
    uint32_t level_max = 6;                 // 0: nothing is shed
    uint64_t brownout_batch_tokens = 1024;  // 0: answers stay as long as they are
    double retry_share = 0.1;
    uint32_t retries_max = 10;  // saved up at most
};

class Admission {
  public:
    static constexpr uint32_t kLevelMax = 6;  // half of the organisations

    explicit Admission(AdmissionOptions options)
        : options_(options), retries_(options.retries_max) {}

    // `of_ms`: the time that it had, 0: no deadline.
    void waited(int64_t now_ms, int64_t waited_ms, int64_t of_ms, double predicted_ms);
    void first_event(double ttft_ms, double predicted_ms);
    // Ends the windows that are over. `idle`: nothing waits.
    void tick(int64_t now_ms, bool idle = false);
    void zone_lost();
    bool takes(std::string_view org, bool batch) const;
    int level() const { return level_; }
    bool brownout() const { return brownout_; }
    // Of an answer of class batch that is asked now; 0: as it says itself.
    uint64_t batch_tokens_max() const { return brownout_ ? options_.brownout_batch_tokens : 0; }
    double retries_left() const { return retries_; }
    double factor() const { return factor_; }  // of a predicted wait
    double error_ms() const { return error_ms_; }
    double bias_ms() const { return bias_ms_; }
    bool may_retry();  // and takes one from the budget
    const AdmissionOptions& options() const { return options_; }

  private:
    AdmissionOptions options_;
    int level_ = 0;
    bool brownout_ = false;
    uint32_t calm_ = 0;  // windows on end
    int64_t window_end_ms_ = 0;
    double least_share_ = -1;  // of this window; -1: none with a deadline started
    uint64_t windows_ = 0;
    double factor_ = 1, waited_ms_ = 0, predicted_ms_ = 0;
    double error_ms_ = 0, bias_ms_ = 0;
    double retries_;
};

}  // namespace parley::dispatch
