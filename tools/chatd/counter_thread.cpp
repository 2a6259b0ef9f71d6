#include "counter_thread.hpp"

namespace parley::chatd {

CounterThread::CounterThread(http::Loop& loop, size_t queue_max)
    : loop_(loop), queue_max_(queue_max), thread_([this] { this->loop(); }) {}

CounterThread::~CounterThread() {
    {
        const std::lock_guard lock(mutex_);
        stop_ = true;
    }
    wake_.notify_one();
    thread_.join();
}

bool CounterThread::run(std::function<void()> work, std::function<void()> done) {
    {
        const std::lock_guard lock(mutex_);
        if (jobs_.size() >= queue_max_) return false;
        jobs_.push_back({std::move(work), std::move(done)});
    }
    wake_.notify_one();
    return true;
}

void CounterThread::loop() {
    std::unique_lock lock(mutex_);
    for (;;) {
        wake_.wait(lock, [this] { return stop_ || !jobs_.empty(); });
        if (stop_) return;
        Job job = std::move(jobs_.front());
        jobs_.pop_front();
        lock.unlock();
        job.work();
        loop_.post(std::move(job.done));
        job = {};
        lock.lock();
    }
}

}  // namespace parley::chatd
