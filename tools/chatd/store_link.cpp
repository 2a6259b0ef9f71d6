#include "store_link.hpp"

namespace parley::chatd {

base::Result<std::unique_ptr<StoreLink>> StoreLink::open(http::Loop& loop, std::string store_dir,
                                                         store::ClientOptions options) {
    std::unique_ptr<StoreLink> link(new StoreLink(loop, std::move(store_dir)));
    auto client = store::Client::connect(std::move(options));
    if (!client) return base::fail(client.error());
    link->client_ = std::move(*client);
    link->retry();
    StoreLink* self = link.get();
    link->watch_ =
        std::make_unique<http::FdWatch>(loop, link->client_->fd(), [self] { self->step(); });
    link->timer_.every(25, [self] { self->step(); });
    return link;
}

void StoreLink::retry() {
    if (reader_) return;
    if (auto reader = store::open_reader(store_dir_)) reader_ = std::move(*reader);
}

store::Reader* StoreLink::reader() {
    if (!reader_) retry();
    return reader_.get();
}

void StoreLink::step() { client_->step(); }

base::Result<void> StoreLink::submit(std::string command_json, Done done, int64_t deadline_ms) {
    auto submitted = client_->submit(std::move(command_json), std::move(done), deadline_ms);
    // Callbacks may submit: the step comes after them, once for all that were submitted in this turn.
    if (submitted && !*step_posted_) {
        *step_posted_ = true;
        loop_.post([this, posted = step_posted_] {
            *posted = false;
            step();
        });
    }
    return submitted;
}

}  // namespace parley::chatd
