#include "dispatch/predictor.hpp"

#include <algorithm>
#include <cmath>

namespace parley::dispatch {

namespace {

constexpr double kKeep = 0.98;  // of the sums, with each request
constexpr double kStep = 0.1;   // of a moving average

std::string key_of(const std::string& org, ModelId model) {
    std::string key = org;
    key.push_back('\n');
    key += std::to_string(model);
    return key;
}

}  // namespace

const Predictor::Model& Predictor::model(ModelId id) const {
    static const Model kUnknown;
    return id < models_.size() ? models_[id] : kUnknown;
}

double Predictor::prefill_s(ModelId id, uint64_t bytes) const {
    const Model& m = model(id);
    return static_cast<double>(bytes) * m.tokens_per_byte * m.prompt_s;
}

Prediction Predictor::predict(const std::string& org, ModelId id, uint64_t bytes,
                              uint64_t cached_bytes, uint64_t max_tokens) const {
    const Model& m = model(id);
    Prediction out;
    out.prompt_tokens = static_cast<double>(bytes) * m.tokens_per_byte;
    const double cached = static_cast<double>(std::min(cached_bytes, bytes)) * m.tokens_per_byte;
    out.output_tokens = m.output_tokens;
    if (const auto at = averages_.find(key_of(org, id)); at != averages_.end())
        out.output_tokens = at->second;
    if (max_tokens > 0)
        out.output_tokens = std::min(out.output_tokens, static_cast<double>(max_tokens));
    out.prefill_s = (out.prompt_tokens - cached) * m.prompt_s;
    out.total_s = out.prefill_s + out.output_tokens * m.output_s;
    return out;
}

void Predictor::learn(const std::string& org, ModelId id, uint64_t bytes, const Observed& o) {
    if (!(o.cost_s > 0) || !std::isfinite(o.cost_s)) return;
    if (id >= models_.size()) models_.resize(id + 1);
    Model& m = models_[id];
    const double prompt =
        static_cast<double>(o.prompt_tokens - std::min(o.cached_tokens, o.prompt_tokens));
    const double output = static_cast<double>(o.output_tokens);
    const double thought = prompt * m.prompt_s + output * m.output_s;
    error_ += kStep * (std::abs(thought - o.cost_s) / o.cost_s - error_);
    if (bytes > 0 && o.prompt_tokens > 0) {
        const double ratio = static_cast<double>(o.prompt_tokens) / static_cast<double>(bytes);
        m.tokens_per_byte += (m.seen == 0 ? 1 : kStep) * (ratio - m.tokens_per_byte);
    }
    m.output_tokens += (m.seen == 0 ? 1 : kStep) * (output - m.output_tokens);
    const std::string key = key_of(org, id);
    if (const auto at = averages_.find(key); at != averages_.end())
        at->second += kStep * (output - at->second);
    else if (averages_.size() < kAveragesMax)
        averages_[key] = output;
    ++m.seen;
    m.pp = kKeep * m.pp + prompt * prompt;
    m.po = kKeep * m.po + prompt * output;
    m.oo = kKeep * m.oo + output * output;
    m.pc = kKeep * m.pc + prompt * o.cost_s;
    m.oc = kKeep * m.oc + output * o.cost_s;
    const double det = m.pp * m.oo - m.po * m.po;
    double a = m.prompt_s, b = m.output_s;
    if (det > 1e-6 * m.pp * m.oo) {
        a = (m.pc * m.oo - m.oc * m.po) / det;
        b = (m.oc * m.pp - m.pc * m.po) / det;
    } else {
        // All alike: the requests do not tell the two apart, their ratio stands.
        const double sum = m.pp * a * a + 2 * m.po * a * b + m.oo * b * b;
        const double scale = sum > 0 ? (m.pc * a + m.oc * b) / sum : 1;
        a *= scale;
        b *= scale;
    }
    if (a < 0) {
        a = 0;
        b = m.oo > 0 ? m.oc / m.oo : b;
    }
    if (b < 0) {
        b = 0;
        a = m.pp > 0 ? m.pc / m.pp : a;
    }
    m.prompt_s = a;
    m.output_s = b;
}

}  // namespace parley::dispatch
