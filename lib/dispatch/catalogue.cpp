#include "dispatch/catalogue.hpp"

namespace parley::dispatch {

void Catalogue::replace(const std::vector<Version>& versions, const std::vector<Alias>& aliases) {
    const auto heard = by_hash_;  // a version heard of may have no row yet: it is not forgotten
    by_hash_.clear();
    by_name_.clear();
    aliases_.clear();
    first_.clear();
    for (const auto& version : versions) add(version);
    for (const auto& [hash, name] : heard) {
        if (by_hash_.count(hash) == 0 && by_name_.count(name) == 0) add({hash, name});
    }
    for (const auto& alias : aliases) aliases_[alias.name] = alias.target;
}

void Catalogue::add(const Version& version) {
    if (first_.empty()) first_ = version.hash;
    by_hash_[version.hash] = version.name;
    by_name_[version.name] = version.hash;
}

std::vector<std::string> Catalogue::way(std::string_view name) const {
    std::vector<std::string> out{std::string(name)};
    for (int depth = 0; depth < kDepthMax; ++depth) {
        if (by_hash_.count(out.back()) != 0 || by_name_.count(out.back()) != 0) break;
        const auto alias = aliases_.find(out.back());
        if (alias == aliases_.end()) break;
        out.push_back(alias->second);
    }
    return out;
}

std::optional<std::string> Catalogue::resolve(std::string_view name) const {
    std::string at(name);
    for (int depth = 0; depth <= kDepthMax; ++depth) {
        if (by_hash_.count(at) != 0) return at;
        if (const auto named = by_name_.find(at); named != by_name_.end()) return named->second;
        const auto alias = aliases_.find(at);
        if (alias == aliases_.end()) break;
        at = alias->second;
    }
    if (at == "default" && !first_.empty()) return first_;
    return std::nullopt;
}

}  // namespace parley::dispatch
