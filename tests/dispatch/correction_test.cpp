// Corrections of tags: only where a worker cannot know what a flow uses elsewhere.
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
