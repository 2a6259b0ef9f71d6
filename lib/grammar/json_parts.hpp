// JsonParts: the scalar pieces of JSON as rules of a builder, each made once and shared.
//
// Strings  well-formed UTF-8 (no surrogates, no overlong forms), every escape of RFC 8259, a \u of a high
//          surrogate only with the low one after it. Lengths count characters.
// Numbers  at most 15 digits before the point, 15 behind it and 2 in the exponent, so that every reader
//          holds them; no leading zeros, no "-0" as a whole number. With bounds: no exponent.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "grammar/automaton.hpp"

namespace parley::grammar {

struct Bound {
    int64_t value = 0;
    bool exclusive = false;
};

class JsonParts {
  public:
    JsonParts(Builder& builder, bool spaces) : b_(builder), spaces_(spaces) {}

    Builder::Rule string(uint32_t least, uint32_t most);  // kNever: without end
    // nullopt: no such number.
    std::optional<Builder::Rule> integer(std::optional<int64_t> low, std::optional<int64_t> high);
    std::optional<Builder::Rule> number(std::optional<Bound> low, std::optional<Bound> high);
    Builder::Rule literals(std::string name, const std::vector<std::string>& texts);
    Builder::Rule any();
    // A key with its quotes and without escapes that is none of `names`.
    Builder::Rule other_key(const std::vector<std::string>& names);

    // A byte that a single space may follow, where spaces are allowed at all.
    Builder::State separator(Builder::State from, char c);

  private:
    using State = Builder::State;
    void plain_bytes(State from, State to);
    void wide(State from, State to);
    Builder::Rule wide_rule();
    void same_length(State from, std::string_view low, std::string_view high, State to);
    void digits(State from, uint64_t low, uint64_t high, State to);
    void fraction(State from, bool positive, State to);
    bool magnitude(State from, Bound low, Bound high, State to);

    Builder& b_;
    bool spaces_;
    std::map<std::pair<uint32_t, uint32_t>, Builder::Rule> strings_;
    std::optional<Builder::Rule> wide_, any_, any_number_, any_integer_;
};

// As a JSON string, with no escape but the needed ones.
std::string json_quoted(std::string_view text);

}  // namespace parley::grammar
