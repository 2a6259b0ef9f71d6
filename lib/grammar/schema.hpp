// Schemas: JSON Schema (2020-12, a part of it) to an automaton of texts that parse and validate.
//
// Promise  every text of the automaton validates. Not every valid text is in it: what is written is
//          compact JSON, properties in the order of the schema.
// Has      true, {}, type (also a list), enum, const, properties, required, additionalProperties, items,
//          minItems, maxItems, minLength, maxLength, pattern (grammar/expression.hpp), format (date,
//          time, date-time, uuid, ipv4), minimum, maximum, exclusiveMinimum, exclusiveMaximum, anyOf,
//          oneOf (if the branches are seen to exclude one another), allOf (of plain objects, or of one
//          member), $ref to '#' and '#/…' (also recursive). Annotations are passed over.
// Narrower properties that the schema does not name are written only where additionalProperties says so,
//          or where it names none at all; their keys have no escapes and may repeat. Fractional
//          bounds are rounded inward. No type, but its keywords: the type that they are about.
// Spaces   none outside strings; with `spaces` one may follow ':' and ','.
// Errors   Errc::unsupported for a keyword or a combination that is not offered, Errc::invalid for a
//          schema that is wrong or that nothing satisfies, both as "PATH: 'KEYWORD' …"; Errc::too_large
//          past a limit.
// Threads  a pure function.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "base/result.hpp"
#include "grammar/automaton.hpp"

namespace parley::grammar {

struct SchemaOptions {
    Limits limits;
    bool spaces = false;
};

// A text of `schema` between two fixed ones.
struct Framed {
    std::string before, schema, after;
    std::string path;  // leads the errors about the schema
};
// One of several framed texts, at least one; the limits are for all together.
base::Result<Automaton> compile_framed(std::span<const Framed> texts,
                                       const SchemaOptions& options = {});
// Any bytes, and wherever `marker` stands among them one of the texts follows it. marker: not empty, and no
// text ends with what it begins with.
base::Result<Automaton> compile_marked(std::string_view marker, std::span<const Framed> texts,
                                       const SchemaOptions& options = {});

base::Result<Automaton> compile_schema(std::string_view schema, const SchemaOptions& options = {});

}  // namespace parley::grammar
