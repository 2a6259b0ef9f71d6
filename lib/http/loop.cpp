#include "http/loop.hpp"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>

namespace parley::http {

namespace asio = boost::asio;

struct Loop::Impl {
    asio::io_context context{1};
};

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;

void Loop::run() {
    const auto guard = asio::make_work_guard(impl_->context);
    if (impl_->context.stopped()) impl_->context.restart();
    impl_->context.run();
}
void Loop::stop() { impl_->context.stop(); }
void Loop::post(std::function<void()> work) { asio::post(impl_->context, std::move(work)); }
void Loop::run_for(int64_t ms) {
    if (impl_->context.stopped()) impl_->context.restart();
    impl_->context.run_for(std::chrono::milliseconds(ms));
}
asio::io_context& Loop::context() { return impl_->context; }

struct FdWatch::Impl : std::enable_shared_from_this<FdWatch::Impl> {
    asio::posix::stream_descriptor descriptor;
    std::function<void()> on_readable;
    bool alive = true;

    Impl(asio::io_context& context, int fd, std::function<void()> callback)
        : descriptor(context, fd), on_readable(std::move(callback)) {}
    // Each wait re-arms the reactor, which then reports readiness as it is now: no edge is lost
    // between the callback and the next wait.
    void arm() {
        descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                              [self = shared_from_this()](const boost::system::error_code& error) {
                                  if (error || !self->alive) return;
                                  self->on_readable();
                                  if (self->alive) self->arm();
                              });
    }
};

FdWatch::FdWatch(Loop& loop, int fd, std::function<void()> on_readable)
    : impl_(std::make_shared<Impl>(loop.context(), fd, std::move(on_readable))) {
    impl_->arm();
}
FdWatch::~FdWatch() {
    impl_->alive = false;
    impl_->descriptor.release();
}

struct Timer::Impl : std::enable_shared_from_this<Timer::Impl> {
    asio::steady_timer timer;
    uint64_t generation = 0;  // a wait of an older one has been replaced
    bool active = false;

    explicit Impl(asio::io_context& context) : timer(context) {}
    void arm(int64_t ms, bool repeat, std::function<void()> callback) {
        active = true;
        const uint64_t mine = ++generation;
        timer.expires_after(std::chrono::milliseconds(ms));
        timer.async_wait(
            [self = shared_from_this(), mine, ms, repeat,
             callback = std::move(callback)](const boost::system::error_code& error) mutable {
                if (error || self->generation != mine) return;
                self->active = false;
                callback();
                if (repeat && self->generation == mine) self->arm(ms, true, std::move(callback));
            });
    }
};

Timer::Timer(Loop& loop) : impl_(std::make_shared<Impl>(loop.context())) {}
Timer::~Timer() { cancel(); }
void Timer::after(int64_t ms, std::function<void()> callback) {
    impl_->arm(ms, false, std::move(callback));
}
void Timer::every(int64_t ms, std::function<void()> callback) {
    impl_->arm(ms, true, std::move(callback));
}
void Timer::cancel() {
    ++impl_->generation;
    impl_->active = false;
    impl_->timer.cancel();
}
bool Timer::active() const { return impl_->active; }

}  // namespace parley::http
