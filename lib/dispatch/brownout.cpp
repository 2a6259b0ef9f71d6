#include "dispatch/brownout.hpp"

#include <simdjson.h>

namespace parley::dispatch {

std::optional<std::string> with_max_tokens(const std::string& body, uint64_t most) {
    const simdjson::padded_string padded(body);
    simdjson::ondemand::parser parser;
    simdjson::ondemand::document document;
    simdjson::ondemand::object object;
    if (parser.iterate(padded).get(document) != simdjson::SUCCESS ||
        document.get_object().get(object) != simdjson::SUCCESS)
        return std::nullopt;
    for (auto field : object) {
        std::string_view key;
        simdjson::ondemand::value value;
        if (field.unescaped_key().get(key) != simdjson::SUCCESS) return std::nullopt;
        const bool wanted = key == "max_tokens";
        if (field.value().get(value) != simdjson::SUCCESS) return std::nullopt;
        if (!wanted) continue;
        const std::string_view token = value.raw_json_token();
        const size_t digits = std::min(token.find_first_not_of("0123456789"), token.size());
        uint64_t asked = 0;
        if (digits == 0 || value.get_uint64().get(asked) != simdjson::SUCCESS || asked <= most)
            return std::nullopt;
        const auto at = static_cast<size_t>(token.data() - padded.data());
        return body.substr(0, at) + std::to_string(most) + body.substr(at + digits);
    }
    return std::nullopt;
}

}  // namespace parley::dispatch
