// Limits as people write them: the JSON object of an org or a key.
#include <fmt/format.h>
#include <simdjson.h>

#include <cmath>

#include "limits/limits.hpp"

namespace parley::limits {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr uint64_t kMost = 1'000'000'000'000;  // a minute, a burst, at once

Result<void> read(simdjson::dom::object object, const std::string& path, Limits& out,
                  Limits* user) {
    for (const auto& [key, value] : object) {
        const std::string name = path + std::string(key);
        if (value.is_null()) continue;
        if (key == "user" && user) {
            simdjson::dom::object inner;
            if (value.get(inner)) return fail(Errc::invalid, name + " should be an object");
            if (auto done = read(inner, name + ".", *user, nullptr); !done) return done;
            continue;
        }
        if (key == "spend") {
            double amount = 0;
            if (value.get(amount) || !(amount > 0 && amount <= 1e12))
                return fail(Errc::invalid, name + " should be a number above 0");
            out.spend_micro = static_cast<uint64_t>(std::llround(amount * 1e6));
            if (out.spend_micro == 0) out.spend_micro = 1;
            continue;
        }
        if (key == "spend_period") {
            std::string_view word;
            if (value.get(word) || (word != "day" && word != "month"))
                return fail(Errc::invalid, name + " should be 'day' or 'month'");
            out.period = word == "day" ? Period::day : Period::month;
            continue;
        }
        uint64_t* into = key == "requests"              ? &out.requests.per_minute
                         : key == "requests_burst"      ? &out.requests.burst
                         : key == "input_tokens"        ? &out.input_tokens.per_minute
                         : key == "input_tokens_burst"  ? &out.input_tokens.burst
                         : key == "output_tokens"       ? &out.output_tokens.per_minute
                         : key == "output_tokens_burst" ? &out.output_tokens.burst
                         : key == "concurrent"          ? &out.concurrent
                                                        : nullptr;
        // A limit that nobody reads would be a limit that does not hold.
        if (!into) return fail(Errc::invalid, fmt::format("no such limit: '{}'", name));
        uint64_t number = 0;
        if (value.get(number) || number == 0 || number > kMost)
            return fail(Errc::invalid,
                        fmt::format("{} should be an integer from 1 to {}", name, kMost));
        *into = number;
    }
    for (const auto& [word, rate] : {std::pair{"requests", out.requests},
                                     {"input_tokens", out.input_tokens},
                                     {"output_tokens", out.output_tokens}})
        if (rate.burst > 0 && rate.per_minute == 0)
            return fail(Errc::invalid, fmt::format("{0}{1}_burst without {0}{1}", path, word));
    return {};
}

}  // namespace

Result<Written> parse_limits(std::string_view json) {
    Written out;
    simdjson::dom::parser parser;
    simdjson::dom::object object;
    if (parser.parse(simdjson::padded_string(json)).get(object))
        return fail(Errc::invalid, "limits should be a JSON object");
    if (auto done = read(object, "", out.own, &out.user); !done) return fail(done.error());
    return out;
}

}  // namespace parley::limits
