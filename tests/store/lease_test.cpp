#include "store/lease.hpp"

#include <sys/wait.h>
#include <unistd.h>

#include "base/file.hpp"
#include "store/fixture.hpp"
#include "store/follower.hpp"

namespace parley::store {

TEST_CASE("A lease has one holder, and is free once that one gives it up") {
    TempDir dir;
    const std::string path = dir.path() + "/lease";
    base::ManualClock clock;
    auto first = Lease::try_take(path, 1000, clock);
    REQUIRE(first);
    REQUIRE(*first);
    auto second = Lease::try_take(path, 1000, clock);
    REQUIRE(second);
    CHECK_FALSE(*second);
    first->reset();
    auto third = Lease::try_take(path, 1000, clock);
    REQUIRE(third);
    REQUIRE(*third);
    CHECK((*third)->epoch() == 2);
}

TEST_CASE("Who stood still longer than the lease is overtaken, and does nothing more") {
    TempDir dir;
    const std::string path = dir.path() + "/lease";
    base::ManualClock clock;
    auto first = std::move(**Lease::try_take(path, 1000, clock));
    clock.advance_ms(600);
    int ran = 0;
    const auto work = [&]() -> base::Result<void> {
        ++ran;
        return {};
    };
    REQUIRE(first.guard(work));  // renews
    clock.advance_ms(900);
    CHECK_FALSE(*Lease::try_take(path, 1000, clock));
    clock.advance_ms(200);
    auto taken = Lease::try_take(path, 1000, clock);
    REQUIRE(*taken);
    auto refused = first.guard(work);
    REQUIRE_FALSE(refused);
    CHECK(refused.error().code == base::Errc::conflict);
    CHECK(ran == 1);
    REQUIRE((*taken)->guard(work));
    CHECK(ran == 2);
}

TEST_CASE("A dead holder's lease is free at once") {
    TempDir dir;
    const std::string path = dir.path() + "/lease";
    const pid_t child = ::fork();
    if (child == 0) {
        auto lease = Lease::try_take(path, 3'600'000);
        ::_exit(lease && *lease ? 0 : 1);  // without a destructor, as a kill would
    }
    int status = 0;
    REQUIRE(::waitpid(child, &status, 0) == child);
    REQUIRE(WIFEXITED(status));
    REQUIRE(WEXITSTATUS(status) == 0);
    auto next = Lease::try_take(path, 1000);
    REQUIRE(next);
    CHECK(*next);
}

TEST_CASE("A file that is no lease is named") {
    TempDir dir;
    REQUIRE(base::write_file(dir.path() + "/lease", "garbage"));
    auto lease = Lease::try_take(dir.path() + "/lease", 1000);
    REQUIRE_FALSE(lease);
    CHECK(lease.error().code == base::Errc::corrupt);
}

TEST_CASE("Partitions cover the log once, and a conversation is never cut") {
    Fixture f;
    std::vector<Ulid> convs;
    for (int i = 0; i < 400; ++i) convs.push_back(f.conversation());
    for (const Ulid& conv : convs) f.run(f.send_to(conv).json());
    const auto changes = *f.reader->changes(0, 10'000);
    REQUIRE(changes.size() > 80);
    size_t used = 0;
    for (const uint32_t count : {1u, 2u, 5u}) {
        std::vector<size_t> part_sizes;
        for (const Change& change : changes) {
            size_t in = 0;  // how many parts it is in
            for (uint32_t k = 0; k < count; ++k)
                in += Partition{k, count}.has(change) ? 1 : 0;
            CHECK(in == 1);
        }
        for (uint32_t k = 0; k < count; ++k) {
            size_t size = 0;
            for (const Ulid& conv : convs) size += Partition{k, count}.has(conv) ? 1 : 0;
            used += size > 0 ? 1 : 0;
        }
    }
    CHECK(used == 8);  // no part is empty
    for (const Ulid& conv : {convs[0], convs[7], convs[77]})
        for (const Change& change : changes)
            if (change.json.find(show_id(kConv, conv)) != std::string::npos)
                CHECK(Partition{1, 3}.has(change) == Partition{1, 3}.has(conv));
}

TEST_CASE("A partition counts from 0 or from 1, and nothing else") {
    CHECK(Partition::parse("0/3")->index == 0);
    CHECK(Partition::parse("3/3")->index == 0);
    CHECK(Partition::parse("2/3")->index == 2);
    for (const char* text : {"", "1", "/", "1/", "/2", "4/3", "-1/2", "1/0", "0/4097", "1/2x", "a/b"}) {
        INFO(text);
        CHECK_FALSE(Partition::parse(text));
    }
}

}  // namespace parley::store
