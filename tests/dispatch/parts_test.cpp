#include <catch2/catch.hpp>

#include "dispatch/catalogue.hpp"
#include "dispatch/queue.hpp"
#include "dispatch/workers.hpp"

using namespace parley;
using namespace parley::dispatch;

namespace {

Job job(const std::string& id, pipe::Class cls = pipe::Class::streaming,
        const std::string& model = "m", int64_t deadline_ms = 0) {
    Job out;
    out.ask.id = id;
    out.ask.envelope.cls = cls;
    out.ask.body = "{}";
    out.model = model;
    out.deadline_ms = deadline_ms;
    return out;
}

std::string take(Queue& queue, const std::string& only = "") {
    auto taken =
        queue.take([&](const std::string& model) { return only.empty() || model == only; });
    return taken ? taken->ask.id : "-";
}

pipe::HelloMeta hello(const std::string& name, uint32_t slots, std::vector<std::string> models) {
    pipe::HelloMeta out;
    out.name = name;
    out.slots = slots;
    for (auto& hash : models) out.models.push_back({hash, hash, "llama", 100, 100});
    return out;
}

}  // namespace

TEST_CASE("interactive goes before streaming before batch, first come first served inside",
          "[dispatch]") {
    Queue queue({});
    for (const char* id : {"s1", "s2"}) REQUIRE(queue.push(job(id)).has_value());
    REQUIRE(queue.push(job("b1", pipe::Class::batch)).has_value());
    REQUIRE(queue.push(job("i1", pipe::Class::interactive)).has_value());
    for (const char* id : {"i1", "s1", "s2", "b1", "-"}) REQUIRE(take(queue) == id);
}

TEST_CASE("a continuation waits at the head of its class", "[dispatch]") {
    Queue queue({});
    REQUIRE(queue.push(job("s1")).has_value());
    Job cut = job("cut");
    cut.ask.envelope.continuation = pipe::Continuation{};
    REQUIRE(queue.push(std::move(cut)).has_value());
    REQUIRE(take(queue) == "cut");
    REQUIRE(take(queue) == "s1");
}

TEST_CASE("a model without a free worker holds back nobody else's requests", "[dispatch]") {
    Queue queue({});
    REQUIRE(queue.push(job("big", pipe::Class::streaming, "large")).has_value());
    REQUIRE(queue.push(job("small", pipe::Class::streaming, "tiny")).has_value());
    REQUIRE(take(queue, "tiny") == "small");
    REQUIRE(take(queue, "tiny") == "-");
    REQUIRE(take(queue, "large") == "big");
}

TEST_CASE("a full queue refuses by count and by bytes, and throws nothing out", "[dispatch]") {
    Queue queue({2, 1 << 20});
    REQUIRE(queue.push(job("a")).has_value());
    REQUIRE(queue.push(job("b")).has_value());
    REQUIRE(queue.push(job("c", pipe::Class::interactive)).error().code == base::Errc::again);
    REQUIRE(queue.size() == 2);
    REQUIRE(take(queue) == "a");
    Job large = job("d");
    large.ask.body = std::string(2 << 20, 'x');
    REQUIRE(queue.push(std::move(large)).error().code == base::Errc::again);
    REQUIRE(take(queue) == "b");
    REQUIRE(queue.bytes() == 0);
}

TEST_CASE("what waits past its deadline is handed back once, the rest stays", "[dispatch]") {
    Queue queue({});
    REQUIRE(queue.push(job("soon", pipe::Class::batch, "m", 100)).has_value());
    REQUIRE(queue.push(job("later", pipe::Class::streaming, "m", 200)).has_value());
    REQUIRE(queue.push(job("never")).has_value());
    REQUIRE(queue.expire(99).empty());
    const auto late = queue.expire(150);
    REQUIRE(late.size() == 1);
    REQUIRE(late[0].ask.id == "soon");
    REQUIRE(queue.remove("later").has_value());
    REQUIRE_FALSE(queue.remove("later").has_value());
    REQUIRE(queue.size() == 1);
}

TEST_CASE("the least loaded worker with a free slot is chosen, by share of its slots",
          "[dispatch]") {
    Workers workers;
    workers.join(1, hello("small", 2, {"m"}));
    workers.join(2, hello("large", 8, {"m", "other"}));
    workers.started(1);
    REQUIRE(workers.choose("m") == 2u);
    for (int i = 0; i < 5; ++i) workers.started(2);
    REQUIRE(workers.choose("m") == 1u);  // 1/2 before 5/8
    workers.started(1);
    REQUIRE(workers.choose("m") == 2u);
    for (int i = 0; i < 3; ++i) workers.started(2);
    REQUIRE_FALSE(workers.choose("m").has_value());
    workers.ended(1, 0.5);
    REQUIRE(workers.choose("m") == 1u);
    REQUIRE_FALSE(workers.choose("unknown").has_value());
}

TEST_CASE("a draining or departed worker is not chosen", "[dispatch]") {
    Workers workers;
    workers.join(1, hello("a", 4, {"m"}));
    workers.join(2, hello("b", 4, {"m"}));
    workers.drain(1);
    REQUIRE(workers.choose("m") == 2u);
    pipe::StatusMeta status;
    status.draining = true;
    workers.report(2, status);
    REQUIRE_FALSE(workers.choose("m").has_value());
    REQUIRE_FALSE(workers.has("m"));
    workers.leave(1);
    workers.leave(2);
    REQUIRE(workers.all().empty());
}

TEST_CASE("a HELLO said again changes the models and forgets no request in flight", "[dispatch]") {
    Workers workers;
    workers.join(1, hello("a", 2, {"m"}));
    workers.started(1);
    workers.join(1, hello("a", 2, {"n"}));
    REQUIRE_FALSE(workers.choose("m").has_value());
    workers.started(1);
    REQUIRE_FALSE(workers.choose("n").has_value());
}

TEST_CASE("names, hashes and aliases resolve; rings and unknown names do not", "[dispatch]") {
    Catalogue catalogue;
    REQUIRE_FALSE(catalogue.resolve("default").has_value());
    catalogue.replace(
        {{"h1", "smol"}, {"h2", "large"}},
        {{"chat", "smol"}, {"best", "chat"}, {"a", "b"}, {"b", "a"}, {"gone", "deleted"}});
    REQUIRE(catalogue.resolve("smol") == "h1");
    REQUIRE(catalogue.resolve("h2") == "h2");
    REQUIRE(catalogue.resolve("best") == "h1");
    REQUIRE_FALSE(catalogue.resolve("a").has_value());
    REQUIRE_FALSE(catalogue.resolve("gone").has_value());
    REQUIRE_FALSE(catalogue.resolve("claude").has_value());
}

TEST_CASE("the first model is the default until somebody says otherwise", "[dispatch]") {
    Catalogue catalogue;
    catalogue.add({"h1", "smol"});
    catalogue.add({"h2", "large"});
    REQUIRE(catalogue.resolve("default") == "h1");
    catalogue.replace({{"h1", "smol"}, {"h2", "large"}}, {{"default", "large"}});
    REQUIRE(catalogue.resolve("default") == "h2");
}

TEST_CASE("a version heard of in a HELLO survives a reading of the store that lacks it",
          "[dispatch]") {
    Catalogue catalogue;
    catalogue.add({"h9", "new"});
    catalogue.replace({{"h1", "smol"}}, {});
    REQUIRE(catalogue.resolve("new") == "h9");
    REQUIRE(catalogue.resolve("default") == "h1");
}
