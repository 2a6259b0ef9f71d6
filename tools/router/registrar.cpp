#include "registrar.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include "base/json.hpp"
#include "base/log.hpp"
#include "model/artifact.hpp"
#include "store/commands.hpp"
#include "store/ids.hpp"

namespace parley::router {

using base::Level;

base::Result<std::unique_ptr<Registrar>> Registrar::open(const base::Places& places) {
    std::unique_ptr<Registrar> registrar(new Registrar(places));
    if (auto made = base::make_dirs(places.tokenizers()); !made) return base::fail(made.error());
    store::ClientOptions options;
    options.endpoint = places.store_endpoint();
    options.name = "router";
    auto client = store::Client::connect(options);
    if (!client) return base::fail(client.error());
    registrar->client_ = std::move(*client);
    return registrar;
}

void Registrar::on_worker(const std::string& name, bool joined, const std::string& why) {
    if (joined)
        base::log(Level::info, "worker.joined", {{"name", name}});
    else
        base::log(Level::warn, "worker.left", {{"name", name}, {"why", why}});
}

void Registrar::on_models(pipe::Peer worker, const pipe::HelloMeta& hello) {
    pipe::HelloMeta need = workers_->link().self();
    for (const auto& model : hello.models) {
        // The hash becomes a file name.
        if (model.hash.size() != 64 ||
            model.hash.find_first_not_of("0123456789abcdef") != std::string::npos) {
            base::log(Level::error, "model.refused",
                      {{"worker", hello.name}, {"why", "hash is not 64 hex digits"}});
            continue;
        }
        if (::access(path_of(model.hash).c_str(), R_OK) == 0)
            put_row(model);
        else
            need.need.push_back(model.hash);
    }
    if (!need.need.empty()) workers_->link().say_hello(worker, need);
}

void Registrar::on_tokenizer(pipe::Peer worker, const std::string& hash, std::string bytes) {
    const auto* hello = workers_->link().hello_of(worker);
    if (!hello) return;
    const auto artifact = model::Artifact::parse(bytes);
    if (!artifact || artifact->hash() != hash) {
        base::log(Level::error, "tokenizer.refused",
                  {{"worker", hello->name},
                   {"hash", hash},
                   {"why", artifact ? "it names another hash" : artifact.error().what}});
        return;
    }
    if (auto written = base::write_file(path_of(hash), bytes, 0600); !written) {
        base::log(Level::error, "tokenizer.failed",
                  {{"hash", hash}, {"why", written.error().what}});
        return;
    }
    for (const auto& model : hello->models) {
        if (model.hash == hash) put_row(model);
    }
}

void Registrar::put_row(const pipe::ModelInfo& model) {
    if (!put_.insert(model.hash).second) return;
    store::ModelPut put;
    put.hash = model.hash;
    put.name = model.name;
    put.tokenizer = model.hash;
    put.context = model.context_tokens;
    put.output_max = model.output_tokens_max;
    put.info.clear();
    base::JsonWriter(put.info).object().field("architecture", model.architecture).end();
    const auto sent = client_->submit(
        put.json(), [this, hash = model.hash, name = model.name](const store::CommandReply& reply) {
            if (reply.ok())
                return base::log(Level::info, "model.registered",
                                 {{"name", name}, {"hash", hash.substr(0, 12)}});
            put_.erase(hash);  // the next HELLO tries again
            base::log(Level::error, "model.failed", {{"name", name}, {"why", reply.error->what}});
        });
    if (!sent) put_.erase(model.hash);
}

void Registrar::on_rollout(const rollout::Rollout& rollout) {
    const std::string& alias = rollout.spec().alias;
    const rollout::Step& step = rollout.steps().back();
    base::log(rollout.state() == rollout::State::rolled_back ? Level::warn : Level::info,
              "rollout.step",
              {{"alias", alias},
               {"what", step.what},
               {"share", step.share},
               {"version", rollout.spec().canary.substr(0, 12)},
               {"who", step.who},
               {"why", step.why}});
    const auto target = targets_.find(alias);
    store::AliasSet put;
    put.name = alias;
    put.target = rollout.state() == rollout::State::done ? rollout.spec().canary
                 : target == targets_.end()              ? rollout.spec().stable
                                                         : target->second;
    put.rollout = rollout.save();
    put.who = step.who;
    put.why = fmt::format("rollout of {} {} at {:g} %: {}", rollout.spec().canary.substr(0, 12),
                          step.what, 100 * step.share, step.why)
                  .substr(0, 1000);
    const auto sent = client_->submit(put.json(), [alias](const store::CommandReply& reply) {
        if (!reply.ok())
            base::log(Level::error, "rollout.unwritten",
                      {{"alias", alias}, {"why", reply.error->what}});
    });
    if (!sent)
        base::log(Level::error, "rollout.unwritten",
                  {{"alias", alias}, {"why", sent.error().what}});
}

void Registrar::refresh() {
    if (!reader_) {
        auto opened = store::open_reader(places_.store());
        if (!opened) return;  // convstore has not started yet
        reader_ = std::move(*opened);
    }
    const auto change = reader_->last_change();
    if (!change || *change == seen_change_) return;
    const auto models = reader_->models();
    const auto aliases = reader_->aliases();
    if (!models || !aliases) {
        base::log(Level::error, "store.unreadable",
                  {{"why", models ? aliases.error().what : models.error().what}});
        return;
    }
    seen_change_ = *change;
    std::vector<store::ModelRow> rows = *models;
    std::stable_sort(rows.begin(), rows.end(),
                     [](const auto& a, const auto& b) { return a.created_ms < b.created_ms; });
    std::vector<dispatch::Catalogue::Version> versions;
    std::vector<dispatch::Catalogue::Alias> names;
    for (const auto& row : rows) versions.push_back({row.hash, row.name});
    targets_.clear();
    for (const auto& row : *aliases) {
        names.push_back({row.name, row.target});
        targets_[row.name] = row.target;
    }
    router_->catalogue().replace(versions, names);
    for (const auto& row : *aliases) {
        if (row.rollout != "{}")
            if (auto known = router_->rollouts().restore(row.rollout, true); !known)
                base::log(Level::error, "rollout.unreadable",
                          {{"alias", row.name}, {"why", known.error().what}});
        if (const auto hash = router_->catalogue().resolve(row.target))
            router_->rollouts().pointed(row.name, *hash, base::system_clock().wall_ms());
    }
    const auto orgs = reader_->orgs();
    if (!orgs) return base::log(Level::error, "store.unreadable", {{"why", orgs.error().what}});
    for (const auto& org : *orgs)
        if (org.weight > 0)
            router_->scheduler().set_weight(store::show_id(store::kOrg, org.id), org.weight);
}

}  // namespace parley::router
