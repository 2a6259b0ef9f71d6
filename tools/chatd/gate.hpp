// Gate: the limits of who is calling, around each answer (chatd(8), Limits).
//
// admit() reserves for the server, the org, the key and the end user at once, or says whose limit stands
// in the way. The Ticket lives as long as the answer: it uses the input when the answer begins, the output
// as it is produced, and gives the rest back at the end, or when it is dropped.
// Output   reserved by max_tokens, or with `--reserve expected` by a running mean of answers of that model;
//          what goes past a bucket by that is counted (chatd_limits_overshoot_tokens_total).
// Past     a fresh table is filled from the store's usage log; spend comes from the store's totals.
// Batches  admit_entry() says whether an entry waits (a rate, or no room) or ends (spend, or never).
// Threads  the loop's.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>

#include "limits/limits.hpp"
#include "messages/error.hpp"
#include "messages/events.hpp"
#include "options.hpp"
#include "store/reader.hpp"
#include "telemetry/registry.hpp"

namespace parley::chatd {

class App;
class Exchange;
class Gate;
struct Caller;

// What auth knows of a caller's limits.
struct CallerLimits {
    limits::Written org, key;
    store::Ulid key_root;  // the first of the keys that followed each other by rotation
    bool has_key = false;
};

class Ticket {
  public:
    Ticket(Gate& gate, limits::Hold hold, std::string model, uint64_t output_max,
           uint64_t output_reserved)
        : gate_(gate),
          hold_(hold),
          model_(std::move(model)),
          output_max_(output_max),
          output_reserved_(output_reserved) {}
    ~Ticket() { settle({}, false); }
    Ticket(const Ticket&) = delete;
    Ticket& operator=(const Ticket&) = delete;

    void begun(uint64_t prompt_tokens);
    void produced(uint64_t output_tokens);  // so far; asks the table every kStepMs at most
    void end(uint64_t prompt_tokens, uint64_t output_tokens);
    void undo();  // nothing was begun, at once
    // One of its limits of requests at once is used up.
    bool at_cap() const;

  private:
    friend class Gate;
    static constexpr int64_t kStepMs = 500;
    limits::Demand rest(uint64_t prompt_tokens, uint64_t output_tokens) const;
    void use(uint64_t prompt_tokens, uint64_t output_tokens);
    void settle(const limits::Demand& used, bool undo);

    Gate& gate_;
    limits::Hold hold_;
    std::string model_;
    uint64_t output_max_, output_reserved_;
    uint64_t input_used_ = 0, output_used_ = 0, spend_used_ = 0;
    int64_t step_ms_ = 0;
};

class Gate {
  public:
    static base::Result<std::unique_ptr<Gate>> open(App& app, const Options& options);

    // Errc::config when an option cannot be read.
    base::Result<void> set(const Options& options);
    // What the request headers of the answer say goes into `exchange` as well, also of a refusal.
    tl::expected<std::shared_ptr<Ticket>, messages::ApiError> admit(Exchange& exchange,
                                                                    const store::Ulid& end_user,
                                                                    const std::string& model,
                                                                    uint64_t input_tokens,
                                                                    uint64_t output_max);
    // Of an entry of a message batch, by the limits of its caller as they are now. Requests at once are left
    // out: entries have a bound of their own.
    struct Unready {
        messages::ApiError error;
        bool waits = false;  // it would be admitted later: in wait_ms or so
        int64_t wait_ms = 0;
    };
    tl::expected<std::shared_ptr<Ticket>, Unready> admit_entry(const Caller& caller,
                                                               const store::Ulid& end_user,
                                                               const std::string& model,
                                                               uint64_t input_tokens,
                                                               uint64_t output_max);
    // An exact count of the prompt is needed.
    bool counts_input(const Exchange& exchange) const;
    bool counts_input(const CallerLimits& caller) const;
    // Of tokens of that model by the prices of now, in millionths.
    uint64_t cost_of(const std::string& model, uint64_t input, uint64_t output) const {
        return spend_of(model, input, output);
    }
    void each_second();

  private:
    friend class Ticket;
    struct Prices {
        double input = 0, output = 0;  // of a million tokens, so millionths of a token
    };
    struct Subjects {
        std::array<limits::Subject, limits::kSubjectsMax> list{};
        std::array<std::string_view, limits::kSubjectsMax> whose{};
        std::array<store::Ulid, limits::kSubjectsMax> sums{};  // whose totals; zero: all orgs'
        size_t count = 0;
    };
    explicit Gate(App& app) : app_(app) {}
    tl::expected<std::shared_ptr<Ticket>, limits::Refusal> reserve(Subjects& who,
                                                                   const std::string& model,
                                                                   uint64_t input_tokens,
                                                                   uint64_t output_max,
                                                                   bool at_once);
    Subjects subjects(const CallerLimits& caller, const store::Ulid& org,
                      const store::Ulid& end_user) const;
    Prices price_of(const std::string& model) const;
    uint64_t spend_of(const std::string& model, uint64_t input, uint64_t output) const;
    uint64_t spent(const store::Ulid& who, limits::Period period, store::Reader& reader) const;
    uint64_t reserve_of(const std::string& model, uint64_t output_max) const;
    void learn(const std::string& model, uint64_t output_tokens);
    void overshot(uint64_t tokens);
    void refill();
    void headers(Exchange& exchange, const Subjects& subjects);
    messages::ApiError error_of(const limits::Refusal& refusal, const Subjects& subjects);

    App& app_;
    std::unique_ptr<limits::Limiter> limiter_;
    limits::Written all_;
    bool expected_ = false;
    Prices price_;
    std::map<std::string, Prices> prices_;
    std::map<std::string, double> means_;  // of output tokens, by model; bounded by kMeansMax
    uint64_t possible_ = 0;                // max_tokens less what is reserved, of what runs
};

}  // namespace parley::chatd
