// Every invariant of the fair queue, on random runs: a machine of slots under a virtual clock, with
// predictions that are wrong, reports on the way, failures, cancels and lost workers.
#include "dispatch/fair_queue.hpp"

#include <catch2/catch.hpp>
#include <cmath>
#include <map>
#include <random>

using namespace parley;
using namespace parley::dispatch;

namespace {

constexpr ModelId kModel = 0;
const std::vector<ModelId> kOnly{kModel};

// Requests that run here take `cost` seconds of one slot each.
struct Machine {
    FairQueue queue;
    FairOptions options;
    uint32_t slots;
    std::mt19937_64 random;
    double now = 0, busy = 0;
    struct Run {
        double end, cost, done;
        std::string org;
    };
    std::map<Ticket, Run> runs;
    std::map<Ticket, double> costs;
    std::map<std::string, double> used;
    std::map<std::string, uint32_t> running, most_running;
    std::vector<Ticket> order;
    double predicted_factor = 1;  // of the actual cost

    Machine(FairOptions fair, uint32_t n, uint64_t seed)
        : queue(fair), options(fair), slots(n), random(seed) {}
    double uniform(double a, double b) {
        return a + (b - a) * static_cast<double>(random() >> 11) / 9007199254740992.0;
    }
    Ticket add(const std::string& org, double cost, pipe::Class cls = pipe::Class::streaming) {
        const double predicted = cost * (predicted_factor > 0 ? predicted_factor : uniform(0.3, 3));
        const Ticket ticket = queue.add({org, cls, kModel, predicted, 0, false});
        costs[ticket] = cost;
        return ticket;
    }
    void fill() {
        while (runs.size() < slots) {
            const auto ticket = queue.pick(kOnly, false, Level::batch);
            if (!ticket) return;
            const Item item = *queue.item(*ticket);
            queue.start(*ticket, item.predicted_s);
            runs[*ticket] = {now + costs[*ticket], costs[*ticket], 0, item.org};
            order.push_back(*ticket);
            const uint32_t n = ++running[item.org];
            most_running[item.org] = std::max(most_running[item.org], n);
        }
    }
    void take(Ticket ticket, double cost) {
        const std::string org = runs[ticket].org;
        used[org] += cost;
        busy += cost;
        --running[org];
        runs.erase(ticket);
    }
    // Until the next end; false: nothing runs.
    bool step(bool report = false) {
        fill();
        if (runs.empty()) return false;
        auto first = runs.begin();
        for (auto at = runs.begin(); at != runs.end(); ++at)
            if (at->second.end < first->second.end) first = at;
        now = first->second.end;
        if (report)
            for (auto& [ticket, run] : runs)
                queue.progress(ticket, std::max(0.0, run.cost - (run.end - now)) * 0.999);
        const Ticket ticket = first->first;
        const double cost = first->second.cost;
        take(ticket, cost);
        queue.settle(ticket, cost);
        return true;
    }
    double flow_used() const {
        double sum = 0;
        for (const FlowView& flow : queue.flows()) sum += flow.used_s;
        return sum;
    }
};

}  // namespace

TEST_CASE("two flows that always wait get compute-seconds by weight, within the stated bound",
          "[fair]") {
    for (uint64_t seed = 1; seed <= 40; ++seed) {
        FairOptions options;
        const uint32_t slots = 1 + static_cast<uint32_t>(seed % 7);
        Machine m(options, slots, seed);
        m.predicted_factor = 0;  // wrong by a factor of up to three either way
        const std::vector<std::pair<std::string, double>> orgs = {
            {"a", 1}, {"b", 3}, {"c", 1}, {"tiny", 0.1}};
        for (const auto& [org, weight] : orgs) m.queue.set_weight(org, weight);
        // Of very different kinds: short ones of one, long ones of another.
        const std::map<std::string, double> most = {{"a", 0.2}, {"b", 5}, {"c", 2}, {"tiny", 3}};
        const auto feed = [&] {
            for (const auto& [org, weight] : orgs)
                while (m.queue.waiting(org) < slots + 2) m.add(org, m.uniform(0.01, most.at(org)));
        };
        feed();
        for (int i = 0; i < 3000; ++i) {
            REQUIRE(m.step(i % 3 == 0));
            feed();
            if (i % 50 != 0) continue;
            // U: the most that can be in flight: the slots, full of the longest, predicted thrice.
            for (const auto& [f, wf] : orgs) {
                for (const auto& [g, wg] : orgs) {
                    const double uf = slots * 3 * most.at(f), ug = slots * 3 * most.at(g);
                    const double apart = std::abs(m.used[f] / wf - m.used[g] / wg);
                    INFO("seed " << seed << " " << f << " " << g << " after " << m.now);
                    REQUIRE(apart <= uf / wf + ug / wg + 2 * options.quantum_s);
                }
            }
        }
    }
}

TEST_CASE("what is charged is what was computed, whatever was predicted, cancelled or lost",
          "[fair]") {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
        Machine m({}, 4, seed);
        m.predicted_factor = 0;
        for (int i = 0; i < 2000; ++i) {
            const std::string org = "o" + std::to_string(m.random() % 9);
            const auto cls = static_cast<pipe::Class>(m.random() % 3);
            const Ticket ticket = m.add(org, m.uniform(0.01, 2), cls);
            if (m.random() % 10 == 0) REQUIRE(m.queue.remove(ticket));
            m.fill();
            if (m.runs.size() < 3 && m.random() % 2 == 0) continue;
            const auto victim = m.runs.begin();
            const double done = victim->second.cost * m.uniform(0, 1);
            if (m.random() % 10 == 0) {  // cancelled in mid-run
                const Ticket id = victim->first;
                m.take(id, done);
                m.queue.settle(id, done);
            } else if (m.random() % 10 == 0) {  // its worker died
                const Ticket id = victim->first;
                m.take(id, done);
                m.queue.requeue(id, done, m.costs[id], 0);
                REQUIRE(m.queue.waits(id));
            } else {
                m.step(m.random() % 2 == 0);
            }
        }
        while (m.step()) {
        }
        INFO("seed " << seed);
        REQUIRE(m.queue.waiting() == 0);
        REQUIRE(m.flow_used() == Approx(m.busy).epsilon(1e-6));
        for (const FlowView& flow : m.queue.flows()) {
            REQUIRE(flow.running == 0);
            REQUIRE(flow.flight_s == 0);
            REQUIRE(flow.waiting_s == Approx(0).margin(1e-9));
        }
    }
}

TEST_CASE(
    "caps on requests and on compute-seconds in flight are never exceeded, nor do they starve",
    "[fair]") {
    FairOptions options;
    options.running_max = 3;
    options.flight_s_max = 4;
    Machine m(options, 16, 7);
    for (int i = 0; i < 400; ++i) m.add("o" + std::to_string(i % 5), m.uniform(0.1, 3));
    size_t ended = 0;
    while (m.step(true)) {
        ++ended;
        for (const FlowView& flow : m.queue.flows()) {
            REQUIRE(flow.running <= 3);
            // One more may start as long as less than the cap is in flight.
            REQUIRE(flow.flight_s <= 4 + 3 + 1e-9);
        }
    }
    REQUIRE(ended == 400);
    for (const auto& [org, most] : m.most_running) REQUIRE(most <= 3);
}

TEST_CASE("a flow released from its cap stands at V: it saved nothing up", "[fair]") {
    FairOptions options;
    options.running_max = 1;
    FairQueue queue(options);
    const Ticket slow = queue.add({"capped", pipe::Class::streaming, kModel, 0.1, 0, false});
    queue.start(slow, 0.1);
    queue.add({"capped", pipe::Class::streaming, kModel, 0.1, 0, false});
    Ticket ticket = queue.add({"other", pipe::Class::streaming, kModel, 1, 0, false});
    for (int i = 0; i < 50; ++i) {
        const Ticket behind = queue.add({"other", pipe::Class::streaming, kModel, 1, 0, false});
        REQUIRE(queue.pick(kOnly, false, Level::batch) == ticket);  // the capped one is passed over
        queue.start(ticket, 1);
        queue.settle(ticket, 1);
        ticket = behind;
    }
    const double before = queue.virtual_time(kModel);
    REQUIRE(before > 10);
    queue.settle(slow, 0.1);
    for (const FlowView& flow : queue.flows())
        if (flow.org == "capped") REQUIRE(flow.tag >= before);
}

TEST_CASE("who was idle starts at V: no time is saved up, and none is owed twice", "[fair]") {
    Machine m({}, 1, 3);
    m.add("early", 0.5);
    REQUIRE(m.step());
    for (int i = 0; i < 100; ++i) m.add("busy", 1);
    for (int i = 0; i < 60; ++i) REQUIRE(m.step());
    for (int i = 0; i < 50; ++i) m.add("early", 1);
    const double busy = m.used["busy"], early = m.used["early"];
    for (int i = 0; i < 40; ++i) REQUIRE(m.step());
    // From now on in halves: the 60 s that it had not asked for are gone.
    REQUIRE(std::abs((m.used["busy"] - busy) - (m.used["early"] - early)) <= 2.5);
}

TEST_CASE("a cancelled or failed request gives back what it did not use", "[fair]") {
    FairQueue queue;
    queue.add({"b", pipe::Class::streaming, kModel, 1, 0, false});
    const Ticket ticket = queue.add({"a", pipe::Class::streaming, kModel, 8, 0, false});
    const double before = queue.flow(ticket).tag;
    queue.start(ticket, 8);
    REQUIRE(queue.flow(ticket).tag == Approx(before + 8));
    REQUIRE(queue.flow(ticket).used_tag == Approx(before));
    queue.progress(ticket, 2);
    REQUIRE(queue.flow(ticket).tag == Approx(before + 8));
    REQUIRE(queue.flow(ticket).used_tag == Approx(before + 2));
    queue.progress(ticket, 9);  // beyond the charge: charged at once
    REQUIRE(queue.flow(ticket).tag == Approx(before + 9));
    queue.progress(ticket, 5);  // an old report
    REQUIRE(queue.flow(ticket).tag == Approx(before + 9));
    queue.settle(ticket, 3);
    double after = 0;
    for (const FlowView& flow : queue.flows())
        if (flow.org == "a") after = flow.tag;
    REQUIRE(after == Approx(before + 3));
    queue.settle(ticket, 3);  // twice changes nothing
    REQUIRE(queue.flows().size() == 2);
}

TEST_CASE("a request whose worker died waits at the head of its flow, charged for the work done",
          "[fair]") {
    FairQueue queue;
    const Ticket first = queue.add({"a", pipe::Class::streaming, kModel, 4, 0, false});
    queue.add({"a", pipe::Class::interactive, kModel, 4, 10, false});
    const double tag = queue.flow(first).tag;
    queue.start(first, 4);
    queue.requeue(first, 1.5, 2.5, 0);
    REQUIRE(queue.flow(first).tag == Approx(tag + 1.5));
    REQUIRE(queue.pick(kOnly, false, Level::batch) == first);
}

TEST_CASE("a flow with nothing running goes first, unless it is more than Q ahead", "[fair]") {
    FairQueue queue;
    std::vector<Ticket> flood;
    for (int i = 0; i < 4; ++i)
        flood.push_back(queue.add({"flood", pipe::Class::streaming, kModel, 2, 0, false}));
    queue.start(flood[0], 2);
    const Ticket quiet = queue.add({"quiet", pipe::Class::streaming, kModel, 0.1, 0, false});
    REQUIRE(queue.pick(kOnly, true, Level::online) == quiet);
    queue.start(quiet, 0.1);
    REQUIRE_FALSE(queue.pick(kOnly, true, Level::online).has_value());  // now it runs something
    queue.settle(quiet, 5);  // it was dear: far ahead of the flood's tag of 2
    queue.add({"quiet", pipe::Class::streaming, kModel, 0.1, 0, false});
    REQUIRE_FALSE(queue.pick(kOnly, true, Level::online).has_value());
    REQUIRE(queue.pick(kOnly, false, Level::batch) == flood[1]);
}

TEST_CASE("within Q the flow that gains most by a cached prefix goes, beyond it the least tag",
          "[fair]") {
    FairQueue queue;
    std::map<std::string, Ticket> next;
    for (const char* org : {"a", "b", "c"}) {
        const Ticket run = queue.add({org, pipe::Class::streaming, kModel, 0, 0, false});
        queue.start(run, org[0] == 'a' ? 0.0 : org[0] == 'b' ? 0.2 : 0.3);
        next[org] = queue.add({org, pipe::Class::streaming, kModel, 1, 0, false});
    }
    const auto gain = [&](Ticket ticket) {
        return ticket == next["b"] ? 1.0 : ticket == next["c"] ? 2.0 : 0.0;
    };
    REQUIRE(queue.pick(kOnly, false, Level::batch, gain) == next["b"]);  // c is 0.3 ahead
    REQUIRE(queue.pick(kOnly, false, Level::batch) == next["a"]);
}

TEST_CASE("online to batch is 19 to 1, and interactive to streaming inside a flow 4 to 1",
          "[fair]") {
    Machine m({}, 1, 11);
    std::map<pipe::Class, double> spent;
    std::map<Ticket, pipe::Class> of;
    const auto feed = [&] {
        for (const auto cls :
             {pipe::Class::interactive, pipe::Class::streaming, pipe::Class::batch})
            while (m.queue.waiting(cls) < 3) of[m.add("a", m.uniform(0.05, 0.2), cls)] = cls;
    };
    feed();
    for (int i = 0; i < 20'000; ++i) {
        REQUIRE(m.step());
        spent[of[m.order.back()]] += m.costs[m.order.back()];
        feed();
    }
    const double online = spent[pipe::Class::interactive] + spent[pipe::Class::streaming];
    REQUIRE(online / spent[pipe::Class::batch] == Approx(19).epsilon(0.03));
    REQUIRE(spent[pipe::Class::interactive] / spent[pipe::Class::streaming] ==
            Approx(4).epsilon(0.03));
}

TEST_CASE("no organisation wins by its choice of class: orgs share alike, whatever they send",
          "[fair]") {
    Machine m({}, 2, 5);
    const auto feed = [&] {
        while (m.queue.waiting("plain") < 6) m.add("plain", 0.3);
        while (m.queue.waiting("mixed") < 6)
            m.add("mixed", 0.3, m.random() % 2 ? pipe::Class::interactive : pipe::Class::streaming);
    };
    feed();
    for (int i = 0; i < 2000; ++i) {
        REQUIRE(m.step());
        feed();
    }
    REQUIRE(m.used["plain"] / m.used["mixed"] == Approx(1).epsilon(0.02));
}

TEST_CASE("nobody starves: with a thousand flows of any weight each request starts", "[fair]") {
    Machine m({}, 8, 13);
    m.predicted_factor = 0;
    for (int f = 0; f < 1000; ++f) {
        const std::string org = "o" + std::to_string(f);
        m.queue.set_weight(org, m.uniform(0.1, 10));
        for (int i = 0; i < 3; ++i)
            m.add(org, m.uniform(0.01, 1), static_cast<pipe::Class>(m.random() % 3));
    }
    for (int i = 0; i < 3000; ++i) REQUIRE(m.step());
    REQUIRE(m.queue.waiting() == 0);
    REQUIRE(m.order.size() == 3000);
}

TEST_CASE("V never falls, and a run under a seed repeats exactly", "[fair]") {
    std::vector<Ticket> orders[2];
    for (auto& order : orders) {
        Machine m({}, 5, 99);
        m.predicted_factor = 0;
        double last = 0;
        for (int i = 0; i < 3000; ++i) {
            m.add("o" + std::to_string(m.random() % 50), m.uniform(0.01, 1),
                  static_cast<pipe::Class>(m.random() % 3));
            if (i > 20) m.step(i % 2 == 0);
            REQUIRE(m.queue.virtual_time(kModel) >= last);
            last = m.queue.virtual_time(kModel);
        }
        order = m.order;
    }
    REQUIRE(orders[0] == orders[1]);
}

TEST_CASE("models that share no worker do not compete; from the first common worker on they do",
          "[fair]") {
    FairQueue queue;
    const ModelId a = 0, b = 1;
    queue.join(std::vector<ModelId>{a});
    queue.join(std::vector<ModelId>{b});
    const Ticket heavy = queue.add({"x", pipe::Class::streaming, a, 9, 0, false});
    queue.start(heavy, 9);
    queue.add({"x", pipe::Class::streaming, a, 1, 0, false});
    const Ticket elsewhere = queue.add({"x", pipe::Class::streaming, b, 1, 0, false});
    REQUIRE(queue.flow(elsewhere).tag == 0);  // what it uses on a is not held against it on b
    const Ticket other = queue.add({"y", pipe::Class::streaming, b, 1, 0, false});
    queue.join(std::vector<ModelId>{a, b});
    REQUIRE(queue.pool_of(a) == queue.pool_of(b));
    REQUIRE(queue.flow(elsewhere).tag == Approx(9));
    REQUIRE(queue.flow(elsewhere).waiting == 2);
    REQUIRE(queue.pick(std::vector<ModelId>{a, b}, false, Level::batch) == other);
    queue.settle(heavy, 9);
    REQUIRE(queue.remove(elsewhere));
    REQUIRE(queue.remove(other));
    REQUIRE(queue.waiting() == 1);
}

TEST_CASE("earlier deadlines go first inside a flow, and what is past its own is handed back once",
          "[fair]") {
    FairQueue queue;
    const Ticket late = queue.add({"a", pipe::Class::streaming, kModel, 1, 900, false});
    const Ticket none = queue.add({"a", pipe::Class::streaming, kModel, 1, 0, false});
    const Ticket soon = queue.add({"a", pipe::Class::streaming, kModel, 1, 500, false});
    REQUIRE(queue.pick(kOnly, false, Level::batch) == soon);
    REQUIRE(queue.expire(499).empty());
    REQUIRE(queue.expire(500) == std::vector<Ticket>{soon});
    REQUIRE(queue.pick(kOnly, false, Level::batch) == late);
    queue.start(late, 1);
    REQUIRE(queue.expire(10'000).empty());  // what runs does not expire
    REQUIRE(queue.pick(kOnly, false, Level::batch) == none);
}

TEST_CASE("tags outlive the queue: who had used more still has", "[fair]") {
    std::vector<FairQueue::Saved> saved;
    {
        Machine m({}, 1, 1);
        for (int i = 0; i < 10; ++i) m.add("poor", 1);
        const Ticket dear = m.add("rich", 6);
        m.queue.start(dear, 6);
        m.queue.settle(dear, 6);
        m.add("rich", 1);
        saved = m.queue.save();
    }
    REQUIRE(saved.size() == 1);
    REQUIRE(saved[0].org == "rich");
    REQUIRE(saved[0].beyond == Approx(6));
    REQUIRE(saved[0].used_s == Approx(6));
    FairQueue queue;
    queue.restore(saved);
    // Who has not come yet is not lost to the one after that.
    REQUIRE(queue.save().size() == 1);
    REQUIRE(queue.save()[0].beyond == Approx(6));
    const Ticket rich = queue.add({"rich", pipe::Class::streaming, kModel, 1, 0, false});
    const Ticket poor = queue.add({"poor", pipe::Class::streaming, kModel, 1, 0, false});
    REQUIRE(queue.flow(rich).tag - queue.flow(poor).tag == Approx(6));
    REQUIRE(queue.pick(kOnly, false, Level::batch) == poor);
    REQUIRE(queue.flow(rich).used_s == Approx(6));
}

TEST_CASE("of more flows than are saved those furthest ahead are", "[fair]") {
    std::vector<FairQueue::Saved> saved;
    for (size_t i = 0; i < FairQueue::kSavedMax + 10; ++i)
        saved.push_back({"org-" + std::to_string(i), Level::online, static_cast<double>(i + 1), 1});
    FairQueue queue;
    queue.restore(saved);
    const auto kept = queue.save();
    REQUIRE(kept.size() == FairQueue::kSavedMax);
    REQUIRE(kept.front().beyond == Approx(FairQueue::kSavedMax + 10));
    REQUIRE(kept.back().beyond == Approx(11));
}

TEST_CASE("idle flows are forgotten in time, those ahead of V are not", "[fair]") {
    FairQueue queue;
    const Ticket base = queue.add({"base", pipe::Class::streaming, kModel, 1, 0, false});
    const Ticket dear = queue.add({"dear", pipe::Class::streaming, kModel, 1, 0, false});
    queue.start(dear, 1);
    queue.settle(dear, 1e6);
    for (int i = 0; i < 20'000; ++i) {
        const Ticket t =
            queue.add({"o" + std::to_string(i), pipe::Class::streaming, kModel, 1, 0, false});
        queue.remove(t);
    }
    REQUIRE(queue.flows().size() < 10'000);
    bool kept = false;
    for (const FlowView& flow : queue.flows()) kept |= flow.org == "dear";
    REQUIRE(kept);
    REQUIRE(queue.waits(base));
}
