// Catalog: the models that can be asked for, their names, and what is known of each for counting.
//
// Read from the store each second (router writes the rows), artifacts from tokenizers/HASH.tok.
// Threads  the loop's; an artifact is immutable and may be used on any.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model/artifact.hpp"
#include "store/reader.hpp"

namespace parley::chatd {

struct Model {
    store::ModelRow row;
    std::shared_ptr<const model::Artifact> artifact;  // null: not there yet
    uint64_t context_tokens() const { return row.context; }
};

// Routing by size, of an alias's rule: what is small goes to `small`, all else to the alias's own model.
struct SizeRule {
    std::string small;
    uint64_t prompt_tokens = 0;  // at most, as the alias's own model counts
    uint64_t max_tokens = 0;     // at most, of the request
    bool say_model = false;      // the answer's `model` is the one that was chosen, not the alias
};
// {"size":{"small":"NAME","prompt_tokens":512,"max_tokens":256,"say":"alias"}}; nullopt: no such rule in it,
// or one that cannot be read.
std::optional<SizeRule> size_rule_of(const std::string& json);

struct Named {
    std::string id;  // model or alias name
    std::shared_ptr<const Model> model;
    int64_t created_ms = 0;
    std::shared_ptr<const SizeRule> rule = {};  // null: none
};

class Catalog {
  public:
    Catalog(std::string tokenizer_dir, std::string wildcard)
        : tokenizer_dir_(std::move(tokenizer_dir)), wildcard_(std::move(wildcard)) {}

    void refresh(store::Reader& reader);
    void set_wildcard(std::string name) { wildcard_ = std::move(name); }
    bool empty() const { return names_.empty(); }
    // By model name, alias, or, where set, the wildcard; null: unknown.
    std::shared_ptr<const Model> find(std::string_view name) const;
    // Of an alias (or of the wildcard's); null: none, or its small model is unknown.
    std::shared_ptr<const SizeRule> rule(std::string_view name) const;
    // What a model is called whose hash the usage log says; the hash itself where it is not known.
    std::string name_of_version(const std::string& hash) const;
    // The name to say below for what a client said: itself, or the wildcard's.
    std::string below(std::string_view name) const;
    std::vector<Named> list() const;  // newest first, aliases after models of the same age

  private:
    std::string tokenizer_dir_;
    std::string wildcard_;
    std::map<std::string, Named, std::less<>> names_;
    std::map<std::string, std::shared_ptr<const model::Artifact>> artifacts_;  // by hash
};

}  // namespace parley::chatd
