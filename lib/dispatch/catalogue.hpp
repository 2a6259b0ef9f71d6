// Catalogue: what a request may call a model, and which version answers to it.
//
// Names    a version's own name, its hash (64 hex digits), or an alias; an alias may point at an alias
//          (kDepthMax deep; a ring names nothing). Of several versions with one name the newest row
//          counts. The first model there ever was is the alias `default` unless somebody set it.
// Threads  one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

namespace parley::dispatch {

class Catalogue {
  public:
    static constexpr int kDepthMax = 8;

    // Versions in the order in which they were made; all at once, so that a reader never sees half.
    struct Version {
        std::string hash, name;
    };
    struct Alias {
        std::string name, target;
    };
    void replace(const std::vector<Version>& versions, const std::vector<Alias>& aliases);
    void add(const Version& version);  // known from a HELLO, before its row can be read

    std::optional<std::string> resolve(std::string_view name) const;  // the hash
    // The names on the way from this one on: itself, and what aliases on it point at.
    std::vector<std::string> way(std::string_view name) const;
    bool empty() const { return by_hash_.empty(); }

  private:
    std::unordered_map<std::string, std::string> by_hash_;  // hash → name
    std::unordered_map<std::string, std::string> by_name_;  // name → hash
    std::unordered_map<std::string, std::string> aliases_;  // name → name
    std::string first_;
};

}  // namespace parley::dispatch
