// SchemaReader: looks things up in one JSON Schema document; knows nothing of automata.
//
// Owns     nothing: elements belong to the document's parser.
#pragma once

#include <simdjson.h>

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"

namespace parley::grammar {

using Element = simdjson::dom::element;

// A schema and where it stands: "#/properties/name".
struct Located {
    std::string path;
    Element element;
};

enum Kinds : uint8_t {
    kString = 1,
    kNumber = 2,
    kInteger = 4,
    kBoolean = 8,
    kNull = 16,
    kObject = 32,
    kArray = 64,
    kAll = 127 - kInteger
};

class SchemaReader {
  public:
    SchemaReader(Element root, uint32_t nesting_max) : root_(root), nesting_max_(nesting_max) {}

    // The keywords of one schema; a name twice is an error.
    base::Result<std::map<std::string_view, Element>> keywords(const Located& at) const;
    base::Result<Located> resolve(const Located& at, Element ref) const;
    // The kinds of "type", else those that the keywords are about, else all.
    base::Result<uint8_t> kinds(const Located& at,
                                const std::map<std::string_view, Element>& words) const;
    base::Result<std::string> compact(const Located& at, Element value) const;
    // True only if no value can satisfy both.
    bool exclude(const Located& a, const Located& b) const;

  private:
    base::Result<void> write(const Located& at, Element value, uint32_t depth,
                             std::string& out) const;
    std::optional<Located> follow(Located at) const;
    std::optional<std::vector<std::string>> values(const Located& at) const;

    Element root_;
    uint32_t nesting_max_;
};

std::string child(const std::string& path, std::string_view name);
uint8_t kind_of(Element value);
tl::unexpected<base::Error> refuse(base::Errc code, const std::string& path,
                                   std::string_view keyword, std::string_view why);

}  // namespace parley::grammar
