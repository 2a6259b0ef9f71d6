// Attention over pages against the reference, bit for bit, and against plain arithmetic.
#include <algorithm>
#include <cmath>

#include "kernels/paths.hpp"

namespace parley::kernels {
namespace {

struct Case {
    uint32_t dim;
    std::vector<uint32_t> positions;  // what each query sees
    std::vector<uint32_t> hidden;     // and what of it not; empty: nothing
    std::vector<float> queries;
    KvType type;
    std::vector<std::vector<uint16_t>> pages;

    Case(Random& random, uint32_t dim_in, std::vector<uint32_t> positions_in,
         KvType type_in = KvType::f16)
        : dim(dim_in), positions(std::move(positions_in)), type(type_in) {
        queries = random.reals(positions.size() * dim, 0.3f);
        const uint32_t most = *std::max_element(positions.begin(), positions.end());
        // What nobody has written yet is whatever the memory held: here a NaN, as half and as float.
        pages.assign((most + kPage - 1) / kPage,
                     std::vector<uint16_t>(kv_page_bytes(type, dim) / 2, 0x7fc0));
        for (uint32_t j = 0; j < most; ++j) {
            const auto k = random.reals(dim), v = random.reals(dim);
            reference::kv_append(type, k.data(), v.data(), dim, j % kPage,
                                 pages[j / kPage].data());
        }
    }

    // max, sum and acc of all queries, one after another.
    std::vector<float> run(const Kernels& kernels) const {
        const size_t n = positions.size();
        std::vector<float> out(n * (2 + dim), -7.0f);
        std::vector<const void*> page;
        for (const auto& p : pages) page.push_back(p.data());
        kernels.attention_split({.queries = queries.data(),
                                 .query_count = static_cast<uint32_t>(n),
                                 .head_dim = dim,
                                 .kv_type = type,
                                 .pages = page.data(),
                                 .positions = positions.data(),
                                 .hidden = hidden.empty() ? nullptr : hidden.data(),
                                 .max = out.data(),
                                 .sum = out.data() + n,
                                 .acc = out.data() + 2 * n});
        return out;
    }
};

}  // namespace

TEST_CASE("attention has the reference's bits for every number of queries and positions",
          "[kernels]") {
    const KvType type = GENERATE(KvType::f16, KvType::int8);
    for (const Kernels* path : fast_paths()) {
        Random random{31};
        for (const uint32_t dim : {32u, 64u, 96u, 128u, 256u}) {
            for (uint32_t queries = 1; queries <= kQueriesMax; ++queries) {
                for (const uint32_t first : {1u, 9u, 16u, 17u, 100u, 250u}) {
                    // As in a prompt's chunk: later queries see more.
                    std::vector<uint32_t> positions;
                    for (uint32_t i = 0; i < queries; ++i) {
                        positions.push_back(std::min(kSplit, first + i / 3));
                    }
                    const Case c{random, dim, positions, type};
                    INFO(path->name << " dim " << dim << " queries " << queries << " first "
                                    << first);
                    REQUIRE(first_difference(c.run(*path), c.run(reference::table())) == -1);
                }
            }
        }
        for (uint32_t n = 1; n <= kSplit; ++n) {
            const Case c{random, 64, {n, n, n}, type};
            INFO(path->name << " positions " << n);
            REQUIRE(first_difference(c.run(*path), c.run(reference::table())) == -1);
        }
    }
}

TEST_CASE("a window's attention has the reference's bits and reads no page before it", "[kernels]") {
    const KvType type = GENERATE(KvType::f16, KvType::int8);
    for (const Kernels* path : fast_paths()) {
        Random random{36};
        for (const uint32_t queries : {1u, 2u, 3u, 5u, 8u, 12u, 16u}) {
            for (const uint32_t per_position : {1u, 3u, 4u}) {
                for (const uint32_t window : {1u, 2u, 15u, 16u, 17u, 40u, 200u}) {
                    for (const uint32_t first : {1u, 16u, 17u, 100u, 241u}) {
                        std::vector<uint32_t> positions, hidden;
                        for (uint32_t i = 0; i < queries; ++i) {
                            const uint32_t sees = std::min(kSplit, first + i / per_position);
                            positions.push_back(sees);
                            hidden.push_back(sees > window ? sees - window : 0);
                        }
                        Case c{random, 64, positions, type};
                        c.hidden = hidden;
                        for (uint32_t p = 0; p < hidden[0] / kPage; ++p) {
                            std::fill(c.pages[p].begin(), c.pages[p].end(), uint16_t{0x7fc0});
                        }
                        INFO(path->name << " queries " << queries << " window " << window
                                        << " first " << first);
                        const auto got = c.run(*path);
                        REQUIRE(first_difference(got, c.run(reference::table())) == -1);
                        for (const float x : got) REQUIRE(std::isfinite(x));
                    }
                }
            }
        }
    }
}

TEST_CASE("the reference's window is the softmax over what it shows", "[kernels]") {
    Random random{37};
    const uint32_t dim = 32;
    Case c{random, dim, {100}};
    c.hidden = {63};
    const auto got = c.run(reference::table());
    std::vector<double> out(dim, 0.0);
    double sum = 0;
    for (uint32_t j = 63; j < 100; ++j) {
        const uint16_t* page = c.pages[j / kPage].data();
        double score = 0;
        for (uint32_t d = 0; d < dim; ++d) {
            score += double{c.queries[d]} * reference::f16_to_f32(page[d * kPage + j % kPage]);
        }
        sum += std::exp(score);
        for (uint32_t d = 0; d < dim; ++d) {
            out[d] += std::exp(score) * reference::f16_to_f32(page[(kPage + j % kPage) * dim + d]);
        }
    }
    for (uint32_t d = 0; d < dim; ++d) {
        REQUIRE(got[2 + d] / got[1] == Approx(out[d] / sum).margin(2e-6));
    }
}

TEST_CASE("a query's attention does not depend on the queries beside it", "[kernels]") {
    const KvType type = GENERATE(KvType::f16, KvType::int8);
    std::vector<const Kernels*> paths = fast_paths();
    paths.push_back(&reference::table());
    for (const Kernels* path : paths) {
        Random random{32};
        const uint32_t dim = 64;
        const Case all{
            random, dim, {40, 40, 41, 41, 42, 42, 43, 43, 44, 44, 45, 45, 46, 46, 47, 48}, type};
        const std::vector<float> together = all.run(*path);
        const size_t n = all.positions.size();
        for (size_t i = 0; i < n; ++i) {
            Case one = all;
            one.positions = {all.positions[i]};
            one.queries.assign(all.queries.begin() + i * dim, all.queries.begin() + (i + 1) * dim);
            std::vector<float> expected{together[i], together[n + i]};
            expected.insert(expected.end(), together.begin() + 2 * n + i * dim,
                            together.begin() + 2 * n + (i + 1) * dim);
            INFO(path->name << " query " << i);
            REQUIRE(first_difference(one.run(*path), expected) == -1);
        }
    }
}

TEST_CASE("folding and finishing have the reference's bits", "[kernels]") {
    for (const Kernels* path : fast_paths()) {
        Random random{33};
        for (int round = 0; round < 300; ++round) {
            const uint32_t dim = 32 * (1 + random.below(8));
            float max[2], sum[2];
            max[0] = max[1] = random.real(20.0f);
            sum[0] = sum[1] = 1.0f + random.below(200);
            const float next_max = round % 5 == 0 ? max[0] : random.real(20.0f);
            const float next_sum = 1.0f + random.below(200);
            std::vector<float> fast = random.reals(dim), slow = fast;
            const auto next = random.reals(dim);
            path->attention_fold(&max[0], &sum[0], fast.data(), next_max, next_sum, next.data(),
                                 dim);
            reference::attention_fold(&max[1], &sum[1], slow.data(), next_max, next_sum,
                                      next.data(), dim);
            INFO(path->name << " round " << round);
            REQUIRE(max[0] == max[1]);
            REQUIRE(sum[0] == sum[1]);
            REQUIRE(first_difference(fast, slow) == -1);
            std::vector<float> out_fast(dim), out_slow(dim);
            path->attention_finish(fast.data(), sum[0], dim, out_fast.data());
            reference::attention_finish(slow.data(), sum[1], dim, out_slow.data());
            REQUIRE(first_difference(out_fast, out_slow) == -1);
        }
    }
}

TEST_CASE("the reference's attention over two splits is the softmax up to rounding", "[kernels]") {
    Random random{34};
    const uint32_t dim = 64, positions = 300;
    const Case head{random, dim, {kSplit}};
    Case tail{random, dim, {positions - kSplit}};
    tail.queries = head.queries;
    std::vector<float> total = head.run(reference::table());
    const std::vector<float> next = tail.run(reference::table());
    reference::attention_fold(&total[0], &total[1], &total[2], next[0], next[1], &next[2], dim);
    std::vector<float> out(dim);
    reference::attention_finish(&total[2], total[1], dim, out.data());

    std::vector<double> weight(positions), exact(dim, 0.0);
    double sum = 0;
    const auto page_of = [&](uint32_t j) {
        const Case& c = j < kSplit ? head : tail;
        return c.pages[j % kSplit / kPage].data();
    };
    for (uint32_t j = 0; j < positions; ++j) {
        double score = 0;
        for (uint32_t d = 0; d < dim; ++d) {
            score +=
                double{head.queries[d]} * reference::f16_to_f32(page_of(j)[d * kPage + j % kPage]);
        }
        weight[j] = std::exp(score);
        sum += weight[j];
    }
    for (uint32_t j = 0; j < positions; ++j) {
        for (uint32_t d = 0; d < dim; ++d) {
            exact[d] +=
                weight[j] / sum * reference::f16_to_f32(page_of(j)[(kPage + j % kPage) * dim + d]);
        }
    }
    for (uint32_t d = 0; d < dim; ++d) REQUIRE(out[d] == Approx(exact[d]).margin(2e-6));
}

TEST_CASE("INT8 attention is the softmax over what was rounded, and near the unrounded one",
          "[kernels]") {
    Random random{35};
    const uint32_t dim = 64, positions = 200;
    const auto query = random.reals(dim, 0.3f);
    std::vector<std::vector<float>> k, v;
    Case c{random, dim, {positions}, KvType::int8};
    c.queries = query;
    for (uint32_t j = 0; j < positions; ++j) {
        k.push_back(random.reals(dim));
        v.push_back(random.reals(dim));
        reference::kv_append(KvType::int8, k[j].data(), v[j].data(), dim, j % kPage,
                             c.pages[j / kPage].data());
    }
    const auto got = c.run(reference::table());
    // With keys and values as they were given, or rounded here to 127ths of the head's largest.
    const auto exact = [&](bool rounded) {
        const auto kept = [&](const std::vector<float>& x, uint32_t d) -> double {
            double most = 0;
            for (const float value : x) most = std::max(most, std::fabs(double{value}));
            return rounded ? std::nearbyint(x[d] * 127 / most) * most / 127 : double{x[d]};
        };
        std::vector<double> out(dim, 0.0);
        double sum = 0;
        for (uint32_t j = 0; j < positions; ++j) {
            double score = 0;
            for (uint32_t d = 0; d < dim; ++d) score += double{query[d]} * kept(k[j], d);
            sum += std::exp(score);
            for (uint32_t d = 0; d < dim; ++d) out[d] += std::exp(score) * kept(v[j], d);
        }
        for (double& x : out) x /= sum;
        return out;
    };
    const auto rounded = exact(true), given = exact(false);
    for (uint32_t d = 0; d < dim; ++d) {
        CHECK(got[2 + d] / got[1] == Approx(rounded[d]).margin(3e-6));
        // A key's error is at most 1/254 of its largest, about 0.006 · |query| = 0.014 in the score.
        CHECK(got[2 + d] / got[1] == Approx(given[d]).margin(0.03));
    }
}

TEST_CASE("a head of zeros is kept as zeros in INT8", "[kernels]") {
    std::vector<const Kernels*> paths = fast_paths();
    paths.push_back(&reference::table());
    for (const Kernels* path : paths) {
        const std::vector<float> zeros(32, 0.0f), ones(32, 1.0f);
        alignas(64) uint8_t page[kv_page_bytes(KvType::int8, 32)];
        std::memset(page, 0xff, sizeof page);
        path->kv_append(KvType::int8, zeros.data(), ones.data(), 32, 3, page);
        for (uint32_t d = 0; d < 32; ++d) {
            CHECK(page[d * kPage + 3] == 0);
            CHECK(page[(kPage + 3) * 32 + d] == 127);
        }
        float scale[2 * kPage];
        std::memcpy(scale, page + 2 * kPage * 32, sizeof scale);
        CHECK(scale[3] == 0.0f);
        CHECK(scale[kPage + 3] == 1.0f / 127.0f);
    }
}

TEST_CASE("an unknown path is not found and the best one is", "[kernels]") {
    REQUIRE(find("avx1024") == nullptr);
    REQUIRE(find("") == nullptr);
    REQUIRE(find("reference") == &reference::table());
    REQUIRE(find(best().name) == &best());
    REQUIRE(names().back() == "reference");
}

}  // namespace parley::kernels
