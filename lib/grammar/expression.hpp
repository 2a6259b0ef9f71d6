// Expression: a regular expression over characters that may also call rules; what patterns and plain
// grammars are read into.
//
// Text     characters are Unicode scalar values, written as UTF-8, or as they stand inside a JSON
//          string (`"`, `\` and control characters by their shortest escape).
// Source   UTF-8 ranges as in R. Cox, "Regular expression matching in the wild" (2010).
// Threads  values.
#pragma once

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.hpp"
#include "grammar/automaton.hpp"

namespace parley::grammar {

// Sorted, disjoint ranges of scalar values; surrogates are never in it.
class Characters {
  public:
    void add(uint32_t low, uint32_t high);
    void add(const Characters& other);
    Characters inverse() const;
    const std::vector<std::pair<uint32_t, uint32_t>>& ranges() const { return ranges_; }

  private:
    std::vector<std::pair<uint32_t, uint32_t>> ranges_;
};

struct Expression {
    enum class Kind : uint8_t { characters, sequence, choice, repeat, call };
    Kind kind = Kind::sequence;
    Characters characters;
    std::vector<Expression> parts;
    uint32_t least = 0, most = 0;  // of repeat; most = kNever: without end
    Builder::Rule rule = 0;

    static Expression of(Characters set);
    static Expression repeated(Expression inner, uint32_t least, uint32_t most);
};

enum class Writing : uint8_t { plain, json_string };

void emit_characters(Builder& out, Builder::State from, const Characters& set, Writing writing,
                     Builder::State to);
Builder::State emit(Builder& out, Builder::State from, const Expression& expression,
                    Writing writing);

// Reads one UTF-8 character at `at` and moves on; kNever for what is none.
uint32_t read_character(std::string_view text, size_t& at);

// A subset of ECMA-262: characters, `.`, classes, \d \w \s, groups, |, ? * + {m,n}, ^ and $ at the ends.
// What is not anchored may stand anywhere in the text, as in JSON Schema. Errc::unsupported or invalid
// with the place of what does not fit.
base::Result<Expression> parse_pattern(std::string_view pattern, uint32_t nesting_max);

}  // namespace parley::grammar
