#include "engine/rope_table.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numbers>

namespace parley::engine {

using base::Errc;

base::Result<RopeScaling> read_rope_scaling(const model::Gguf& file, const std::string& architecture,
                                            uint32_t context) {
    const std::string prefix = architecture + ".rope.";
    RopeScaling scaling;
    base::Result<void> ok;
    const auto take = [&](double& into, const char* key) {
        const std::string name = prefix + key;
        const auto value = file.real(name);
        if (!value || !ok) return;
        if (!std::isfinite(*value) || *value <= 0) {
            ok = base::fail(Errc::corrupt,
                            fmt::format("'{}' is {}, not above zero", name, *value));
        } else {
            into = *value;
        }
    };
    const std::string_view kind = file.string(prefix + "scaling.type").value_or("");
    if (kind == "none") return scaling;
    if (kind != "" && kind != "linear" && kind != "yarn") {
        return base::fail(
            Errc::unsupported,
            fmt::format("RoPE scaling '{}' is not supported (none, linear and yarn are)", kind));
    }
    take(scaling.factor, "scaling.factor");
    // Older files have only scale_linear.
    if (scaling.factor == 1 && kind != "yarn") take(scaling.factor, "scale_linear");
    scaling.yarn = kind == "yarn";
    if (scaling.yarn) {
        // An extrapolation less than whole and the logarithm's factor of the DeepSeek models.
        for (const auto& [key, usual] : {std::pair{"scaling.yarn_ext_factor", 1.0},
                                         {"scaling.yarn_attn_factor", 1.0},
                                         {"scaling.yarn_log_multiplier", 0.0}}) {
            const double value = file.real(prefix + key).value_or(usual);
            if (value != usual) {
                return base::fail(Errc::unsupported,
                                  fmt::format("'{}{}' {} is not supported ({} is)", prefix, key, value,
                                              usual));
            }
        }
        scaling.original_context = context;
        if (const auto own = file.uint(prefix + "scaling.original_context_length")) {
            scaling.original_context = static_cast<double>(*own);
            if (*own == 0) {
                return base::fail(
                    Errc::corrupt,
                    fmt::format("'{}scaling.original_context_length' is 0", prefix));
            }
        }
        take(scaling.beta_fast, "scaling.yarn_beta_fast");
        take(scaling.beta_slow, "scaling.yarn_beta_slow");
        take(scaling.magnitude, "scaling.attn_factor");
    }
    if (!ok) return base::fail(ok.error());
    return scaling;
}

RopeTable RopeTable::make(double base, uint32_t dims, const RopeScaling& scaling,
                          std::span<const float> divisors) {
    RopeTable table;
    // The pair that turns `turns` times within the original context, as a fraction.
    const auto pair_of = [&](double turns) {
        return dims * std::log(scaling.original_context / (turns * 2 * std::numbers::pi)) /
               (2 * std::log(base));
    };
    double keeps = 0, divided = 0;  // pairs up to the one keep, from the other are divided
    if (scaling.yarn) {
        keeps = std::max(0.0, std::floor(pair_of(scaling.beta_fast)));
        divided = std::min(dims - 1.0, std::ceil(pair_of(scaling.beta_slow)));
        table.magnitude = scaling.magnitude * (1 + 0.1 * std::log(scaling.factor));
    }
    for (uint32_t i = 0; i < dims / 2; ++i) {
        double own = std::pow(base, -2.0 * i / dims);
        if (!divisors.empty()) own /= divisors[i];
        double keep = 0;
        if (scaling.yarn) {
            keep = 1 - std::clamp((i - keeps) / std::max(0.001, divided - keeps), 0.0, 1.0);
        }
        table.frequencies.push_back(own / scaling.factor * (1 - keep) + own * keep);
    }
    return table;
}

void RopeTable::write(uint32_t position, float* cos_sin) const {
    for (const double frequency : frequencies) {
        const double angle = position * frequency;
        *cos_sin++ = static_cast<float>(std::cos(angle) * magnitude);
        *cos_sin++ = static_cast<float>(std::sin(angle) * magnitude);
    }
}

}  // namespace parley::engine
