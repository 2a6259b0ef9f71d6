// What the router tells its breakers, and what the scheduler does about their word.
#include <algorithm>

#include "dispatch/router.hpp"

namespace parley::dispatch {

void Router::obey(pipe::Peer worker, const std::string& hash) {
    if (const Worker* known = workers().find(worker))
        scheduler_.worker_serves(worker, hash, breakers_.allows({known->name, hash}));
}

void Router::obey_all(pipe::Peer worker, const pipe::HelloMeta& hello) {
    for (const auto& model : hello.models) obey(worker, model.hash);
}

void Router::breaker_ended(const Running& running, const pipe::EndMeta& end) {
    const Worker* worker = workers().find(running.worker);
    if (worker == nullptr) return;
    // A worker that drains, or whose client left, says nothing of itself; one that is lost is one
    // failure, however many streams it had: after the first it counts as draining.
    const auto how = end.ok() ? Breakers::End::good
                     : end.status == "api_error" && end.reason != "draining" && !running.gone &&
                             !(end.reason == "peer_gone" && worker->draining)
                         ? Breakers::End::failed
                         : Breakers::End::neutral;
    if (breakers_.ended({worker->name, running.job.model}, how, options_.clock->mono_ms()))
        obey(running.worker, running.job.model);
}

void Router::tick_breakers(int64_t now_ms) {
    for (const auto& [name, hash] : breakers_.tick(now_ms))
        for (const auto& [peer, worker] : workers().all())
            if (worker.name == name &&
                std::count(worker.models.begin(), worker.models.end(), hash) > 0) {
                obey(peer, hash);
                break;
            }
}

}  // namespace parley::dispatch
