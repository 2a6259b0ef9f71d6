// Random schemas of the supported kind.
#pragma once

#include <fmt/format.h>

#include <random>
#include <string>

namespace parley::test {

class SchemaMaker {
  public:
    explicit SchemaMaker(uint64_t seed) : random_(seed) {}
    uint32_t below(uint32_t n) { return static_cast<uint32_t>(random_() % n); }

    std::string root() {
        return fmt::format(
            R"({{"$defs":{{"tree":{{"type":"object","properties":{{"v":{},"next":{{"anyOf":[{{"$ref":"#/$defs/tree"}},{{"type":"null"}}]}}}},"required":["v","next"],"additionalProperties":false}}}},"anyOf":[{}]}})",
            scalar(), schema(3));
    }

  private:
    std::string scalar() {
        switch (below(13)) {
            case 0:
                return R"({"type":"string"})";
            case 1: {
                const uint32_t least = below(4);
                return fmt::format(R"({{"type":"string","minLength":{},"maxLength":{}}})", least,
                                   least + below(6));
            }
            case 2:
                return fmt::format(R"({{"type":"string","minLength":{}}})", below(200));
            case 3:
                return R"({"type":"integer"})";
            case 4: {
                const int low = static_cast<int>(below(4000)) - 2000;
                return fmt::format(R"({{"type":"integer","minimum":{},"exclusiveMaximum":{}}})",
                                   low, low + 1 + static_cast<int>(below(3000)));
            }
            case 5:
                return R"({"type":"number"})";
            case 6: {
                const int low = static_cast<int>(below(40)) - 20;
                return fmt::format(R"({{"type":"number","exclusiveMinimum":{},"maximum":{}}})", low,
                                   low + 1 + static_cast<int>(below(30)));
            }
            case 7:
                return R"({"type":["boolean","null"]})";
            case 8:
                return R"({"enum":["a","ab\n","é\"",12,null,true,-1.5]})";
            case 9:
                return R"({"const":{"name":[1,"x"]}})";
            case 10:
                return R"({"type":"string","pattern":"^[a-c]{1,3}(-[0-9]+)?$"})";
            case 11:
                return R"({"type":"string","pattern":"x|y\"z"})";
            default:
                return R"({"type":["string","integer"],"maxLength":300})";
        }
    }
    std::string schema(int depth) {
        if (depth == 0) return scalar();
        switch (below(8)) {
            case 0: {
                const uint32_t least = below(3);
                return fmt::format(R"({{"type":"array","items":{},"minItems":{},"maxItems":{}}})",
                                   schema(depth - 1), least, least + below(4));
            }
            case 1:
                return fmt::format(R"({{"type":"array","items":{}}})", schema(depth - 1));
            case 2:
            case 3:
                return object(depth);
            case 4:
                return fmt::format(R"({{"anyOf":[{},{}]}})", schema(depth - 1), schema(depth - 1));
            case 5:
                return R"({"$ref":"#/$defs/tree"})";
            case 6:
                return fmt::format(
                    R"({{"oneOf":[{{"type":"object","properties":{{"k":{{"const":"a"}},"v":{}}},"required":["k"]}},{{"type":"object","properties":{{"k":{{"const":"b"}},"w":{}}},"required":["k","w"]}}]}})",
                    schema(depth - 1), schema(depth - 1));
            default:
                return scalar();
        }
    }
    std::string object(int depth) {
        static const char* const kNames[] = {"name", "na", "a", "é", "q\"q", "long name", "b"};
        std::string properties, required;
        const uint32_t count = below(5);
        for (uint32_t i = 0; i < count; ++i) {
            const std::string name = kNames[(i * 3 + depth) % 7];
            const std::string key = name == "q\"q" ? "q\\\"q" : name;
            properties += fmt::format("{}\"{}\":{}", i ? "," : "", key, schema(depth - 1));
            if (below(2)) required += fmt::format("{}\"{}\"", required.empty() ? "" : ",", key);
        }
        const char* more[] = {"", R"(,"additionalProperties":false)",
                              R"(,"additionalProperties":{"type":"integer"})",
                              R"(,"additionalProperties":true)"};
        return fmt::format(R"({{"type":"object","properties":{{{}}},"required":[{}]{}}})",
                           properties, required, more[below(4)]);
    }

    std::mt19937_64 random_;
};

}  // namespace parley::test
