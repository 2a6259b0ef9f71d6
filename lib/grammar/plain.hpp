// Plain grammars: `name ::= expression` rules in the manner of GBNF, from the rule `root`.
//
//   root   ::= "[" item ("," item)* "]"
//   item   ::= [0-9]{1,3} | "yes" | 'no'     # a comment
//
// Has      "text" and 'text' with \n \r \t \\ \" \' \[ \] \xHH \uHHHH \UHHHHHHHH, [classes] with ranges
//          and ^, `.` (any character), ( ), |, * + ? {m} {m,} {m,n}. A rule ends where the next begins.
// Errors   Errc::invalid with the line, Errc::too_large past a limit.
#pragma once

#include <string_view>

#include "base/result.hpp"
#include "grammar/automaton.hpp"

namespace parley::grammar {

base::Result<Automaton> compile_plain(std::string_view text, const Limits& limits = {});

}  // namespace parley::grammar
