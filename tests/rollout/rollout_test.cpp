// The engine of rollouts: its evidence against sums done another way, its ladder, and trials of made-up
// versions through it. PARLEY_ROLLOUTS=1000 (tests/long.sh rollouts) for the full number of trials.
#include <catch2/catch.hpp>
#include <cmath>
#include <cstdlib>

#include "rollout/trial.hpp"

using namespace parley::rollout;

namespace {

uint32_t runs() {
    const char* wanted = std::getenv("PARLEY_ROLLOUTS");
    return wanted == nullptr ? 40 : static_cast<uint32_t>(std::atoi(wanted));
}

Spec spec(const char* stages, uint64_t requests_min = 20, int64_t min_ms = 0) {
    Spec out;
    out.id = "r1";
    out.alias = "latest";
    out.stable = "a";
    out.canary = "b";
    out.stages = *parse_stages(stages);
    out.gates.requests_min = requests_min;
    out.gates.min_ms = min_ms;
    out.gates.baseline = 1;
    out.who = "me";
    return out;
}

void feed(Rollout& rollout, int requests, double canary_errors, double stable_errors) {
    for (int i = 0; i < requests; ++i) {
        const Assigned to = rollout.assign("conversation " + std::to_string(i));
        Outcome outcome;
        outcome.ttft_ms = 10;
        outcome.error = i % 100 < 100 * (to.canary ? canary_errors : stable_errors);
        rollout.assigned(to);
        rollout.outcome(to, outcome);
    }
}

}  // namespace

TEST_CASE("the incomplete beta function is the binomial tail that it stands for") {
    for (const int n : {3, 10, 40})
        for (int k = 1; k <= n; ++k)
            for (const double p : {0.02, 0.1, 0.5, 0.9}) {
                double tail = 0;
                for (int i = k; i <= n; ++i)
                    tail += std::exp(std::lgamma(n + 1.0) - std::lgamma(i + 1.0) -
                                     std::lgamma(n - i + 1.0)) *
                            std::pow(p, i) * std::pow(1 - p, n - i);
                CHECK(incomplete_beta(k, n - k + 1, p) == Approx(tail).epsilon(1e-9));
            }
}

// E[E_n] = 1 for every n, summed over all outcomes of n events: nothing is left to chance.
TEST_CASE("the mean of E under no difference is one, after any number of events and over segments") {
    for (const double theta : {0.02, 0.1, 0.5}) {
        for (const int n : {1, 5, 30}) {
            double up = 0, down = 0;
            for (int k = 0; k <= n; ++k) {
                Evidence evidence;
                evidence.share(theta);
                for (int i = 0; i < n; ++i) evidence.add(i < k);
                const double chance =
                    std::exp(std::lgamma(n + 1.0) - std::lgamma(k + 1.0) -
                             std::lgamma(n - k + 1.0) + k * std::log(theta) +
                             (n - k) * std::log1p(-theta));
                up += chance * std::exp(evidence.up());
                down += chance * std::exp(evidence.down());
            }
            CHECK(up == Approx(1).epsilon(1e-9));
            CHECK(down == Approx(1).epsilon(1e-9));
        }
    }
    Evidence evidence;
    evidence.share(0.1);
    for (int i = 0; i < 10; ++i) evidence.add(i < 5);
    const double before = evidence.up();
    CHECK(before > 0);
    evidence.share(0.5);
    CHECK(evidence.up() == before);
}

TEST_CASE("stages that do not rise to all, or are no percentages, are refused by name") {
    CHECK(parse_stages("shadow,2,10,person:50,100"));
    for (const char* bad : {"", "100", "2,10", "10,2,100", "2,shadow,100", "2,x,100", "0,100",
                            "2,101", "2,person:,100", "2,2,100", "nan,100"}) {
        INFO(bad);
        CHECK_FALSE(parse_stages(bad));
    }
    CHECK(parse_stages("2,x,100").error().what.find("'x'") != std::string::npos);
}

TEST_CASE("who is the canary's at a share is so at every greater one, and the share is what was set") {
    Rollout rollout(spec("2,10,person:50,100"), 0);
    std::vector<bool> before(20'000, false);
    for (const double share : {0.02, 0.1, 0.5}) {
        CHECK(rollout.share() == share);
        int canary = 0;
        for (size_t i = 0; i < before.size(); ++i) {
            const bool now = rollout.assign("c" + std::to_string(i)).canary;
            CHECK_FALSE((before[i] && !now));
            before[i] = now;
            canary += now;
        }
        CHECK(canary == Approx(share * 20'000).epsilon(0.15));
        REQUIRE(rollout.promote("me", "", 1));
    }
    CHECK(rollout.state() == State::done);
}

TEST_CASE("a stage is left after its requests and its time, and a person's gate by a person only") {
    Rollout rollout(spec("10,person:50,100", 50, 1000), 0);
    feed(rollout, 100, 0, 0);
    CHECK_FALSE(rollout.look(5000));
    CHECK(rollout.holds().find("of 50 requests") != std::string::npos);
    feed(rollout, 1000, 0, 0);
    CHECK_FALSE(rollout.look(500));
    CHECK(rollout.holds().find("in the stage") != std::string::npos);
    CHECK_FALSE(rollout.look(2000));
    CHECK(rollout.holds().find("a person decides") != std::string::npos);
    CHECK(rollout.share() == 0.1);
    REQUIRE(rollout.promote("anna", "looks well", 2001));
    CHECK(rollout.share() == 0.5);
    CHECK(rollout.steps().back().who == "anna");
    feed(rollout, 1000, 0, 0);
    CHECK(rollout.look(9000));
    CHECK(rollout.state() == State::done);
    CHECK(rollout.share() == 1);
    CHECK_FALSE(rollout.abort("anna", "", 9001));
    CHECK_FALSE(rollout.promote("anna", "", 9001));
}

TEST_CASE("first requests that fail, crashes and golden prompts roll back at once, in words") {
    Rollout errors(spec("50,100", 1'000'000), 0);
    feed(errors, 11, 1, 0);
    REQUIRE(errors.look(1));
    CHECK(errors.state() == State::rolled_back);
    CHECK(errors.share() == 0);
    CHECK_FALSE(errors.assign("anyone").canary);
    CHECK(errors.steps().back().why.find("of the first") != std::string::npos);

    Rollout crashes(spec("50,100"), 0);
    crashes.crashed("oom", 1);
    crashes.crashed("oom", 2);
    CHECK(crashes.running());
    crashes.crashed("oom", 3);
    CHECK(crashes.state() == State::rolled_back);

    Rollout golden(spec("50,100"), 0);
    golden.golden(0, 4, 1, "");
    CHECK(golden.running());
    golden.golden(1, 4, 1, "2 + 2");
    CHECK(golden.state() == State::rolled_back);
    CHECK(golden.steps().back().why.find("2 + 2") != std::string::npos);
}

TEST_CASE("a request that was assigned in an earlier stage counts for none") {
    Rollout rollout(spec("10,50,100"), 0);
    const Assigned early = rollout.assign("x");
    REQUIRE(rollout.promote("me", "", 1));
    rollout.outcome(early, {});
    CHECK(rollout.requests(true) + rollout.requests(false) == 0);
}

TEST_CASE("a rollout that is saved and restored goes on as the one that was not") {
    Rollout whole(spec("10,50,100", 4000), 0);
    feed(whole, 3000, 0.02, 0.01);
    auto again = Rollout::restore(whole.save());
    REQUIRE(again);
    CHECK(again->save() == whole.save());
    feed(whole, 3000, 0.2, 0.01);
    feed(*again, 3000, 0.2, 0.01);
    CHECK(whole.look(1));
    CHECK(again->look(1));
    CHECK(again->state() == State::rolled_back);
    CHECK(again->save() == whole.save());
    CHECK_FALSE(Rollout::restore("{}"));
    CHECK_FALSE(Rollout::restore("nonsense"));
}

TEST_CASE("versions as good as the stable one stay, bad ones go: trials") {
    TrialOptions options;
    const uint32_t n = runs();
    for (const Fault& fault : faults()) {
        const TrialRow row = try_rollouts(fault, options, n, 1);
        INFO(table({row}) << row.reason);
        // 5 tests at 1/100 each; with few runs, what chance may add to 5 %.
        if (fault.ttft == 1 && fault.error_points == 0 && fault.filter == 1 &&
            fault.golden_wrong == 0)
            CHECK(row.rolled_back <= (n >= 1000 ? n / 20 : n / 20 + 3));
        else
            CHECK(row.rolled_back >= n * 9 / 10);
    }
}

TEST_CASE("the shadow stage tells what is late, and says nothing of the shares that follow") {
    Spec wanted = spec("shadow,50,100");
    wanted.gates.baseline = 200;
    Rollout rollout(wanted, 0);
    REQUIRE(rollout.shadow());
    uint64_t copies = 0;
    for (int i = 0; i < 2000; ++i) {
        const std::string name = "request " + std::to_string(i);
        Outcome outcome;
        outcome.ttft_ms = 10;
        rollout.assigned(rollout.assign(name));
        rollout.outcome(rollout.assign(name), outcome);
        if (!rollout.copies(name)) continue;
        ++copies;
        outcome.ttft_ms = 1000;  // of a copy, as batch: counts for nothing
        rollout.outcome({true, 0}, outcome);
    }
    CHECK(copies > 60);
    CHECK(copies < 140);
    REQUIRE(rollout.look(1));
    REQUIRE(rollout.share() == 0.5);
    feed(rollout, 60, 0, 0);
    CHECK(rollout.look(2));
    CHECK(rollout.state() == State::done);
}

TEST_CASE("no version is promoted on times that nothing is known of") {
    Spec wanted = spec("50,100");
    wanted.gates.baseline = 200;
    Rollout rollout(wanted, 0);
    feed(rollout, 100, 0, 0);
    CHECK_FALSE(rollout.look(1));
    CHECK(rollout.holds().find("not known yet") != std::string::npos);
    feed(rollout, 400, 0, 0);
    CHECK(rollout.look(2));
    CHECK(rollout.state() == State::done);
}

TEST_CASE("what a filter stops after the end of an answer counts once it is told") {
    Rollout rollout(spec("50,100"), 0);
    Outcome outcome;
    outcome.ttft_ms = 10;
    for (int i = 0; i < 200; ++i) {
        const Assigned to = rollout.assign("conversation " + std::to_string(i));
        rollout.outcome(to, outcome);
        if (to.canary || i % 10 == 0) rollout.filtered(to);
        if (to.canary) rollout.filtered({true, 7});  // of another stage: does not count
    }
    REQUIRE(rollout.look(1));
    CHECK(rollout.state() == State::rolled_back);
    CHECK(rollout.steps().back().why.find("as many of its answers") != std::string::npos);
    const std::string report = rollout.report_json();
    CHECK(report.find("\"filtered\":" + std::to_string(rollout.requests(true))) !=
          std::string::npos);
}
