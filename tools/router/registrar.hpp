// Registrar: keeps the store's model rows and the tokenizer files in step with what workers say, and
// the router's catalogue and the weights of organisations in step with the store.
//
// Order    a model's row is written after its HASH.tok is in place: who reads the row can count.
// Loss     while convstore is away the rows wait in the client's queue; names heard in a HELLO resolve
//          at once, without a row.
// Rollouts every step goes into the alias's row, whose history says who and why.
// Threads  the router's loop.
#pragma once

#include <memory>
#include <string>
#include <unordered_map>
#include <unordered_set>

#include "base/file.hpp"
#include "dispatch/router.hpp"
#include "store/client.hpp"
#include "store/reader.hpp"

namespace parley::router {

class Registrar final : public dispatch::ModelSink {
  public:
    static base::Result<std::unique_ptr<Registrar>> open(const base::Places& places);
    void connect(dispatch::Router& router, pipe::Asker& workers) {
        router_ = &router;
        workers_ = &workers;
    }
    store::Client& client() { return *client_; }
    void
    refresh();  // reads models and aliases where the store has changed; call some times a second

  private:
    explicit Registrar(base::Places places) : places_(std::move(places)) {}
    void on_models(pipe::Peer worker, const pipe::HelloMeta& hello) override;
    void on_tokenizer(pipe::Peer worker, const std::string& hash, std::string bytes) override;
    void on_worker(const std::string& name, bool joined, const std::string& why) override;
    void on_rollout(const rollout::Rollout& rollout) override;
    void put_row(const pipe::ModelInfo& model);
    std::string path_of(const std::string& hash) const {
        return places_.tokenizers() + "/" + hash + ".tok";
    }

    base::Places places_;
    dispatch::Router* router_ = nullptr;
    pipe::Asker* workers_ = nullptr;
    std::unique_ptr<store::Client> client_;
    std::unique_ptr<store::Reader> reader_;
    std::unordered_map<std::string, std::string> targets_;  // of aliases, as last read
    uint64_t seen_change_ = UINT64_MAX;
    std::unordered_set<std::string> put_;  // hashes whose row is in the store or on its way
};

}  // namespace parley::router
