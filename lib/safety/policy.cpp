#include "safety/policy.hpp"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <algorithm>
#include <filesystem>
#include <set>

#include "base/file.hpp"
#include "base/text.hpp"
#include "safety/partial.hpp"

namespace parley::safety {
namespace {

constexpr uint64_t kFileBytesMax = 4 << 20;
constexpr uint64_t kWeightsBytesMax = 64 << 20;
constexpr int64_t kRegexMemory = 32 << 20;

constexpr std::array<std::string_view, kVoices> kVoiceNames = {"user", "system", "document",
                                                               "assistant", "output"};

RE2::Options re_options() {
    RE2::Options options;
    options.set_log_errors(false);
    options.set_max_mem(kRegexMemory);
    return options;
}

}  // namespace

std::string_view name(Action action) {
    return action == Action::block ? "block" : action == Action::flag ? "flag" : "allow";
}
std::string_view name(Voice voice) { return kVoiceNames[static_cast<size_t>(voice)]; }

// Walks the TOML tables; the first thing wrong is kept and ends the reading.
struct PolicyReader {
    Policy& policy;
    std::string error;

    bool ok() const { return error.empty(); }
    void stop(std::string what) {
        if (error.empty()) error = std::move(what);
    }

    // Every key of `table` must be among `known`.
    void known(const toml::table& table, const std::string& where,
               std::initializer_list<std::string_view> known) {
        for (const auto& [key, node] : table) {
            const std::string_view name = key.str();
            if (std::find(known.begin(), known.end(), name) == known.end())
                stop(fmt::format("unknown key '{}{}'", where, name));
        }
    }
    template <class T>
    void whole(const toml::table& table, const std::string& where, std::string_view key, T& into,
               int64_t least, int64_t most) {
        const toml::node* node = table.get(key);
        if (!node) return;
        const auto value = node->value_exact<int64_t>();
        if (!value || *value < least || *value > most)
            return stop(
                fmt::format("'{}{}' is not a whole number from {} to {}", where, key, least, most));
        into = static_cast<T>(*value);
    }
    void share(const toml::table& table, const std::string& where, std::string_view key,
               double& into) {
        const toml::node* node = table.get(key);
        if (!node) return;
        const auto value = node->value<double>();
        if (!value || !(*value >= 0 && *value <= 2))
            return stop(fmt::format("'{}{}' is not a number from 0 to 1 (2: never)", where, key));
        into = *value;
    }
    void text(const toml::table& table, const std::string& where, std::string_view key,
              std::string& into) {
        const toml::node* node = table.get(key);
        if (!node) return;
        const auto value = node->value_exact<std::string>();
        if (!value || !base::utf8_valid(*value))
            return stop(fmt::format("'{}{}' is not a string", where, key));
        into = *value;
    }
    const toml::table* table(const toml::table& parent, const std::string& where,
                             std::string_view key) {
        const toml::node* node = parent.get(key);
        if (!node) return nullptr;
        if (!node->is_table()) {
            stop(fmt::format("'{}{}' is not a table", where, key));
            return nullptr;
        }
        return node->as_table();
    }

    void read_thresholds(const toml::table& root) {
        const toml::table* all = table(root, "", "thresholds");
        if (!all) {
            if (!ok()) return;
            if (!root.contains("rule")) return stop("neither [thresholds] nor [[rule]]");
            // Rules alone add to the shipped thresholds: silence about them is no leave to drop them.
            return read_thresholds(toml::parse(builtin_policy_text()));
        }
        for (const auto& [voice_key, voice_node] : *all) {
            const auto found = std::find(kVoiceNames.begin(), kVoiceNames.end(), voice_key.str());
            if (found == kVoiceNames.end())
                return stop(fmt::format("unknown key 'thresholds.{}'", voice_key.str()));
            const std::string where = fmt::format("thresholds.{}.", voice_key.str());
            const toml::table* heads = voice_node.as_table();
            if (!heads) return stop(fmt::format("'thresholds.{}' is not a table", voice_key.str()));
            for (const auto& [head_key, head_node] : *heads) {
                Head head;
                if (!head_from_name(head_key.str(), head))
                    return stop(fmt::format("unknown head '{}{}'", where, head_key.str()));
                const toml::table* values = head_node.as_table();
                if (!values)
                    return stop(fmt::format("'{}{}' is not a table", where, head_key.str()));
                const std::string inner = fmt::format("{}{}.", where, head_key.str());
                known(*values, inner, {"flag", "block"});
                Threshold& into =
                    policy.thresholds_[static_cast<size_t>(found - kVoiceNames.begin())]
                                      [static_cast<size_t>(head)];
                share(*values, inner, "flag", into.flag);
                share(*values, inner, "block", into.block);
            }
        }
    }

    void read_rules(const toml::table& root) {
        const toml::node* node = root.get("rule");
        if (!node) return;
        const toml::array* list = node->as_array();
        if (!list) return stop("'rule' is not an array of tables ([[rule]])");
        std::set<std::string> ids;
        for (const toml::node& item : *list) {
            const toml::table* values = item.as_table();
            if (!values) return stop("a 'rule' is not a table");
            Rule rule;
            std::string side = "both", action;
            known(*values, "rule.", {"id", "side", "pattern", "action", "owner"});
            text(*values, "rule.", "id", rule.id);
            text(*values, "rule.", "side", side);
            text(*values, "rule.", "pattern", rule.pattern);
            text(*values, "rule.", "action", action);
            text(*values, "rule.", "owner", rule.owner);
            if (!ok()) return;
            if (rule.id.empty() || !ids.insert(rule.id).second)
                return stop(fmt::format("rule id '{}' is empty or taken twice", rule.id));
            if (rule.pattern.empty()) return stop(fmt::format("rule '{}' has no pattern", rule.id));
            if (side != "input" && side != "output" && side != "both")
                return stop(fmt::format("rule '{}': side '{}' is not input, output or both",
                                        rule.id, side));
            rule.input = side != "output";
            rule.output = side != "input";
            if (action == "allow")
                rule.action = Action::allow;
            else if (action == "flag")
                rule.action = Action::flag;
            else if (action == "block")
                rule.action = Action::block;
            else
                return stop(fmt::format("rule '{}': action '{}' is not allow, flag or block",
                                        rule.id, action));
            auto re = std::make_shared<RE2>(rule.pattern, re_options());
            if (!re->ok())
                return stop(fmt::format("rule '{}' does not compile: {}", rule.id, re->error()));
            // It would hold every text, and every stream for ever.
            if (rule.action != Action::allow && RE2::PartialMatch("", *re))
                return stop(fmt::format("rule '{}' matches the empty text", rule.id));
            rule.re = std::move(re);
            policy.rules_.push_back(std::move(rule));
        }
    }

    void compile_sets() {
        std::string beginnings, any;
        for (int side = 0; side < 2; ++side) {
            auto set = std::make_unique<RE2::Set>(re_options(), RE2::UNANCHORED);
            for (size_t i = 0; i < policy.rules_.size(); ++i) {
                const Rule& rule = policy.rules_[i];
                if (rule.action == Action::allow || !(side == 0 ? rule.input : rule.output))
                    continue;
                std::string why;
                if (set->Add(rule.pattern, &why) < 0)
                    return stop(fmt::format("rule '{}' does not compile: {}", rule.id, why));
                policy.set_rules_[side].push_back(i);
                if (side == 0) continue;
                any += (any.empty() ? "(?:" : "|(?:") + rule.pattern + ")";
                if (rule.action != Action::block) continue;
                auto partial = partial_pattern(rule.pattern);
                if (!partial)
                    return stop(fmt::format("rule '{}' cannot be used on output: {}", rule.id,
                                            partial.error().what));
                if (!beginnings.empty()) beginnings += '|';
                beginnings += "(?:" + *partial + ")";
            }
            if (policy.set_rules_[side].empty()) continue;
            if (!set->Compile()) return stop("the rules together are too large");
            policy.sets_[side] = std::move(set);
        }
        if (!any.empty()) {
            policy.output_any_ = std::make_unique<RE2>(any, re_options());
            if (!policy.output_any_->ok())
                return stop(fmt::format("the rules of the output side are too large: {}",
                                        policy.output_any_->error()));
        }
        if (beginnings.empty()) return;
        policy.beginnings_ = std::make_unique<RE2>("(?:" + beginnings + ")\\z", re_options());
        if (!policy.beginnings_->ok())
            stop(fmt::format("the rules of the output side are too large: {}",
                             policy.beginnings_->error()));
    }

    void read_weights(const toml::table& root, const std::string& folder) {
        std::string file = "builtin", sha256;
        if (const toml::table* values = table(root, "", "weights")) {
            known(*values, "weights.", {"file", "sha256"});
            text(*values, "weights.", "file", file);
            text(*values, "weights.", "sha256", sha256);
        }
        if (!ok()) return;
        base::Result<std::shared_ptr<const Model>> model = base::fail(base::Errc::config, "");
        if (file == "builtin") {
            model = Model::builtin();
        } else {
            const auto path = std::filesystem::path(folder) / file;  // an absolute one stays itself
            auto bytes = base::read_file(path.string(), kWeightsBytesMax);
            if (!bytes) return stop(bytes.error().what);
            model = Model::parse(*bytes);
        }
        if (!model) return stop(fmt::format("weights '{}': {}", file, model.error().what));
        if (!sha256.empty() && sha256 != (*model)->sha256_hex())
            return stop(fmt::format("weights '{}' have sha256 {}, the policy wants {}", file,
                                    (*model)->sha256_hex(), sha256));
        policy.model_ = std::move(*model);
    }

    void read(const toml::table& root, const std::string& folder, std::string& version) {
        known(root, "",
              {"version", "weights", "thresholds", "hold", "budget", "limits", "messages",
               "history", "rule"});
        if (const toml::node* node = root.get("version"); node && node->is_integer())
            version = std::to_string(node->value_or(int64_t{0}));
        else if (node)
            text(root, "", "version", version);
        else if (root.contains("rule") || root.contains("thresholds"))
            version = "unversioned";
        if (ok() &&
            (version.empty() || version.size() > 64 ||
             version.find_first_not_of("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                       "0123456789._-") != std::string::npos))
            stop("'version' must be 1 to 64 of letters, digits, '.', '_' and '-'");
        read_thresholds(root);
        if (const toml::table* t = table(root, "", "hold")) {
            Hold& hold = policy.hold_;
            known(*t, "hold.",
                  {"tokens", "watch_tokens", "watch", "all", "part_match_bytes", "windows",
                   "every_tokens"});
            whole(*t, "hold.", "tokens", hold.tokens, 0, 4096);
            whole(*t, "hold.", "watch_tokens", hold.watch_tokens, 0, 4096);
            share(*t, "hold.", "watch", hold.watch);
            whole(*t, "hold.", "part_match_bytes", hold.part_match_bytes, 64, 4096);
            whole(*t, "hold.", "windows", hold.windows, 1, 64);
            whole(*t, "hold.", "every_tokens", hold.every_tokens, 1, 1024);
            if (const toml::node* all = t->get("all")) {
                const auto value = all->value_exact<bool>();
                if (!value) stop("'hold.all' is not true or false");
                hold.all = value.value_or(false);
            }
            hold.watch_tokens = std::max(hold.watch_tokens, hold.tokens);
        }
        if (const toml::table* t = table(root, "", "budget")) {
            Budget& budget = policy.budget_;
            known(*t, "budget.", {"first_ms", "more_ms", "most_ms", "wall_factor"});
            whole(*t, "budget.", "first_ms", budget.first_ms, 0, 60'000);
            whole(*t, "budget.", "more_ms", budget.more_ms, 0, 60'000);
            whole(*t, "budget.", "most_ms", budget.most_ms, 0, 60'000);
            whole(*t, "budget.", "wall_factor", budget.wall_factor, 1, 100);
        }
        if (const toml::table* t = table(root, "", "limits")) {
            known(*t, "limits.", {"text_bytes_max", "expansion_max", "depth_max"});
            whole(*t, "limits.", "text_bytes_max", policy.limits_.bytes_max, 1024, 64 << 20);
            whole(*t, "limits.", "expansion_max", policy.limits_.expansion_max, 1, 64);
            whole(*t, "limits.", "depth_max", policy.limits_.depth_max, 0, 4);
        }
        if (const toml::table* t = table(root, "", "messages")) {
            known(*t, "messages.", {"input", "output"});
            text(*t, "messages.", "input", policy.input_message_);
            text(*t, "messages.", "output", policy.output_message_);
        }
        if (const toml::table* t = table(root, "", "history")) {
            known(*t, "history.", {"user_turns"});
            whole(*t, "history.", "user_turns", policy.user_turns_, 1, 64);
        }
        read_rules(root);
        if (ok()) compile_sets();
        if (ok()) read_weights(root, folder);
    }
};

base::Result<std::shared_ptr<const Policy>> Policy::parse(std::string_view text,
                                                          const std::string& folder) {
    auto policy = std::make_shared<Policy>();
    PolicyReader reader{*policy, {}};
    std::string version;
    try {
        const toml::table root = toml::parse(text);
        reader.read(root, folder, version);
    } catch (const toml::parse_error& e) {
        return base::fail(base::Errc::config, fmt::format("policy: line {}: {}",
                                                          e.source().begin.line, e.description()));
    }
    if (!reader.ok()) return base::fail(base::Errc::config, "policy: " + reader.error);
    const std::string hash =
        base::hex(base::sha256(std::string(text) + '\0' + policy->model_->sha256_hex()));
    policy->name_ = version + "@" + hash.substr(0, 12);
    return std::shared_ptr<const Policy>(std::move(policy));
}

base::Result<std::shared_ptr<const Policy>> Policy::load(const std::string& path) {
    auto bytes = base::read_file(path, kFileBytesMax);
    if (!bytes) return base::fail(base::Errc::config, bytes.error().what);
    auto policy = parse(*bytes, std::filesystem::path(path).parent_path().string());
    if (!policy) return base::fail(fmt::format("'{}'", path), policy.error());
    return policy;
}

base::Result<std::shared_ptr<const Policy>> Policy::builtin() {
    return parse(builtin_policy_text());
}

void Policy::match(bool output, std::string_view text, std::vector<size_t>& hits) const {
    const auto& set = sets_[output];
    if (!set) return;
    std::vector<int> found;
    RE2::Set::ErrorInfo error{};
    const re2::StringPiece piece(text.data(), text.size());
    if (!set->Match(piece, &found, &error)) {
        if (error.kind == RE2::Set::kNoError) return;
        // Out of memory in the joint automaton: one by one, which cannot fail.
        for (size_t rule : set_rules_[output])
            if (RE2::PartialMatch(piece, *rules_[rule].re)) hits.push_back(rule);
        return;
    }
    for (int i : found) hits.push_back(set_rules_[output][static_cast<size_t>(i)]);
}

}  // namespace parley::safety
