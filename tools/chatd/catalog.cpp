#include "catalog.hpp"

#include <simdjson.h>

#include <algorithm>

#include "base/file.hpp"
#include "base/log.hpp"

namespace parley::chatd {

void Catalog::refresh(store::Reader& reader) {
    const auto models = reader.models();
    const auto aliases = reader.aliases();
    if (!models || !aliases) return;  // what was known stays known
    std::map<std::string, Named, std::less<>> names;
    std::map<std::string, Named> hashes;
    for (const store::ModelRow& row : *models) {
        const std::string hash = row.tokenizer.empty() ? row.hash : row.tokenizer;
        auto& artifact = artifacts_[hash];
        if (!artifact) {
            const std::string path = tokenizer_dir_ + "/" + hash + ".tok";
            if (auto bytes = base::read_file(path, model::Artifact::kBytesMax)) {
                if (auto parsed = model::Artifact::parse(*bytes)) {
                    artifact = std::make_shared<const model::Artifact>(std::move(*parsed));
                    base::log(base::Level::info, "chatd.tokenizer",
                              {{"hash", hash.substr(0, 12)}, {"model", row.name}});
                } else {
                    base::log(base::Level::warn, "chatd.tokenizer_refused",
                              {{"path", path}, {"error", parsed.error().what}});
                }
            }
        }
        auto model = std::make_shared<Model>(Model{row, artifact});
        hashes[row.hash] = {row.name, model, row.created_ms};
        auto& named = names[row.name];
        // Two versions of one name: the newer one stands for it here; the router decides which answers.
        if (!named.model || named.created_ms < row.created_ms)
            named = {row.name, std::move(model), row.created_ms};
    }
    // An alias may point at a version by its hash, or at another alias, as in the router.
    std::map<std::string, std::string> points;
    for (const store::AliasRow& alias : *aliases) points[alias.name] = alias.target;
    const auto versions = names;
    for (const store::AliasRow& alias : *aliases) {
        if (names.count(alias.name)) continue;
        std::string at = alias.target;
        for (int depth = 0; depth < 8 && points.count(at) && !versions.count(at); ++depth)
            at = points[at];
        const auto hashed = hashes.find(at);
        const auto named = versions.find(at);
        if (hashed == hashes.end() && named == versions.end()) continue;
        const Named& target = hashed != hashes.end() ? hashed->second : named->second;
        names[alias.name] = {alias.name, target.model, target.created_ms};
        if (const auto rule = size_rule_of(alias.rule))
            names[alias.name].rule = std::make_shared<const SizeRule>(*rule);
    }
    names_ = std::move(names);
}

std::shared_ptr<const Model> Catalog::find(std::string_view name) const {
    const auto found = names_.find(name);
    if (found != names_.end()) return found->second.model;
    if (wildcard_.empty()) return nullptr;
    const auto any = names_.find(wildcard_);
    return any == names_.end() ? nullptr : any->second.model;
}

std::optional<SizeRule> size_rule_of(const std::string& json) {
    simdjson::dom::parser parser;
    simdjson::dom::object size;
    if (parser.parse(json)["size"].get(size)) return std::nullopt;
    SizeRule rule;
    std::string_view text;
    if (size["small"].get(text) || text.empty()) return std::nullopt;
    rule.small = text;
    if (size["prompt_tokens"].get(rule.prompt_tokens)) return std::nullopt;
    if (size["max_tokens"].get(rule.max_tokens)) return std::nullopt;
    if (!size["say"].get(text)) rule.say_model = text == "model";
    return rule;
}

std::shared_ptr<const SizeRule> Catalog::rule(std::string_view name) const {
    auto found = names_.find(name);
    if (found == names_.end() && !wildcard_.empty()) found = names_.find(wildcard_);
    if (found == names_.end() || !found->second.rule) return nullptr;
    return names_.contains(found->second.rule->small) ? found->second.rule : nullptr;
}

std::string Catalog::name_of_version(const std::string& hash) const {
    for (const auto& [name, named] : names_)
        if (named.model->row.hash == hash) return named.model->row.name;
    return hash;
}

std::string Catalog::below(std::string_view name) const {
    return names_.find(name) == names_.end() && !wildcard_.empty() ? wildcard_ : std::string(name);
}

std::vector<Named> Catalog::list() const {
    std::vector<Named> all;
    for (const auto& [id, named] : names_) all.push_back(named);
    std::stable_sort(all.begin(), all.end(), [](const Named& a, const Named& b) {
        if (a.created_ms != b.created_ms) return a.created_ms > b.created_ms;
        return (a.id == a.model->row.name) > (b.id == b.model->row.name);
    });
    return all;
}

}  // namespace parley::chatd
