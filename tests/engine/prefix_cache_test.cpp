#include "engine/prefix_cache.hpp"

#include <catch2/catch.hpp>
#include <cstdlib>
#include <random>

#include "engine/scheduler.hpp"
#include "fake_forward.hpp"

using namespace parley;
using engine::BlockPool;
using engine::Engine;
using engine::EngineOptions;
using engine::Job;
using engine::PrefixCache;
using engine::PrefixKey;
using engine::Sequence;

namespace {

std::vector<model::Token> tokens(uint32_t seed, size_t count) {
    std::mt19937 random(seed);
    std::vector<model::Token> out;
    for (size_t i = 0; i < count; ++i) out.push_back(static_cast<model::Token>(1 + random() % 23));
    return out;
}

std::vector<PrefixKey> chain(const PrefixKey& root, const std::vector<model::Token>& text) {
    std::vector<PrefixKey> keys;
    for (size_t at = 0; at + 16 <= text.size(); at += 16)
        keys.push_back(
            engine::prefix_key(keys.empty() ? root : keys.back(), std::span(text).subspan(at, 16)));
    return keys;
}

// What a sequence does that computes all of `keys`.
std::vector<uint32_t> compute(BlockPool& pool, PrefixCache& cache,
                              const std::vector<PrefixKey>& keys) {
    std::vector<uint32_t> blocks;
    const auto found = cache.match(keys);
    cache.share(std::span(keys).first(found.blocks), blocks);
    const auto missing = static_cast<uint32_t>(keys.size() - blocks.size());
    if (missing > pool.blocks_free()) cache.evict(missing - pool.blocks_free());
    REQUIRE(pool.take(missing, blocks));
    for (size_t i = found.blocks; i < keys.size(); ++i)
        blocks[i] = cache.keep(keys[i], blocks[i], i == 0, i == 0 ? 0 : blocks[i - 1]);
    return blocks;
}

struct Bench {
    test::FakeForward forward;
    test::FakeVocabulary vocabulary;
    test::RecordingSink sink;
    base::ManualClock clock;
    EngineOptions options;
    std::unique_ptr<Engine> engine;

    void open() {
        forward.clock = &clock;
        engine = std::make_unique<Engine>(forward, vocabulary, options, sink, clock);
        sink.engine = engine.get();
    }
    void run() {
        while (engine->step()) {
        }
    }
    engine::Handle submit(Job job) {
        const auto handle = engine->submit(std::move(job));
        REQUIRE(handle);
        return *handle;
    }
    uint64_t hits() const { return engine->stats().prefix_hit_tokens; }
};

Job job(uint32_t prompt_seed, size_t shared, size_t own, std::string tenant = "acme",
        uint64_t max_tokens = 40) {
    Job j;
    j.prompt = tokens(1, shared);
    for (const auto token : tokens(100 + prompt_seed, own)) j.prompt.push_back(token);
    j.max_tokens = max_tokens;
    j.sampling.temperature = prompt_seed % 2 == 0 ? 0.0f : 1.0f;
    j.sampling.seed = 1000 + prompt_seed;
    if (prompt_seed % 3 == 0) j.sampling.repetition_penalty = 1.2f;
    if (prompt_seed % 4 == 1) j.stops = {"STOP", "ab"};
    j.credit = 1'000'000;
    j.tenant = std::move(tenant);
    return j;
}

// Without any reuse, and with the engine to itself.
test::RecordingSink::Answer alone(Job j, float end_bias = -2.0f) {
    Bench b;
    b.forward.end_bias = end_bias;
    b.options.prefix_blocks = 0;
    b.open();
    const auto h = b.submit(std::move(j));
    b.run();
    REQUIRE(b.sink.answers[h].finished);
    REQUIRE(b.hits() == 0);
    return b.sink.answers[h];
}

void check_same(const test::RecordingSink::Answer& a, const test::RecordingSink::Answer& b) {
    CHECK(a.text == b.text);
    CHECK(a.ids == b.ids);
    REQUIRE(a.finished);
    REQUIRE(b.finished);
    CHECK(a.finished->reason == b.finished->reason);
    CHECK(a.finished->output_tokens == b.finished->output_tokens);
}

uint32_t seed_of_run() {
    const char* given = std::getenv("PARLEY_TEST_SEED");
    return given != nullptr ? static_cast<uint32_t>(std::strtoul(given, nullptr, 10))
                            : std::random_device()();
}

}  // namespace

TEST_CASE("a block's key depends on every part of what it stands for", "[prefix]") {
    const auto root = engine::prefix_root("hash", "f16", "acme");
    CHECK(root == engine::prefix_root("hash", "f16", "acme"));
    CHECK(root != engine::prefix_root("hash", "f16", "acmf"));
    CHECK(root != engine::prefix_root("hash", "int8", "acme"));
    CHECK(root != engine::prefix_root("hasi", "f16", "acme"));
    CHECK(engine::prefix_root("a", "b", "c") != engine::prefix_root("ab", "", "c"));
    CHECK(engine::private_root("hash", "f16", 7) != engine::prefix_root("hash", "f16", "7"));
    CHECK(engine::private_root("hash", "f16", 7) != engine::private_root("hash", "f16", 8));
    auto text = tokens(5, 48);
    const auto keys = chain(root, text);
    CHECK(chain(root, text) == keys);
    text[3] ^= 1;  // in the first block: all that follow have other keys
    const auto other = chain(root, text);
    for (size_t i = 0; i < 3; ++i) CHECK(keys[i] != other[i]);
}

TEST_CASE("what was used longest ago goes first, and a chain from its end", "[prefix]") {
    BlockPool pool(16);
    PrefixCache cache(pool, 16);
    const auto root = engine::prefix_root("m", "f16", "acme");
    const auto a = chain(root, tokens(1, 48));
    const auto b = chain(root, tokens(2, 48));
    auto fork_text = tokens(1, 32);
    for (const auto token : tokens(3, 16)) fork_text.push_back(token);
    const auto fork = chain(root, fork_text);  // two blocks of a, then its own

    cache.give_back(compute(pool, cache, a));
    cache.give_back(compute(pool, cache, b));
    cache.give_back(compute(pool, cache, fork));
    CHECK(cache.known() == 7);
    CHECK(cache.unused() == 7);
    CHECK(pool.blocks_free() == 9);
    // Ages: a's leaf, then b, then the fork with the two blocks before it.
    CHECK(cache.evict(1) == 1);
    CHECK(cache.match(a).blocks == 2);
    CHECK(cache.match(b).blocks == 3);
    CHECK(cache.evict(2) == 2);
    CHECK(cache.match(b).blocks == 1);
    CHECK(cache.match(fork).blocks == 3);
    const auto reading = compute(pool, cache, a);  // its first two are read again
    CHECK(cache.unused() == 2);                    // b's first, fork's leaf
    CHECK(cache.evict(100) == 2);
    CHECK(cache.match(a).blocks == 3);
    CHECK(cache.unused() == 0);
    cache.give_back(reading);
    CHECK(cache.evict(100) == 3);
    CHECK(pool.blocks_free() == 16);
    CHECK(cache.evicted() == 8);
}

TEST_CASE("no more unused blocks are kept than the bound says, and none with bound 0", "[prefix]") {
    BlockPool pool(16);
    PrefixCache cache(pool, 4);
    const auto root = engine::prefix_root("m", "f16", "acme");
    const auto a = chain(root, tokens(1, 96));
    const auto reading = compute(pool, cache, a);
    CHECK(cache.known() == 6);
    cache.give_back(reading);
    CHECK(cache.unused() == 4);
    CHECK(cache.match(a).blocks == 4);
    CHECK(pool.blocks_free() == 12);
    CHECK_FALSE(PrefixCache(pool, 0).on());
}

TEST_CASE("the same block computed twice is kept once", "[prefix]") {
    BlockPool pool(8);
    PrefixCache cache(pool, 8);
    const auto keys = chain(engine::prefix_root("m", "f16", "acme"), tokens(1, 16));
    std::vector<uint32_t> one, two;
    REQUIRE(pool.take(1, one));
    REQUIRE(pool.take(1, two));
    CHECK(cache.keep(keys[0], one[0], true, 0) == one[0]);
    CHECK(cache.keep(keys[0], two[0], true, 0) == one[0]);
    CHECK(pool.blocks_free() == 7);
    CHECK(pool.references(one[0]) == 3);
    cache.give_back(one);
    CHECK(cache.unused() == 0);
    cache.give_back(one);
    CHECK(cache.unused() == 1);
}

TEST_CASE("a second prompt that begins alike is not computed again, and answers the same",
          "[prefix]") {
    Bench b;
    b.open();
    const auto first = b.submit(job(0, 64, 9));
    b.run();
    CHECK(b.hits() == 0);
    const auto rows = b.engine->stats().prefill_rows;
    const auto second = b.submit(job(1, 64, 9));
    b.run();
    CHECK(b.hits() == 64);
    CHECK(b.engine->stats().prefill_rows - rows <= 9);
    check_same(b.sink.answers[first], alone(job(0, 64, 9)));
    check_same(b.sink.answers[second], alone(job(1, 64, 9)));
    CHECK(b.sink.answers[first].finished->reuse.read_tokens == 0);
    CHECK(b.sink.answers[first].finished->reuse.stored_tokens == 64);
    CHECK(b.sink.answers[second].finished->reuse.read_tokens == 64);
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("of several blocks that begin alike the one with the most is found, while it is kept",
          "[prefix]") {
    BlockPool pool(8);
    PrefixCache cache(pool, 8);
    const auto root = engine::prefix_root("m", "f16", "acme");
    const auto sought = tokens(1, 16);
    std::vector<uint32_t> blocks;
    for (const size_t same : {3u, 11u, 7u}) {
        auto text = std::vector<model::Token>(sought.begin(), sought.begin() + static_cast<long>(same));
        text.resize(16, 99);
        const auto made = compute(pool, cache, chain(root, text));
        cache.describe(made[0], root, text);
        blocks.push_back(made[0]);
    }
    CHECK(cache.part(root, sought).tokens == 11);
    CHECK(cache.part(root, sought).block == blocks[1]);
    CHECK(cache.part(root, std::span(sought).first(5)).tokens == 5);
    CHECK(cache.part(root, {}).tokens == 0);
    CHECK(cache.part(engine::prefix_root("m", "f16", "other"), sought).tokens == 0);
    CHECK(pool.references(blocks[1]) == 2);  // looking takes none
    cache.give_back(std::span(&blocks[1], 1));
    CHECK(cache.evict(1) == 1);
    CHECK(cache.part(root, sought).tokens == 7);
}

TEST_CASE("where two prompts part within a block, the second goes on in a copy of it", "[prefix]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    const auto first = b.submit(job(0, 40, 30));
    for (int i = 0; i < 4; ++i) b.engine->step();  // it decodes while the others read its blocks
    REQUIRE(b.engine->stats().decode_rows > 0);
    const auto second = b.submit(job(1, 40, 30));
    const auto third = b.submit(job(2, 40, 5));
    const auto stranger = b.submit(job(4, 40, 30, "other"));
    b.run();
    CHECK(b.forward.blocks_copied == 2);
    CHECK(b.engine->stats().prefix_copied == 2);
    CHECK(b.sink.answers[second].finished->reuse.read_tokens == 40);
    CHECK(b.sink.answers[third].finished->reuse.read_tokens == 41);  // one is the same by chance
    CHECK(b.sink.answers[stranger].finished->reuse.read_tokens == 0);
    check_same(b.sink.answers[first], alone(job(0, 40, 30), -100.0f));
    check_same(b.sink.answers[second], alone(job(1, 40, 30), -100.0f));
    check_same(b.sink.answers[third], alone(job(2, 40, 5), -100.0f));
    check_same(b.sink.answers[stranger], alone(job(4, 40, 30, "other"), -100.0f));
    CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
}

TEST_CASE("the last token of a prompt is computed even where all of it is there", "[prefix]") {
    for (const size_t length : {16u, 17u, 31u, 32u, 33u, 64u}) {
        Bench b;
        b.open();
        b.submit(job(0, length, 0));
        b.run();
        const auto again = b.submit(job(0, length, 0));
        b.run();
        CHECK(b.hits() >= (length - 1) / 16 * 16);
        CHECK(b.hits() <= length - 1);
        if (length % 16 == 0) CHECK(b.hits() == length - 1);  // its last block in a copy
        check_same(b.sink.answers[again], alone(job(0, length, 0)));
        Job prompt_only = job(0, length, 0);
        prompt_only.max_tokens = 0;
        const auto nothing = b.submit(std::move(prompt_only));
        b.run();
        REQUIRE(b.sink.answers[nothing].finished);
        CHECK(b.sink.answers[nothing].finished->output_tokens == 0);
    }
}

TEST_CASE("a conversation's next turn goes on behind the answer before it", "[prefix]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    Job turn = job(2, 50, 0, "acme", 30);
    const auto first = b.submit(Job(turn));
    b.run();
    Job next = job(4, 50, 0, "acme", 10);
    for (const auto id : b.sink.answers[first].ids) next.prompt.push_back(id);
    const size_t known = next.prompt.size();
    for (const auto token : tokens(9, 20)) next.prompt.push_back(token);
    const auto second = b.submit(Job(next));
    b.run();
    // The last token of the first answer was never run.
    CHECK(b.hits() == (known - 1) / 16 * 16);
    check_same(b.sink.answers[second], alone(next, -100.0f));
}

TEST_CASE("requests of two orgs, or of none, never find each other's blocks", "[prefix]") {
    Bench b;
    b.open();
    b.submit(job(0, 64, 9, "acme"));
    b.run();
    for (const char* tenant : {"other", "", "", "acme2", "ACME"}) {
        const auto h = b.submit(job(0, 64, 9, tenant));
        b.run();
        INFO("tenant '" << tenant << "'");
        CHECK(b.hits() == 0);
        check_same(b.sink.answers[h], alone(job(0, 64, 9)));
    }
    b.submit(job(0, 64, 9, "acme"));
    b.run();
    CHECK(b.hits() == 64 + 8);  // its own tokens, but for the last
    // Nor do those without org leave anything behind: acme, other, acme2 and ACME have.
    Bench alone_without;
    alone_without.open();
    alone_without.submit(job(0, 64, 9, ""));
    alone_without.run();
    CHECK(alone_without.engine->stats().prefix_blocks == 0);
    // Two models, or two KV types, are told apart by the key.
    CHECK(engine::prefix_root("m", "f16", "acme") != engine::prefix_root("n", "f16", "acme"));
}

TEST_CASE("switched off, nothing is kept and nothing found", "[prefix]") {
    Bench b;
    b.options.prefix_blocks = 0;
    b.open();
    for (int i = 0; i < 2; ++i) {
        const auto h = b.submit(job(0, 64, 9));
        b.run();
        CHECK(b.sink.answers[h].finished->reuse.read_tokens == 0);
        CHECK(b.sink.answers[h].finished->reuse.stored_tokens == 0);
    }
    CHECK(b.hits() == 0);
    CHECK(b.engine->stats().prefix_blocks == 0);
}

TEST_CASE("in a batch of 16 that shares a prefix, chunked and not, answers are the same",
          "[prefix]") {
    std::vector<test::RecordingSink::Answer> expected;
    for (uint32_t n = 0; n < 16; ++n) expected.push_back(alone(job(n, 50, n)));
    for (const uint32_t rows : {16u, 20u, 256u}) {
        for (const bool warm : {false, true}) {
            Bench b;
            b.options.rows_max = rows;
            b.options.prefill_target_ms = b.options.alone_target_ms = 0;
            b.forward.blocks = 128;
            b.open();
            if (warm) {
                b.submit(job(77, 50, 20));
                b.run();
            }
            std::vector<engine::Handle> handles;
            for (uint32_t n = 0; n < 16; ++n) {
                handles.push_back(b.submit(job(n, 50, n)));
                if (n % 4 == 3) b.engine->step();
            }
            b.run();
            for (uint32_t n = 0; n < 16; ++n) check_same(b.sink.answers[handles[n]], expected[n]);
            // Even in one burst on a cold cache, those admitted later find what the first computed.
            CHECK(b.hits() >= (warm ? 16u * 48 : 0u));
            CHECK(b.engine->stats().kv_blocks_free == b.forward.blocks);
        }
    }
}

TEST_CASE("kept blocks are evicted before anyone is preempted", "[prefix]") {
    Bench b;
    b.forward.end_bias = -100.0f;
    b.forward.blocks = 20;
    b.open();
    for (uint32_t n = 0; n < 6; ++n) {  // 6 × 6 blocks, one after the other
        b.submit(job(n, 0, 60, "acme", 30));
        b.run();
    }
    CHECK(b.engine->stats().prefix_evicted > 0);
    CHECK(b.engine->stats().preempted == 0);
    b.submit(job(7, 0, 150, "acme", 100));  // 16 blocks: room is made by eviction alone
    b.submit(job(8, 0, 30, "acme", 10));
    b.run();
    CHECK(b.engine->stats().preempted == 0);
    CHECK(b.engine->stats().kv_blocks_free == 20);
}

TEST_CASE("a preempted sequence finds its own blocks again, with an org and without", "[prefix]") {
    for (const char* tenant : {"acme", ""}) {
        std::vector<test::RecordingSink::Answer> expected;
        for (uint32_t n = 0; n < 8; ++n)
            expected.push_back(alone(job(n, 32, n, tenant, 100), -100));
        Bench b;
        b.forward.end_bias = -100.0f;
        b.forward.blocks = 20;
        b.open();
        std::vector<engine::Handle> handles;
        for (uint32_t n = 0; n < 8; ++n) handles.push_back(b.submit(job(n, 32, n, tenant, 100)));
        b.run();
        CHECK(b.engine->stats().preempted > 0);
        CHECK(b.hits() > 0);
        for (uint32_t n = 0; n < 8; ++n) check_same(b.sink.answers[handles[n]], expected[n]);
        CHECK(b.engine->stats().kv_blocks_free == 20);
    }
}

TEST_CASE("a continuation finds the blocks of the attempt before it", "[prefix]") {
    const Job whole = job(3, 70, 5, "acme", 60);
    const auto expected = alone(whole, -100.0f);
    Bench b;
    b.forward.end_bias = -100.0f;
    b.open();
    Job first = whole;
    first.credit = 30;
    const auto cut = b.submit(std::move(first));
    b.run();
    const auto seen = b.sink.answers[cut];
    REQUIRE(seen.ids.size() >= 20);
    b.engine->cancel(cut);
    Job rest = whole;
    rest.produced = seen.ids;
    rest.released = seen.text.size();
    const auto h = b.submit(std::move(rest));
    b.run();
    CHECK(b.hits() >= 80);
    CHECK(seen.text + b.sink.answers[h].text == expected.text);
    // Only what belongs to the prompt is told.
    CHECK(b.sink.answers[h].finished->reuse.read_tokens == 75);
}

// The accounts of the scheduler itself, under whatever happens.
TEST_CASE("references, free and evictable blocks add up after anything at all", "[prefix]") {
    const uint32_t seed = seed_of_run();
    std::printf("prefix accounts: PARLEY_TEST_SEED=%u\n", seed);
    INFO("PARLEY_TEST_SEED=" << seed);
    std::mt19937 random(seed);
    const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    size_t copied = 0;
    for (int round = 0; round < 20; ++round) {
        engine::SchedulerOptions options;
        options.kv_blocks = 12 + below(30);
        options.slots_max = 1 + below(8);
        options.rows_max = 16 + below(100);
        options.reserve_tokens = below(40);
        options.prefix_blocks = round % 5 == 0 ? below(6) : options.kv_blocks;
        engine::Scheduler scheduler(options);
        std::vector<std::unique_ptr<Sequence>> all;
        engine::Handle next = 1;
        const auto check = [&] {
            std::vector<uint32_t> readers(options.kv_blocks, 0);
            for (const Sequence* s : scheduler.running()) {
                REQUIRE(s->computed <= s->blocks.size() * 16);
                REQUIRE(s->computed < s->tokens.size());
                for (const uint32_t block : s->blocks) ++readers[block];
            }
            for (const Sequence* s : scheduler.waiting()) REQUIRE(s->blocks.empty());
            uint32_t free = 0, unused = 0, known = 0;
            for (uint32_t block = 0; block < options.kv_blocks; ++block) {
                const bool kept = scheduler.prefixes().knows(block);
                REQUIRE(scheduler.pool().references(block) == readers[block] + kept);
                free += readers[block] + kept == 0;
                unused += kept && readers[block] == 0;
                known += kept;
            }
            REQUIRE(scheduler.pool().blocks_free() == free);
            REQUIRE(scheduler.prefixes().unused() == unused);
            REQUIRE(scheduler.prefixes().known() == known);
            REQUIRE(scheduler.blocks_free() == free + unused);
            REQUIRE(unused <= options.prefix_blocks);
        };
        const auto end = [&](size_t i) {
            scheduler.remove(*all[i]);
            all.erase(all.begin() + static_cast<long>(i));
        };
        engine::Plan plan;
        for (int step = 0; step < 300; ++step) {
            if (below(3) == 0 && all.size() < 12) {
                const size_t most = options.kv_blocks * 16 / 2;
                const char* const tenants[] = {"a", "b", ""};
                Job j = job(below(4), below(3) * 20, 1 + below(40), tenants[below(3)]);
                j.prompt.resize(std::min(j.prompt.size(), most));
                j.priority = static_cast<engine::Priority>(below(3));
                auto s = std::make_unique<Sequence>(next, std::move(j));
                s->arrival = s->handle;
                s->tokens = s->job.prompt;
                s->prompt_tokens = static_cast<uint32_t>(s->tokens.size());
                s->produced_max = below(static_cast<uint32_t>(most));
                s->credit = 1;
                s->root = s->job.tenant.empty() ? engine::private_root("m", "f16", next)
                                                : engine::prefix_root("m", "f16", s->job.tenant);
                ++next;
                scheduler.add(*s);
                all.push_back(std::move(s));
            }
            if (below(10) == 0 && !all.empty()) end(below(static_cast<uint32_t>(all.size())));
            if (below(10) == 0 && !all.empty()) {
                Sequence& s = *all[below(static_cast<uint32_t>(all.size()))];
                s.credit = s.credit > 0 ? 0 : 1;
                s.parked = s.held() && below(2) == 0;
            }
            check();
            scheduler.plan(16 + below(32), 64, plan);
            check();
            for (const engine::BlockCopy& copy : plan.copies) {
                REQUIRE(scheduler.pool().references(copy.to) == 1);
                REQUIRE_FALSE(scheduler.prefixes().knows(copy.to));
            }
            copied += plan.copies.size();
            for (const engine::Rows& rows : plan.rows) {
                Sequence& s = *rows.sequence;
                REQUIRE(s.computed + rows.count <= s.blocks.size() * 16);
                // What is written is read by no one else.
                for (uint32_t at = s.computed / 16; at * 16 < s.computed + rows.count; ++at) {
                    REQUIRE(scheduler.pool().references(s.blocks[at]) == 1);
                    REQUIRE_FALSE(scheduler.prefixes().knows(s.blocks[at]));
                }
                s.computed += rows.count;
                if (rows.samples) s.tokens.push_back(static_cast<model::Token>(1 + below(3)));
                scheduler.advanced(s);
            }
            for (size_t i = all.size(); i > 0; --i)
                if (all[i - 1]->produced() > all[i - 1]->produced_max) end(i - 1);
            check();
        }
        while (!all.empty()) end(0);
        check();
        REQUIRE(scheduler.blocks_free() == options.kv_blocks);
    }
    CHECK(copied > 100);
}

TEST_CASE("answers are the same under random company, cancels and shortage", "[prefix]") {
    const uint32_t seed = seed_of_run();
    std::printf("prefix answers: PARLEY_TEST_SEED=%u\n", seed);
    INFO("PARLEY_TEST_SEED=" << seed);
    std::mt19937 random(seed);
    const auto below = [&](uint32_t n) { return static_cast<uint32_t>(random() % n); };
    std::vector<Job> jobs;
    std::vector<test::RecordingSink::Answer> expected;
    for (uint32_t n = 0; n < 24; ++n) {
        jobs.push_back(job(n % 7, n % 3 * 33, 1 + n, n % 2 == 0 ? "a" : "b", 20 + n * 3));
        jobs.back().sampling.seed = n;
        expected.push_back(alone(jobs.back(), -4.0f));
    }
    Bench b;
    b.forward.end_bias = -4.0f;
    b.forward.blocks = 24;
    b.options.rows_max = 48;
    b.open();
    std::map<engine::Handle, size_t> asked;
    for (int step = 0; step < 1500; ++step) {
        if (below(4) == 0 && b.engine->stats().waiting < 8) {
            const size_t n = below(static_cast<uint32_t>(jobs.size()));
            asked[b.submit(Job(jobs[n]))] = n;
        }
        if (below(40) == 0 && !asked.empty()) {
            const auto victim =
                std::next(asked.begin(), below(static_cast<uint32_t>(asked.size())));
            if (!b.sink.answers[victim->first].over()) {
                b.engine->cancel(victim->first);
                asked.erase(victim);
            }
        }
        b.engine->step();
    }
    b.run();
    CHECK(asked.size() > 20);
    CHECK(b.engine->stats().preempted > 0);
    CHECK(b.engine->stats().prefix_evicted > 0);
    CHECK(b.engine->stats().prefix_copied > 0);
    CHECK(b.hits() > 0);
    for (const auto& [handle, n] : asked) {
        INFO("job " << n);
        check_same(b.sink.answers[handle], expected[n]);
    }
    CHECK(b.engine->stats().kv_blocks_free == 24);
}
