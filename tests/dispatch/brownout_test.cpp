// Less before nothing, and the lowest class first: brownout, levels, zones.
#include "dispatch/brownout.hpp"

#include <catch2/catch.hpp>

#include "dispatch/simulation.hpp"

using namespace parley;
using namespace parley::dispatch;

namespace {

// One window in which the luckiest request waited for `share` of the time that it had; < 0: none started.
void window(Admission& admission, int64_t& now_ms, double share, bool idle = false) {
    admission.tick(now_ms);
    if (share >= 0) admission.waited(now_ms, static_cast<int64_t>(share * 1000), 1000, 0);
    now_ms += admission.options().window_ms;
    admission.tick(now_ms, idle);
}

pipe::HelloMeta hello(const std::string& name, const std::string& zone) {
    pipe::HelloMeta out;
    out.name = name;
    out.zone = zone;
    out.slots = 4;
    out.models = {{"m", "m", "llama", 100, 100}};
    return out;
}

}  // namespace

TEST_CASE("a brownout comes before a refusal, and both go one step at a time", "[admission]") {
    Admission admission(AdmissionOptions{});
    int64_t now_ms = 1000;
    window(admission, now_ms, 0.2);
    CHECK_FALSE(admission.brownout());
    CHECK(admission.batch_tokens_max() == 0);
    window(admission, now_ms, 0.4);
    CHECK(admission.brownout());
    CHECK(admission.batch_tokens_max() == 1024);
    CHECK(admission.takes("any", true));
    window(admission, now_ms, 0.6);
    CHECK(admission.level() == 1);
    CHECK_FALSE(admission.takes("any", true));
    CHECK(admission.takes("any", false));
    window(admission, now_ms, 0.6);
    CHECK(admission.level() == 2);
    window(admission, now_ms, 0.1);
    CHECK(admission.level() == 2);  // one calm window is no sign
    window(admission, now_ms, 0.4);
    window(admission, now_ms, 0.1);
    CHECK(admission.level() == 2);  // they count on end
    window(admission, now_ms, 0.1);
    CHECK(admission.level() == 1);
    window(admission, now_ms, 0.1);
    window(admission, now_ms, 0.1);
    CHECK(admission.level() == 0);
    CHECK(admission.brownout());
    window(admission, now_ms, 0.1);
    window(admission, now_ms, 0.1);
    CHECK_FALSE(admission.brownout());
}

TEST_CASE("where only batch comes and nothing waits, what was shed comes back", "[admission]") {
    Admission admission(AdmissionOptions{});
    int64_t now_ms = 1000;
    window(admission, now_ms, 0.9);
    REQUIRE_FALSE(admission.takes("any", true));
    for (int i = 0; i < 3; ++i) window(admission, now_ms, -1, false);
    CHECK_FALSE(admission.takes("any", true));  // some wait and none starts: no sign of calm
    for (int i = 0; i < 2; ++i) window(admission, now_ms, -1, true);
    CHECK(admission.takes("any", true));
}

TEST_CASE("load is shed no further than the operator allows", "[admission]") {
    AdmissionOptions options;
    options.level_max = 1;
    options.brownout_batch_tokens = 0;
    Admission batch_only(options);
    options.level_max = 0;
    Admission none(options);
    int64_t a = 1000, b = 1000;
    for (int i = 0; i < 10; ++i) {
        window(batch_only, a, 0.9);
        window(none, b, 0.9);
    }
    CHECK(batch_only.level() == 1);
    CHECK(batch_only.batch_tokens_max() == 0);
    CHECK(none.level() == 0);
    none.zone_lost();
    CHECK(none.takes("any", true));
}

TEST_CASE("a zone lost sheds batch at once, a worker lost or a zone drained does not",
          "[admission]") {
    Scheduler scheduler;
    const ModelId model = scheduler.model_id("m");
    scheduler.worker_joined(1, hello("a", "north"));
    scheduler.worker_joined(2, hello("b", "north"));
    scheduler.worker_joined(3, hello("c", "south"));
    CHECK(scheduler.workers().zones() == std::set<std::string>{"north", "south"});
    scheduler.worker_left(1);
    CHECK(scheduler.admission().level() == 0);
    scheduler.worker_left(2);
    CHECK(scheduler.admission().level() == 1);
    CHECK(scheduler.workers().zones() == std::set<std::string>{"south"});
    Arrival batch;
    batch.org = "o";
    batch.cls = pipe::Class::batch;
    batch.model = model;
    const auto refused = scheduler.arrive(batch, 10);
    REQUIRE(std::holds_alternative<Refusal>(refused));
    CHECK(std::get<Refusal>(refused).reason == "shed");
    Arrival online = batch;
    online.cls = pipe::Class::streaming;
    CHECK(std::holds_alternative<Ticket>(scheduler.arrive(online, 10)));

    Scheduler drained;
    drained.worker_joined(1, hello("a", "north"));
    drained.worker_joined(2, hello("b", "south"));
    pipe::StatusMeta leaving;
    leaving.draining = true;
    drained.worker_status(1, leaving);
    drained.worker_left(1);
    CHECK(drained.admission().level() == 0);
}

TEST_CASE("a region lost costs batch, not those who wait for an answer", "[simulation]") {
    const auto run = [](const std::string& happening) {
        auto scenario = parse_scenario(
            R"({"scenario":"zones","seconds":60,"warmup_s":10}
{"workers":4,"zone":"north","slots":8}
{"workers":4,"zone":"south","slots":8}
{"orgs":20,"name":"online","rate":0.6,"output_tokens":60,"ttft_ms":4000}
{"orgs":2,"name":"batch","class":"batch","rate":4,"output_tokens":60,"ttft_ms":0}
)" + happening);
        INFO((scenario ? "" : scenario.error().what));
        REQUIRE(scenario.has_value());
        auto result = simulate(*scenario, {});
        REQUIRE(result.has_value());
        return *result;
    };
    const auto whole = run("");
    const auto lost = run(R"({"at":25,"lose_zone":"north"})");
    INFO(whole.table() << lost.table());
    CHECK(whole.groups[1].overloaded == 0);
    CHECK(lost.groups[1].overloaded > 20);
    CHECK(lost.groups[0].broken == 0);
    CHECK(static_cast<double>(lost.groups[0].good) >=
          0.95 * static_cast<double>(whole.groups[0].good));
}

TEST_CASE("a body is cut to fewer tokens, and else is what it was", "[brownout]") {
    const auto cut = [](const std::string& body, uint64_t most) {
        return with_max_tokens(body, most).value_or("-");
    };
    CHECK(cut(R"({"model":"m","max_tokens":4096,"messages":[{"max_tokens":9000}]})", 1024) ==
          R"({"model":"m","max_tokens":1024,"messages":[{"max_tokens":9000}]})");
    CHECK(cut(R"({"messages":[{"max_tokens":9000,"x":"max_tokens\":5"}], "max_tokens" : 2000 })",
              7) ==
          R"({"messages":[{"max_tokens":9000,"x":"max_tokens\":5"}], "max_tokens" : 7 })");
    CHECK(cut(R"({"max_tokens":1024})", 1024) == "-");
    CHECK(cut(R"({"max_tokens":5})", 1024) == "-");
    CHECK(cut(R"({"messages":[{"max_tokens":9000}]})", 1024) == "-");
    CHECK(cut(R"({"max_tokens":"4096"})", 1024) == "-");
    CHECK(cut(R"({"max_tokens":-4096})", 1024) == "-");
    CHECK(cut(R"({"max_tokens":1e9})", 1024) == "-");
    CHECK(cut(R"([1,2])", 1024) == "-");
    CHECK(cut(R"({"max_tokens":40)", 1024) == "-");
    CHECK(cut("", 1024) == "-");
}

TEST_CASE("who comes back after the time that a refusal names is taken, a while before is not",
          "[admission]") {
    Scheduler scheduler;
    const ModelId model = scheduler.model_id("m");
    auto one = hello("w", "");
    one.slots = 1;
    scheduler.worker_joined(1, one);
    Arrival a;
    a.org = "busy";
    a.model = model;
    a.bytes = 400;
    a.max_tokens = 100;
    int64_t now_ms = 0;
    // A second each, on one slot; whoever is next starts as one ends.
    std::optional<Started> runs;
    const auto second = [&] {
        now_ms += 1000;
        if (runs) {
            scheduler.first_event(runs->ticket, now_ms);
            scheduler.ended(runs->ticket, 1.0, pipe::Usage{100, 0, 100}, true, now_ms);
        }
        runs = scheduler.next(now_ms);
        scheduler.tick(now_ms);
    };
    const auto waits = [&](Arrival arrival) {
        return std::holds_alternative<Ticket>(scheduler.arrive(arrival, now_ms));
    };
    for (int i = 0; i < 30; ++i) {  // what one costs is learnt
        REQUIRE(waits(a));
        second();
    }
    for (int i = 0; i < 20; ++i) REQUIRE(waits(a));
    second();
    Arrival tight = a;
    tight.deadline_ms = now_ms + 8000;
    const auto refused = scheduler.arrive(tight, now_ms);
    REQUIRE(std::holds_alternative<Refusal>(refused));
    const Refusal& why = std::get<Refusal>(refused);
    CHECK(why.status == "rate_limit_error");
    CHECK(why.reason == "late");
    INFO(why.message << ", come back after " << why.retry_after_s << " s");
    CHECK(why.retry_after_s >= 5);
    CHECK(why.retry_after_s <= 25);
    const int64_t until_ms = now_ms + 1000 * int64_t{why.retry_after_s};
    while (now_ms < until_ms - 5000) second();
    tight.deadline_ms = now_ms + 8000;
    CHECK(std::holds_alternative<Refusal>(scheduler.arrive(tight, now_ms)));
    while (now_ms < until_ms) second();
    tight.deadline_ms = now_ms + 8000;
    const auto then = scheduler.arrive(tight, now_ms);
    INFO("then: " << (std::holds_alternative<Refusal>(then)
                          ? std::get<Refusal>(then).reason + ", " + std::get<Refusal>(then).message
                          : "taken"));
    CHECK(std::holds_alternative<Ticket>(then));
}
