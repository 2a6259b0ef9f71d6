#include "roster.hpp"

#include <algorithm>

#include "base/json.hpp"
#include "base/log.hpp"

namespace parley::infer_worker {

using base::Errc;
using base::JsonWriter;
using base::Level;

std::string Roster::list() const {
    std::string out;
    JsonWriter w(out);
    w.object().field("ok", true).key("models").array();
    for (const engine::Model* model : models_.serving())
        w.object()
            .field("name", model->name)
            .field("hash", model->artifact->hash())
            .field("source", model->source)
            .field("kv_blocks", model->forward->kv_blocks())
            .end();
    w.end().field("retiring", models_.retiring()).field("loading", jobs_.size()).end();
    return out;
}

void Roster::command(Command command) {
    switch (command.what) {
        case Command::What::models:
            return command.reply(list());
        case Command::What::unload: {
            const auto hash = models_.hash_of(command.model);
            if (!hash) return command.reply(control_error(hash.error()));
            if (models_.serving().size() == 1)
                return command.reply(control_error(
                    {Errc::conflict, "'" + command.model +
                                         "' is the last model: load another first, or stop the "
                                         "worker with SIGTERM"}));
            models_.retire(*hash);
            announce_();
            base::log(Level::info, "worker.unloading", {{"hash", *hash}});
            std::string out;
            JsonWriter(out).object().field("ok", true).field("hash", *hash).end();
            return command.reply(out);
        }
        case Command::What::load: {
            if (options_.simulate)
                return command.reply(control_error(
                    {Errc::unsupported, "a simulated worker loads no model: its name would lie"}));
            ModelSpec spec;
            spec.file = command.file;
            spec.name = command.name;
            spec.kv_blocks = command.kv_blocks;
            spec.text = command.file;
            Job job;
            job.specs = {spec};
            job.done = [reply = command.reply](base::Result<std::vector<std::string>> hashes) {
                if (!hashes) return reply(control_error(hashes.error()));
                std::string out;
                JsonWriter(out).object().field("ok", true).field("hash", hashes->at(0)).end();
                reply(out);
            };
            jobs_.push_back(std::move(job));
        }
    }
}

void Roster::reload(const Options& fresh, std::function<void(const base::Result<void>&)> done) {
    auto specs = specs_of(fresh);
    if (!specs) return done(base::fail(specs.error()));
    if (fresh.simulate != options_.simulate)
        return done(base::fail(Errc::config, "--simulate cannot change in a running worker"));
    Job job;
    job.whole = true;
    for (ModelSpec& spec : *specs) {
        job.wanted.push_back(spec.text);
        const auto serving = models_.serving();
        if (std::none_of(serving.begin(), serving.end(),
                         [&](const engine::Model* model) { return model->source == spec.text; }))
            job.specs.push_back(std::move(spec));
    }
    job.done = [done = std::move(done)](const base::Result<std::vector<std::string>>& hashes) {
        if (!hashes) return done(base::fail(hashes.error()));
        done({});
    };
    jobs_.push_back(std::move(job));
}

void Roster::tick() {
    for (const std::string& hash : models_.take_freed())
        base::log(Level::info, "worker.unloaded", {{"hash", hash}});
    if (loading_ && loading_->wait_for(std::chrono::seconds(0)) == std::future_status::ready) {
        auto made = loading_->get();
        loading_.reset();
        Job job = std::move(jobs_.front());
        jobs_.pop_front();
        finish(job, std::move(made));
    }
    if (!loading_ && !jobs_.empty())
        loading_ = std::async(
            std::launch::async,
            [specs = jobs_.front().specs, options = options_] { return make_all(specs, options); });
}

void Roster::finish(Job& job, base::Result<std::vector<engine::Model>> made) {
    if (!made) return job.done(base::fail(made.error()));
    if (job.whole) {
        for (const engine::Model* model : models_.serving()) {
            if (std::find(job.wanted.begin(), job.wanted.end(), model->source) != job.wanted.end())
                continue;
            base::log(Level::info, "worker.unloading", {{"hash", model->artifact->hash()}});
            models_.retire(model->artifact->hash());
        }
    }
    std::vector<std::string> hashes;
    base::Result<void> added;
    for (engine::Model& model : *made) {
        hashes.push_back(model.artifact->hash());
        if (auto one = models_.add(std::move(model)); !one && added) added = one;
    }
    announce_();
    if (!added) return job.done(base::fail(added.error()));
    job.done(std::move(hashes));
}

}  // namespace parley::infer_worker
