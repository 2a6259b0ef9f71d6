// How fast a search is over many messages. Hidden: search_test "[bench]"; PARLEY_BENCH_MESSAGES is how many
// (default 20,000), PARLEY_BENCH_USERS between how many users they are shared (default 1: all of them one's).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <random>

#include "search/index.hpp"
#include "store/fixture.hpp"

namespace parley::search {
namespace {

uint32_t setting(const char* name, uint32_t otherwise) {
    const char* text = std::getenv(name);
    return text ? static_cast<uint32_t>(std::strtoul(text, nullptr, 10)) : otherwise;
}

// Words as often as in a language: the r-th most frequent of 50,000 in proportion to 1/r.
class Words {
  public:
    Words() {
        double sum = 0;
        for (size_t rank = 1; rank <= 50'000; ++rank) sums_.push_back(sum += 1.0 / rank);
    }
    std::string draw(std::mt19937_64& random) const {
        const double at = std::uniform_real_distribution<double>(0, sums_.back())(random);
        return word(static_cast<size_t>(std::lower_bound(sums_.begin(), sums_.end(), at) -
                                        sums_.begin()));
    }
    static std::string word(size_t rank) {
        std::string out;
        for (size_t n = rank + 20; n > 0; n /= 20) {
            out += "bcdfghklmnprstvwxyzj"[n % 20];
            out += "aeiou"[n % 5];
        }
        return out;
    }

  private:
    std::vector<double> sums_;
};

Ulid id(uint32_t kind, uint32_t number) {
    Ulid out;
    for (int i = 0; i < 4; ++i) {
        out.bytes[static_cast<size_t>(i)] = static_cast<uint8_t>(kind >> (24 - 8 * i));
        out.bytes[static_cast<size_t>(12 + i)] = static_cast<uint8_t>(number >> (24 - 8 * i));
    }
    return out;
}

}  // namespace

TEST_CASE("A search over many messages takes under 50 ms at p99", "[.][bench]") {
    const uint32_t messages = setting("PARLEY_BENCH_MESSAGES", 20'000);
    const uint32_t users = setting("PARLEY_BENCH_USERS", 1);
    store::TempDir dir;
    const Words words;
    std::mt19937_64 random(1);
    const auto now = [] {
        return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch())
            .count();
    };
    auto writer = std::move(*IndexWriter::open(dir.path()));
    const double begun = now();
    for (uint32_t n = 0; n < messages; ++n) {
        Document document{id('u', n % users), id('c', n / 20), id('m', n), {}};
        const auto length = 5 + random() % 40;
        for (size_t w = 0; w < length; ++w) document.text += words.draw(random) + ' ';
        REQUIRE(writer->add(document));
        if (n % 50'000 == 49'999) REQUIRE(writer->commit(n));
    }
    REQUIRE(writer->commit(messages));
    std::printf("%u messages of %u users: indexed in %.1f s\n", messages, users, now() - begun);
    auto index = std::move(*Index::open(dir.path()));
    const auto tried = [&](const char* name, auto make) {
        std::vector<double> took;
        size_t hits = 0;
        for (int n = 0; n < 300; ++n) {
            const Query query = *Query::parse(make());
            const double from = now();
            auto found = index->find(id('u', static_cast<uint32_t>(random() % users)), query, 20, "");
            took.push_back((now() - from) * 1000);
            REQUIRE(found);
            hits += found->hits.size();
        }
        std::sort(took.begin(), took.end());
        const double p99 = took[took.size() * 99 / 100];
        std::printf("  %-28s p50 %7.2f ms  p99 %7.2f ms  max %7.2f ms  (%zu hits)\n", name,
                    took[took.size() / 2], p99, took.back(), hits);
        return p99;
    };
    const auto any = [&] { return words.draw(random); };
    // What people search for stands out: not among the hundred most frequent words.
    const auto telling = [&] { return Words::word(100 + random() % 20'000); };
    CHECK(tried("a telling word", telling) < 50);
    CHECK(tried("two telling words", [&] { return telling() + ' ' + telling(); }) < 50);
    CHECK(tried("a prefix of 4 letters", [&] { return telling().substr(0, 4) + '*'; }) < 50);
    CHECK(tried("any word as it is spoken", any) < 50);
    CHECK(tried("two words as spoken", [&] { return any() + ' ' + any(); }) < 50);
    CHECK(tried("a phrase of two as spoken", [&] { return '"' + any() + ' ' + any() + '"'; }) < 50);
}

}  // namespace parley::search
