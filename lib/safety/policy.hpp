// Policy: what is judged how, from one TOML file, loaded whole or not at all.
//
// Name     VERSION@HASH12: HASH12 is the start of the SHA-256 over the file and the weights, so two
//          filters that say the same name judge alike.
// Errors   Errc::config, naming what and which: not TOML, an unknown key, a value out of range, a
//          pattern that does not compile, weights that cannot be read or have another hash.
// Rules    RE2 patterns, looked for in the raw and in every canonical view (which is lower case).
//          block and flag rules hold at once. An allow rule lifts the scores of a text that it matches
//          from end to end, never a block rule. Rules on the output side must also have a pattern of
//          beginnings (partial.hpp).
// Threads  immutable after load.
#pragma once

#include <re2/re2.h>
#include <re2/set.h>

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "safety/canonicalise.hpp"
#include "safety/model.hpp"

namespace parley::safety {

enum class Action : uint8_t { allow, flag, block };
std::string_view name(Action action);

// Where a text came from: thresholds differ. output is the model's answer, assistant an earlier one.
enum class Voice : uint8_t { user, system, document, assistant, output };
inline constexpr size_t kVoices = 5;
std::string_view name(Voice voice);

struct Rule {
    std::string id, pattern, owner;
    Action action = Action::flag;
    bool input = false, output = false;
    std::shared_ptr<const RE2> re;
};

struct Threshold {
    double flag = 2, block = 2;  // over 1: never
};

struct Hold {
    uint32_t tokens = 8;         // beyond a finished word; 0: none
    uint32_t watch_tokens = 32;  // while the score is at or above `watch`
    double watch = 0.35;
    bool all = false;                  // the whole answer is buffered
    uint32_t part_match_bytes = 4096;  // held for a part-matched rule at most
    uint32_t windows = 2;       // judgements in a row at or above `block` that stop an answer
    uint32_t every_tokens = 8;  // canonical views are judged that often, and at sentence ends
};

struct Budget {
    uint32_t first_ms = 50;  // CPU, for the first 4 KiB of new text
    uint32_t more_ms = 10;   // for each further 4 KiB
    uint32_t most_ms = 1000;
    uint32_t wall_factor = 10;
};

class Policy {
  public:
    // `folder` is where relative weights paths start.
    static base::Result<std::shared_ptr<const Policy>> parse(std::string_view toml,
                                                             const std::string& folder = ".");
    static base::Result<std::shared_ptr<const Policy>> load(const std::string& path);
    static base::Result<std::shared_ptr<const Policy>> builtin();

    const std::string& name() const { return name_; }
    const Model& model() const { return *model_; }
    const std::vector<Rule>& rules() const { return rules_; }
    const Threshold& threshold(Voice voice, Head head) const {
        return thresholds_[static_cast<size_t>(voice)][static_cast<size_t>(head)];
    }
    // Heads that count for this voice.
    bool uses(Voice voice, Head head) const {
        return threshold(voice, head).flag <= 1 || threshold(voice, head).block <= 1;
    }
    const Hold& hold() const { return hold_; }
    const Budget& budget() const { return budget_; }
    const CanonLimits& limits() const { return limits_; }
    const std::string& input_message() const { return input_message_; }
    const std::string& output_message() const { return output_message_; }
    uint32_t user_turns() const { return user_turns_; }

    // Indices of the rules of one side that match anywhere in `text`.
    void match(bool output, std::string_view text, std::vector<size_t>& hits) const;
    // For streams: one pattern for all block and flag rules of the output side, and one, anchored at the
    // end, for all beginnings of what its block rules match; null without such rules.
    const RE2* output_any() const { return output_any_.get(); }
    const RE2* beginnings() const { return beginnings_.get(); }

  private:
    friend struct PolicyReader;
    std::string name_;
    std::shared_ptr<const Model> model_;
    std::vector<Rule> rules_;
    std::unique_ptr<RE2::Set> sets_[2];  // input, output
    std::vector<size_t> set_rules_[2];   // pattern of the set → rule
    std::unique_ptr<RE2> output_any_, beginnings_;
    std::array<std::array<Threshold, kHeads>, kVoices> thresholds_{};
    Hold hold_;
    Budget budget_;
    CanonLimits limits_;
    std::string input_message_ = "The request was declined by this server's safety policy.";
    std::string output_message_ = "The answer was stopped by this server's safety policy.";
    uint32_t user_turns_ = 4;
};

std::string_view builtin_policy_text();

}  // namespace parley::safety
