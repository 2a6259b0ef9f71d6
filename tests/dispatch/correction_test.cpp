// What workers report of flows in mid-run: how it is charged, and when tags are corrected.
#include <catch2/catch.hpp>

#include "dispatch/scheduler.hpp"

using namespace parley;
using namespace parley::dispatch;

TEST_CASE("a worker is told a flow's tag only while the flow runs on another worker too", "[scheduler]") {
    Scheduler scheduler;
    const ModelId model = scheduler.model_id("m");
    for (WorkerId worker = 1; worker <= 2; ++worker) {
        pipe::HelloMeta hello;
        hello.name = "w" + std::to_string(worker);
        hello.slots = 1;
        hello.models = {{"m", "m", "llama", 100, 100}};
        scheduler.worker_joined(worker, hello);
    }
    const auto start = [&](const std::string& org) {
        Arrival arrival;
        arrival.org = org;
        arrival.model = model;
        arrival.bytes = 400;
        REQUIRE(std::holds_alternative<Ticket>(scheduler.arrive(arrival, 0)));
        const auto started = scheduler.next(0);
        REQUIRE(started.has_value());
        return *started;
    };
    const Started first = start("a");
    CHECK_FALSE(scheduler.correction(first.ticket));
    const Started second = start("a");
    REQUIRE(second.worker != first.worker);
    pipe::StatusMeta status;
    status.charges = {{second.flow, 1.5}};
    scheduler.worker_status(second.worker, status);
    REQUIRE(scheduler.correction(first.ticket).has_value());
    CHECK(*scheduler.correction(first.ticket) == Approx(1.5));
    scheduler.ended(second.ticket, 1.5, std::nullopt, true, 10);
    CHECK_FALSE(scheduler.correction(first.ticket));
    CHECK_FALSE(scheduler.correction(second.ticket));
}

TEST_CASE("a flow is charged what its worker reports for it, whoever of it has just begun", "[scheduler]") {
    Scheduler scheduler;
    const ModelId model = scheduler.model_id("m");
    pipe::HelloMeta hello;
    hello.name = "w";
    hello.slots = 4;
    hello.models = {{"m", "m", "llama", 100, 100}};
    scheduler.worker_joined(1, hello);
    const auto start = [&] {
        Arrival arrival;
        arrival.org = "a";
        arrival.model = model;
        arrival.bytes = 400;
        REQUIRE(std::holds_alternative<Ticket>(scheduler.arrive(arrival, 0)));
        const auto started = scheduler.next(0);
        REQUIRE(started.has_value());
        return *started;
    };
    const auto report = [&](const std::string& flow, double cost_s) {
        pipe::StatusMeta status;
        status.charges = {{flow, cost_s}};
        scheduler.worker_status(1, status);
    };
    const auto used = [&](Ticket ticket) { return scheduler.queue().flow(ticket).used_tag; };
    std::vector<Started> runs{start(), start(), start()};
    report(runs[0].flow, 3);
    CHECK(used(runs[0].ticket) == Approx(3));
    // One ends and another begins, again and again: what the worker says is what is charged, and no
    // report charges a beginner what the old ones have used.
    double ended = 0, live = 3;
    for (int n = 0; n < 20; ++n) {
        const double cost_s = live / 3 + 0.1;
        scheduler.ended(runs.front().ticket, cost_s, std::nullopt, true, n);
        runs.erase(runs.begin());
        ended += cost_s;
        live -= live / 3;
        runs.push_back(start());
        live += 0.3;
        report(runs[0].flow, live);
        INFO(n);
        CHECK(used(runs[0].ticket) == Approx(ended + live).margin(0.05));
    }
    // A report that is behind what is known takes nothing back.
    const double before = used(runs[0].ticket);
    report(runs[0].flow, live / 2);
    CHECK(used(runs[0].ticket) == Approx(before));
}
