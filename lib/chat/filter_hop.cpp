#include "chat/filter_hop.hpp"

#include <fmt/format.h>

namespace parley::chat {

using base::Errc;
using base::fail;
using base::Result;

struct FilterHop::Filter final : pipe::AskerHandler {
    FilterHop& hop;
    std::string endpoint;
    bool draining = false;  // said BYE: what runs goes on, nothing new is asked
    std::unique_ptr<pipe::Asker> asker;

    explicit Filter(FilterHop& owner) : hop(owner) {}

    void on_event(const std::string& id, const pipe::EventMeta& meta, std::string body) override {
        hop.sink_.on_event(id, meta, std::move(body));
    }
    void on_end(const std::string& id, const pipe::EndMeta& meta) override {
        // The route goes first: the sink may ask again, and elsewhere, within the call.
        if (const auto route = hop.routes_.find(id);
            route != hop.routes_.end() && route->second == this && !hop.asking_here(this, id))
            hop.routes_.erase(route);
        hop.sink_.on_end(id, meta);
    }
    void on_peer_up(pipe::Peer, const pipe::HelloMeta&) override {
        draining = false;
        if (hop.on_change_) hop.on_change_(endpoint, true, "");
    }
    void on_peer_down(pipe::Peer, const std::string& why) override {
        if (hop.on_change_) hop.on_change_(endpoint, false, why);
    }
    void on_peer_bye(pipe::Peer, const pipe::ByeMeta&) override { draining = true; }
};

Result<std::unique_ptr<FilterHop>> FilterHop::open(pipe::Context& context,
                                                   const FilterHopOptions& options,
                                                   UpstreamSink& sink) {
    if (options.endpoints.empty() || options.endpoints.size() > kFiltersMax)
        return fail(Errc::config, fmt::format("{} filters given; 1 to {} are possible",
                                              options.endpoints.size(), kFiltersMax));
    std::unique_ptr<FilterHop> hop(new FilterHop(sink));
    for (const std::string& endpoint : options.endpoints) {
        auto filter = std::make_unique<Filter>(*hop);
        filter->endpoint = endpoint;
        pipe::AskerOptions asker = options.asker;
        asker.link.endpoint = endpoint;
        asker.link.bind = false;
        auto opened = pipe::Asker::open(context, std::move(asker), *filter);
        if (!opened) return fail("filter", opened.error());
        filter->asker = std::move(*opened);
        hop->filters_.push_back(std::move(filter));
    }
    return hop;
}

FilterHop::FilterHop(UpstreamSink& sink) : sink_(sink) {}

FilterHop::~FilterHop() = default;

FilterHop::Filter* FilterHop::choose() {
    Filter* best = nullptr;
    for (const auto& filter : filters_) {
        if (!filter->asker->up() || filter->draining) continue;
        if (!best || filter->asker->live() < best->asker->live()) best = filter.get();
    }
    return best;
}

Result<void> FilterHop::ask(const std::string& id, const pipe::Envelope& envelope,
                            std::string body) {
    Filter* filter = choose();
    if (!filter) return fail(Errc::unavailable, "no filter is connected");
    if (const auto route = routes_.find(id); route != routes_.end() && route->second != filter)
        route->second->asker->cancel(id, "replaced");
    // ask() may end the lower attempt within the call; its END must not take the new route away.
    asking_ = {filter, &id};
    auto asked = filter->asker->ask(id, envelope, std::move(body));
    asking_ = {};
    if (asked) routes_[id] = filter;
    return asked;
}

bool FilterHop::asking_here(const Filter* filter, const std::string& id) const {
    return asking_.filter == filter && asking_.id && *asking_.id == id;
}

void FilterHop::cancel(const std::string& id, const std::string& reason) {
    if (const auto route = routes_.find(id); route != routes_.end())
        route->second->asker->cancel(id, reason);
}

void FilterHop::grant(const std::string& id, uint32_t credit) {
    if (const auto route = routes_.find(id); route != routes_.end())
        route->second->asker->grant(id, credit);
}

bool FilterHop::up() const { return count_up() > 0; }

size_t FilterHop::count_up() const {
    size_t count = 0;
    for (const auto& filter : filters_) count += filter->asker->up() && !filter->draining;
    return count;
}

size_t FilterHop::count() const { return filters_.size(); }

pipe::Link& FilterHop::link(size_t index) { return filters_[index]->asker->link(); }

void FilterHop::tick() {
    for (const auto& filter : filters_) filter->asker->tick();
}

}  // namespace parley::chat
