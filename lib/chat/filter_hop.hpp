// FilterHop: the connections to the filters, one each; a request goes to the one with least in flight.
//
// Loop     for each link(): watch fd(), step() when readable and every pipe::kTickMs; then tick().
// Threads  one.
// Bounds   FilterHopOptions::asker; of filters kFiltersMax.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "chat/upstream.hpp"
#include "pipe/asker.hpp"

namespace parley::chat {

inline constexpr size_t kFiltersMax = 16;

struct FilterHopOptions {
    std::vector<std::string> endpoints;
    pipe::AskerOptions asker;  // its link's endpoint is set for each
};

class FilterHop final : public Upstream {
  public:
    static base::Result<std::unique_ptr<FilterHop>> open(pipe::Context& context,
                                                         const FilterHopOptions& options,
                                                         UpstreamSink& sink);
    ~FilterHop() override;

    base::Result<void> ask(const std::string& id, const pipe::Envelope& envelope,
                           std::string body) override;
    void cancel(const std::string& id, const std::string& reason) override;
    void grant(const std::string& id, uint32_t credit) override;
    bool up() const override;

    size_t count() const;
    pipe::Link& link(size_t index);
    void tick();
    // Filters that are up now; told on every change.
    size_t count_up() const;
    void on_change(
        std::function<void(const std::string& endpoint, bool up, const std::string& why)> call) {
        on_change_ = std::move(call);
    }

  private:
    struct Filter;
    explicit FilterHop(UpstreamSink& sink);
    Filter* choose();
    bool asking_here(const Filter* filter, const std::string& id) const;

    UpstreamSink& sink_;
    std::vector<std::unique_ptr<Filter>> filters_;
    std::unordered_map<std::string, Filter*> routes_;  // of live requests, newest attempt
    struct {
        const Filter* filter = nullptr;
        const std::string* id = nullptr;
    } asking_;
    std::function<void(const std::string&, bool, const std::string&)> on_change_;
};

}  // namespace parley::chat
