#include "http/loop.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <catch2/catch.hpp>
#include <thread>

using namespace parley::http;

TEST_CASE("work posted from another thread runs in the loop", "[loop]") {
    Loop loop;
    std::thread::id ran;
    std::thread poster([&] {
        loop.post([&] {
            ran = std::this_thread::get_id();
            loop.stop();
        });
    });
    loop.run();
    poster.join();
    CHECK(ran == std::this_thread::get_id());
}

TEST_CASE("a timer fires once, can be replaced, repeated, cancelled and destroyed in its callback",
          "[loop]") {
    Loop loop;
    Timer timer(loop);
    int fired = 0;
    timer.after(1, [&] { fired += 100; });
    timer.after(5, [&] { ++fired; });  // replaces the first
    CHECK(timer.active());
    loop.run_for(50);
    CHECK(fired == 1);
    CHECK_FALSE(timer.active());
    timer.every(2, [&] {
        if (++fired == 4) timer.cancel();
    });
    loop.run_for(80);
    CHECK(fired == 4);
    timer.after(1, [&] { fired += 100; });
    timer.cancel();
    loop.run_for(20);
    CHECK(fired == 4);
    auto owned = std::make_unique<Timer>(loop);
    owned->every(1, [&] {
        owned.reset();
        ++fired;
    });
    loop.run_for(20);
    CHECK(fired == 5);
}

TEST_CASE("a watch tells of what was readable before, and after each callback", "[loop]") {
    Loop loop;
    const int fd = ::eventfd(3, EFD_NONBLOCK | EFD_SEMAPHORE);
    int calls = 0;
    {
        // One unit a call: three calls, though nothing new becomes readable in between.
        FdWatch watch(loop, fd, [&] {
            uint64_t value = 0;
            if (::read(fd, &value, sizeof value) == sizeof value) ++calls;
        });
        loop.run_for(50);
        CHECK(calls == 3);
        const uint64_t one = 1;
        REQUIRE(::write(fd, &one, sizeof one) == sizeof one);
        loop.run_for(50);
        CHECK(calls == 4);
    }
    CHECK(::fcntl(fd, F_GETFD) >= 0);  // not closed by the watch
    std::unique_ptr<FdWatch> watch;
    const uint64_t two = 2;
    REQUIRE(::write(fd, &two, sizeof two) == sizeof two);
    watch = std::make_unique<FdWatch>(loop, fd, [&] {
        ++calls;
        watch.reset();
    });
    loop.run_for(50);
    CHECK(calls == 5);
    ::close(fd);
}
