#include "safety/model.hpp"

#include <fmt/format.h>
#include <simdjson.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "base/text.hpp"

namespace parley::safety {
namespace {

constexpr std::string_view kMagic = "parleyW1";
constexpr uint32_t kHeaderBytesMax = 64 << 10;

constexpr std::array<std::string_view, kHeads> kHeadNames = {"unsafe", "harmful", "jailbreak",
                                                             "prompt_injection", "output"};

double exp_portable(double x) {
    // 2^k * e^r, |r| <= ln2/2; Taylor to the 13th power is exact to the last bits there.
    const double k = std::nearbyint(x * 1.4426950408889634);
    const double r = (x - k * 0.693147180369123816490) - k * 1.90821492927058770002e-10;
    double term = 1, sum = 1;
    for (int i = 1; i <= 13; ++i) {
        term = term * r / i;
        sum += term;
    }
    return std::ldexp(sum, static_cast<int>(k));
}

// How far repeats count. A sum over sqrt(n) takes n-grams for independent, which repeats are not. In
// ordinary text over half of them are fresh, and it is scored as the weights were trained.
double repeats_count(const Sums& sums) {
    constexpr double kOrdinary = 0.5, kRepeated = 0.25;
    const double share = static_cast<double>(sums.fresh) / static_cast<double>(sums.count);
    return std::clamp((share - kRepeated) / (kOrdinary - kRepeated), 0.0, 1.0);
}

double over_root(int64_t weight, int64_t count) {
    return count > 0 ? static_cast<double>(weight) / std::sqrt(static_cast<double>(count)) : 0;
}

base::Result<HeadInfo> read_head(simdjson::dom::element item) {
    HeadInfo info;
    std::string_view text;
    int64_t bits = 0;
    if (item["name"].get(text) != simdjson::SUCCESS ||
        item["bits"].get(bits) != simdjson::SUCCESS ||
        item["scale"].get(info.scale) != simdjson::SUCCESS ||
        item["bias"].get(info.bias) != simdjson::SUCCESS ||
        item["slope"].get(info.slope) != simdjson::SUCCESS ||
        item["centre"].get(info.centre) != simdjson::SUCCESS)
        return base::fail(base::Errc::corrupt, "weights: a head lacks a field");
    if (!std::isfinite(info.scale) || !std::isfinite(info.bias) || !std::isfinite(info.slope) ||
        !std::isfinite(info.centre))
        return base::fail(base::Errc::corrupt,
                          fmt::format("weights: head '{}' is not finite", text));
    info.name = text;
    info.bits = static_cast<uint32_t>(bits);
    return info;
}

}  // namespace

bool Recent::add(uint64_t hash) {
    if (added_++ == kHalf) {
        added_ = 1;
        now_.swap(before_);
        std::fill(now_.begin(), now_.end(), 0);
    }
    const bool fresh = !seen(hash);
    now_[hash >> (64 - kBits + 6)] |= uint64_t{1} << (hash >> (64 - kBits) & 63);
    return fresh;
}

double sigmoid(double x) {
    if (x > 40) return 1;
    if (x < -40) return 0;
    return 1 / (1 + exp_portable(-x));
}

std::string_view name(Head head) { return kHeadNames[static_cast<size_t>(head)]; }

bool head_from_name(std::string_view name, Head& head) {
    for (size_t h = 0; h < kHeads; ++h)
        if (kHeadNames[h] == name) {
            head = static_cast<Head>(h);
            return true;
        }
    return false;
}

Sums Sums::operator-(const Sums& earlier) const {
    Sums out;
    for (size_t h = 0; h < kHeads; ++h) {
        out.weight[h] = weight[h] - earlier.weight[h];
        out.fresh_weight[h] = fresh_weight[h] - earlier.fresh_weight[h];
    }
    out.count = count - earlier.count;
    out.fresh = fresh - earlier.fresh;
    return out;
}

base::Result<std::shared_ptr<const Model>> Model::parse(std::string_view file) {
    using base::Errc;
    if (file.size() < kMagic.size() + 4 || file.substr(0, kMagic.size()) != kMagic)
        return base::fail(Errc::corrupt, "weights: not a file of this version ('parleyW1')");
    uint32_t header_bytes = 0;
    std::memcpy(&header_bytes, file.data() + kMagic.size(), 4);
    const size_t header_at = kMagic.size() + 4;
    if (header_bytes > kHeaderBytesMax || header_bytes > file.size() - header_at)
        return base::fail(Errc::corrupt, "weights: header runs past the end of the file");
    auto model = std::make_shared<Model>();
    model->header_ = file.substr(header_at, header_bytes);
    simdjson::dom::parser parser;
    simdjson::dom::element root;
    simdjson::dom::array heads;
    if (parser.parse(model->header_).get(root) != simdjson::SUCCESS ||
        root["heads"].get(heads) != simdjson::SUCCESS)
        return base::fail(Errc::corrupt, "weights: header is not JSON with 'heads'");
    std::vector<HeadInfo> infos;
    for (simdjson::dom::element item : heads) {
        auto info = read_head(item);
        if (!info) return base::fail(info.error());
        infos.push_back(std::move(*info));
    }
    if (infos.size() != kHeads + kHazards.size())
        return base::fail(Errc::corrupt, fmt::format("weights: {} heads, expected {}", infos.size(),
                                                     kHeads + kHazards.size()));
    const size_t data_at = (header_at + header_bytes + 15) / 16 * 16;
    const size_t main_bytes = size_t{1} << kMainBits;
    const size_t hazard_bytes = size_t{1} << kHazardBits;
    if (file.size() != data_at + kHeads * main_bytes + kHazards.size() * hazard_bytes)
        return base::fail(Errc::corrupt, "weights: file is cut short or too long");
    model->weights_.assign(main_bytes * kStrideHeads, 0);
    for (size_t h = 0; h < kHeads; ++h) {
        if (infos[h].name != kHeadNames[h] || infos[h].bits != kMainBits)
            return base::fail(Errc::corrupt,
                              fmt::format("weights: head {} is not '{}'", h, kHeadNames[h]));
        model->infos_[h] = infos[h];
        const auto* from = reinterpret_cast<const int8_t*>(file.data() + data_at + h * main_bytes);
        for (size_t b = 0; b < main_bytes; ++b) model->weights_[b * kStrideHeads + h] = from[b];
    }
    model->hazard_weights_.resize(kHazards.size() * hazard_bytes);
    for (size_t h = 0; h < kHazards.size(); ++h) {
        if (infos[kHeads + h].name != kHazards[h] || infos[kHeads + h].bits != kHazardBits)
            return base::fail(Errc::corrupt,
                              fmt::format("weights: hazard {} is not '{}'", h, kHazards[h]));
        model->hazards_[h] = infos[kHeads + h];
    }
    std::memcpy(model->hazard_weights_.data(), file.data() + data_at + kHeads * main_bytes,
                model->hazard_weights_.size());
    model->sha256_hex_ = base::hex(base::sha256(file));
    return std::shared_ptr<const Model>(std::move(model));
}

base::Result<std::shared_ptr<const Model>> Model::builtin() { return parse(builtin_bytes()); }

double Model::z(Head head, const Sums& sums) const {
    const HeadInfo& info = infos_[static_cast<size_t>(head)];
    if (sums.count <= 0) return info.bias;
    const auto h = static_cast<size_t>(head);
    const double all = over_root(sums.weight[h], sums.count);
    const double fresh = over_root(sums.fresh_weight[h], sums.fresh);
    const double share = repeats_count(sums);
    // Written so that ordinary text gets the very bits of `all`.
    return info.bias + info.scale * (share == 1 ? all : fresh + (all - fresh) * share);
}

Sums Model::sums(std::string_view text) const {
    FeatureStream stream;
    Recent recent;
    Sums out;
    auto sink = [&](uint64_t hash) { add(hash, out, recent.add(hash)); };
    stream.push(text, sink);
    stream.finish(sink);
    return out;
}

double Model::calibrated(Head head, double z) const {
    const HeadInfo& info = infos_[static_cast<size_t>(head)];
    return sigmoid(info.slope * (z - info.centre));
}

HeadValues Model::calibrated(const HeadValues& z) const {
    HeadValues out{};
    for (size_t h = 0; h < kHeads; ++h) out[h] = calibrated(static_cast<Head>(h), z[h]);
    return out;
}

HeadValues Model::score(std::string_view text) const {
    FeatureStream stream;
    Recent recent;
    Sums sums;
    std::vector<Sums> marks{sums};  // sums after each stride
    auto sink = [&](uint64_t hash) { add(hash, sums, recent.add(hash)); };
    for (size_t at = 0; at < text.size(); at += kStrideBytes) {
        stream.push(text.substr(at, kStrideBytes), sink);
        if (at + kStrideBytes < text.size()) marks.push_back(sums);
    }
    stream.finish(sink);
    marks.push_back(sums);
    HeadValues out;
    for (size_t h = 0; h < kHeads; ++h) out[h] = z(static_cast<Head>(h), sums);
    constexpr size_t kSpan = kWindowBytes / kStrideBytes;
    if (marks.size() <= kSpan + 1) return out;
    for (size_t i = kSpan; i < marks.size(); ++i) {
        const Sums window = marks[i] - marks[i - kSpan];
        for (size_t h = 0; h < kHeads; ++h)
            out[h] = std::max(out[h], z(static_cast<Head>(h), window));
    }
    return out;
}

std::string_view Model::hazard(std::string_view text) const {
    FeatureStream stream;
    std::array<int64_t, kHazards.size()> sums{};
    int64_t count = 0;
    auto sink = [&](uint64_t hash) {
        const size_t bucket = hash >> (64 - kHazardBits);
        for (size_t h = 0; h < kHazards.size(); ++h)
            sums[h] += hazard_weights_[(h << kHazardBits) + bucket];
        ++count;
    };
    stream.push(text, sink);
    stream.finish(sink);
    if (count < 8) return "";
    size_t best = 0;
    double best_z = -1e300;
    for (size_t h = 0; h < kHazards.size(); ++h) {
        const double z = hazards_[h].bias + hazards_[h].scale * static_cast<double>(sums[h]) /
                                                std::sqrt(static_cast<double>(count));
        if (z > best_z) {
            best_z = z;
            best = h;
        }
    }
    return kHazards[best];
}

std::vector<std::pair<std::string, double>> Model::explain(Head head, std::string_view text,
                                                           size_t most) const {
    // Contribution of what ends inside a word, over the whole text's norm.
    FeatureStream stream;
    Sums sums;
    auto sink = [&](uint64_t hash) { add(hash, sums, true); };
    std::vector<std::pair<std::string, double>> words;
    size_t at = 0;
    while (at < text.size()) {
        size_t end = text.find_first_of(" \t\r\n", at);
        end = end == std::string_view::npos ? text.size() : end + 1;
        const int64_t before = sums.weight[static_cast<size_t>(head)];
        stream.push(text.substr(at, end - at), sink);
        if (end == text.size()) stream.finish(sink);
        words.emplace_back(text.substr(at, end - at),
                           static_cast<double>(sums.weight[static_cast<size_t>(head)] - before));
        at = end;
    }
    const double unit =
        info(head).scale / std::sqrt(std::max<double>(1, static_cast<double>(sums.count)));
    for (auto& [word, value] : words) {
        while (!word.empty() && static_cast<unsigned char>(word.back()) <= 32) word.pop_back();
        value *= unit;
    }
    std::stable_sort(words.begin(), words.end(),
                     [](const auto& a, const auto& b) { return a.second > b.second; });
    if (words.size() > most) words.resize(most);
    return words;
}

}  // namespace parley::safety
