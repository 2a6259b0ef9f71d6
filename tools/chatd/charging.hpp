// Charging: the usage row of an answer that no conversation's end writes, and sums of such rows.
//
// Grouped  rows of kChargeWaitMs, kChargesMax at most, are one command: at a high rate the store, and the way
//          there, cost by the group. A chatd that is killed loses the rows of that time.
// Charged  what the model worked, whoever wanted it: also answers that were cut or refused. Nothing was worked:
//          no row.
// Lost     a row that the store does not take is counted (chatd_charges_lost_total).
// Threads  the loop's.
#pragma once

#include <string>
#include <vector>

#include "base/json.hpp"
#include "chat/answer.hpp"
#include "http/loop.hpp"
#include "store/commands.hpp"
#include "store/rows.hpp"
#include "telemetry/registry.hpp"

namespace parley::chatd {

class App;

class Charging {
  public:
    explicit Charging(App& app);
    void add(store::Charge charge);
    void flush();  // what waits goes out now

  private:
    static constexpr int64_t kChargeWaitMs = 10;
    static constexpr size_t kChargesMax = 256;
    App& app_;
    telemetry::Counter& lost_;
    std::vector<store::Charge> waiting_;
    http::Timer timer_;
};

// `who` says org, user, end_user and key_id; the rest is the answer's.
void charge(App& app, store::Charge who, const chat::Answer& answer, const chat::Outcome& outcome);

// Totals of the store, with what they cost by the prices of now.
struct UsageSum {
    uint64_t requests = 0, input_tokens = 0, output_tokens = 0, compute_us = 0;
    uint64_t cost_micro = 0;
    void add(const App& app, const store::UsageTotal& total);
    // Members of the object in hand.
    void write(base::JsonWriter& w) const;
};

}  // namespace parley::chatd
