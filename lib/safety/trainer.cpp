#include "safety/trainer.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <set>

#include "base/json.hpp"
#include "base/text.hpp"
#include "safety/canonicalise.hpp"

namespace parley::safety {
namespace {

struct Feature {
    uint32_t bucket;
    float value;
};
using Features = std::vector<Feature>;

Features features_of(const std::string& text, uint32_t bits) {
    std::vector<uint32_t> buckets;
    FeatureStream stream;
    auto sink = [&](uint64_t hash) {
        buckets.push_back(static_cast<uint32_t>(hash >> (64 - bits)));
    };
    stream.push(text, sink);
    stream.finish(sink);
    std::sort(buckets.begin(), buckets.end());
    Features out;
    const double unit = 1 / std::sqrt(static_cast<double>(std::max<size_t>(1, buckets.size())));
    for (size_t i = 0; i < buckets.size();) {
        size_t j = i;
        while (j < buckets.size() && buckets[j] == buckets[i]) ++j;
        out.push_back({buckets[i], static_cast<float>(static_cast<double>(j - i) * unit)});
        i = j;
    }
    return out;
}

struct Example {
    const Features* features;
    float target;
    float weight;
};

struct Weights {
    std::vector<float> w;
    double bias = 0;
};

// Multiply-with-carry is plenty to shuffle rows; the standard's engines shuffle differently by library.
struct Random {
    uint64_t state;
    uint32_t below(uint32_t n) {
        state = state * 6364136223846793005ull + 1442695040888963407ull;
        return static_cast<uint32_t>((state >> 33) % n);
    }
};

Weights fit(const std::vector<Example>& examples, uint32_t bits, const TrainOptions& options) {
    Weights out;
    out.w.assign(size_t{1} << bits, 0);
    std::vector<float> squares(out.w.size(), 0);
    double bias_square = 0;
    std::vector<uint32_t> order(examples.size());
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<uint32_t>(i);
    Random random{options.seed};
    const auto rate = static_cast<float>(options.rate);
    const auto l2 = static_cast<float>(options.l2);
    for (uint32_t epoch = 0; epoch < options.epochs; ++epoch) {
        for (size_t i = order.size(); i > 1; --i)
            std::swap(order[i - 1], order[random.below(static_cast<uint32_t>(i))]);
        for (uint32_t index : order) {
            const Example& example = examples[index];
            double z = out.bias;
            for (const Feature& f : *example.features) z += out.w[f.bucket] * f.value;
            const auto slope = static_cast<float>((sigmoid(z) - example.target) * example.weight);
            for (const Feature& f : *example.features) {
                const float gradient = slope * f.value + l2 * out.w[f.bucket];
                squares[f.bucket] += gradient * gradient;
                out.w[f.bucket] -= rate * gradient / (std::sqrt(squares[f.bucket]) + 1e-4f);
            }
            bias_square += static_cast<double>(slope) * slope;
            out.bias -= options.rate * slope / (std::sqrt(bias_square) + 1e-4);
        }
    }
    return out;
}

struct Rounded {
    std::vector<int8_t> w;
    double scale = 0;
    double bias = 0;
};

// Rounds to int8; the largest thousandth of weights is clipped, or one outlier would coarsen all.
Rounded round_weights(const Weights& weights) {
    std::vector<float> sizes;
    for (float w : weights.w)
        if (w != 0) sizes.push_back(std::fabs(w));
    Rounded out;
    out.bias = weights.bias;
    out.w.assign(weights.w.size(), 0);
    if (sizes.empty()) return out;
    const size_t at = sizes.size() - 1 - sizes.size() / 2000;
    std::nth_element(sizes.begin(), sizes.begin() + static_cast<std::ptrdiff_t>(at), sizes.end());
    out.scale = sizes[at] / 127.0;
    for (size_t i = 0; i < weights.w.size(); ++i)
        out.w[i] = static_cast<int8_t>(
            std::clamp(std::nearbyint(weights.w[i] / out.scale), -127.0, 127.0));
    return out;
}

struct Prepared {
    std::vector<size_t> rows;    // indices used
    std::vector<Features> main;  // as many as rows
    std::vector<Features> hazards;
};

std::string canonical_of(const std::string& text) {
    auto views = canonicalise(text);
    if (!views) return text;
    return views->size() > 1 && (*views)[1].how == "canonical" ? (*views)[1].text
                                                               : (*views)[0].text;
}

// The examples of one head. What counts as the other side:
//   unsafe     all that is not benign, against benign
//   harmful    against benign
//   jailbreak  against benign and harmful (a wrapper is not the harm that it wraps)
//   injection  likewise
//   output     harmful answers against benign answers, and benign texts of the input side
std::vector<Example> examples_for(Head head, const std::vector<Row>& rows, const Prepared& prepared,
                                  const std::set<std::string>& left_out, uint32_t part = 0) {
    std::vector<Example> out;
    for (size_t i = 0; i < prepared.rows.size(); ++i) {
        const Row& row = rows[prepared.rows[i]];
        if (left_out.count(kin(row.source)) != 0) continue;
        float weight = 1;
        bool positive = false;
        if (head == Head::output) {
            if (row.output) {
                // Answers come from few sources: parts by hash stand in for sources.
                if (part != 0 && base::crc32c(row.text) % 5 + 1 == part) continue;
                positive = !row.benign();
            } else {
                if (!row.benign()) continue;
                weight = 0.3f;
            }
        } else {
            if (row.output) continue;
            positive = head == Head::unsafe ? !row.benign() : row.label == name(head);
            if (!positive && !row.benign()) {
                const bool wrapper = head == Head::jailbreak || head == Head::prompt_injection;
                if (!wrapper || row.label != "harmful") continue;
            }
        }
        out.push_back({&prepared.main[i], positive ? 1.0f : 0.0f, weight});
    }
    return out;
}

bool both_kinds(const std::vector<Example>& examples) {
    bool yes = false, no = false;
    for (const Example& example : examples) (example.target > 0.5f ? yes : no) = true;
    return yes && no;
}

std::string write_file(const std::array<Rounded, kHeads>& heads,
                       const std::array<Rounded, kHazards.size()>& hazards,
                       const std::array<double, kHeads>& centre,
                       const std::array<double, kHeads>& slope, const TrainOptions& options,
                       size_t rows, const std::string& rows_hash) {
    std::string header;
    base::JsonWriter w(header);
    w.object().field("version", 1).field("seed", options.seed).field("epochs", options.epochs);
    w.field("rate", options.rate).field("l2", options.l2).field("rows", rows);
    w.field("rows_sha256", rows_hash).key("heads").array();
    for (size_t h = 0; h < kHeads; ++h)
        w.object()
            .field("name", name(static_cast<Head>(h)))
            .field("bits", Model::kMainBits)
            .field("scale", heads[h].scale)
            .field("bias", heads[h].bias)
            .field("slope", slope[h])
            .field("centre", centre[h])
            .end();
    for (size_t h = 0; h < kHazards.size(); ++h)
        w.object()
            .field("name", kHazards[h])
            .field("bits", Model::kHazardBits)
            .field("scale", hazards[h].scale)
            .field("bias", hazards[h].bias)
            .field("slope", 1.0)
            .field("centre", 0.0)
            .end();
    w.end().end();
    std::string file = "parleyW1";
    const auto size = static_cast<uint32_t>(header.size());
    file.append(reinterpret_cast<const char*>(&size), 4);
    file += header;
    file.resize((file.size() + 15) / 16 * 16, '\0');
    for (const Rounded& head : heads)
        file.append(reinterpret_cast<const char*>(head.w.data()), head.w.size());
    for (const Rounded& hazard : hazards)
        file.append(reinterpret_cast<const char*>(hazard.w.data()), hazard.w.size());
    return file;
}

double quantile_above(std::vector<double> values, double share) {
    if (values.empty()) return 0;
    std::sort(values.begin(), values.end());
    const auto above = static_cast<size_t>(share * static_cast<double>(values.size()));
    return values[values.size() - 1 - std::min(above, values.size() - 1)];
}

}  // namespace

std::string kin(const std::string& source) {
    std::string out = source.substr(0, source.find('-'));
    if (out == "gptfuzzer") out = "gptfuzz";
    // In-the-wild jailbreaks reach us by two roads.
    if (out == "inthewild") out = "pyrit";
    return out;
}

HeadValues score_views(const Model& model, const std::string& text) {
    auto views = canonicalise(text);
    HeadValues best{};
    if (!views) return best;
    bool first = true;
    for (const View& view : *views) {
        const HeadValues z = model.score(view.text);
        for (size_t h = 0; h < kHeads; ++h) best[h] = first ? z[h] : std::max(best[h], z[h]);
        first = false;
    }
    return best;
}

base::Result<Trained> train(const std::vector<Row>& rows, const TrainOptions& options) {
    auto say = [&](const std::string& text) {
        if (options.progress) options.progress(text);
    };
    Prepared prepared;
    std::string digest;
    for (size_t i = 0; i < rows.size(); ++i) {
        if (rows[i].label == "sensitive") continue;
        if (options.drop_share_alike && rows[i].license.find("-SA") != std::string::npos) continue;
        prepared.rows.push_back(i);
        const std::string text = canonical_of(rows[i].text);
        prepared.main.push_back(features_of(text, Model::kMainBits));
        prepared.hazards.push_back(
            rows[i].category.empty() ? Features{} : features_of(text, Model::kHazardBits));
        digest += base::sha256(rows[i].text + '\0' + rows[i].label + '\0' + rows[i].source);
    }
    const std::string rows_hash = base::hex(base::sha256(digest));
    say(fmt::format("{} rows", prepared.rows.size()));

    std::array<Rounded, kHeads> heads;
    for (size_t h = 0; h < kHeads; ++h) {
        const auto head = static_cast<Head>(h);
        const auto examples = examples_for(head, rows, prepared, {});
        if (!both_kinds(examples))
            return base::fail(
                base::Errc::invalid,
                fmt::format("head '{}' has no rows of one of its two kinds", name(head)));
        heads[h] = round_weights(fit(examples, Model::kMainBits, options));
    }
    std::array<Rounded, kHazards.size()> hazards;
    for (size_t h = 0; h < kHazards.size(); ++h) {
        std::vector<Example> examples;
        for (size_t i = 0; i < prepared.rows.size(); ++i) {
            const Row& row = rows[prepared.rows[i]];
            if (prepared.hazards[i].empty()) continue;
            examples.push_back(
                {&prepared.hazards[i], row.category == kHazards[h] ? 1.0f : 0.0f, 1});
        }
        if (!examples.empty())
            hazards[h] = round_weights(fit(examples, Model::kHazardBits, options));
        hazards[h].w.resize(size_t{1} << Model::kHazardBits, 0);
    }

    Trained out;
    std::array<double, kHeads> centre{}, slope{};
    slope.fill(1);
    if (options.calibrate) {
        auto model_of = [&](const std::array<Rounded, kHeads>& fold) {
            std::array<double, kHeads> none{}, ones{};
            ones.fill(1);
            return Model::parse(write_file(fold, hazards, none, ones, options, 0, ""));
        };
        auto score_rows = [&](const std::array<Rounded, kHeads>& fold,
                              auto&& wanted) -> base::Result<void> {
            auto model = model_of(fold);
            if (!model) return base::fail(model.error());
            for (size_t i = 0; i < rows.size(); ++i)
                if (wanted(rows[i]))
                    out.left_out.push_back({i, score_views(**model, rows[i].text)});
            return {};
        };
        std::set<std::string> kins;
        for (const Row& row : rows)
            if (!row.output) kins.insert(kin(row.source));
        for (const std::string& gone : kins) {
            say(fmt::format("leaving out {}", gone));
            std::array<Rounded, kHeads> fold = heads;
            for (size_t h = 0; h < kHeads; ++h) {
                const auto examples = examples_for(static_cast<Head>(h), rows, prepared, {gone});
                if (both_kinds(examples))
                    fold[h] = round_weights(fit(examples, Model::kMainBits, options));
            }
            auto done = score_rows(
                fold, [&](const Row& row) { return !row.output && kin(row.source) == gone; });
            if (!done) return base::fail(done.error());
        }
        // Answers: by hash, with the input heads of the whole (they saw no answer).
        for (uint32_t part = 1; part <= 5; ++part) {
            std::array<Rounded, kHeads> fold = heads;
            const auto examples = examples_for(Head::output, rows, prepared, {}, part);
            if (!both_kinds(examples)) continue;
            fold[static_cast<size_t>(Head::output)] =
                round_weights(fit(examples, Model::kMainBits, options));
            auto done = score_rows(fold, [&](const Row& row) {
                return row.output && base::crc32c(row.text) % 5 + 1 == part;
            });
            if (!done) return base::fail(done.error());
        }
        for (size_t h = 0; h < kHeads; ++h) {
            const auto head = static_cast<Head>(h);
            std::vector<double> benign;
            for (const LeftOut& one : out.left_out) {
                const Row& row = rows[one.row];
                if (head == Head::output) {
                    if (row.benign() && (!row.output || row.ordinary())) benign.push_back(one.z[h]);
                } else if (!row.output && row.ordinary()) {
                    benign.push_back(one.z[h]);
                }
            }
            const double share = head == Head::unsafe   ? options.fpr_unsafe
                                 : head == Head::output ? options.fpr_output
                                                        : options.fpr_kind;
            centre[h] = quantile_above(benign, share);
            // Steep enough that a tenth of benign texts lies above 0.2: one scale for all heads, in
            // terms of what they cost.
            const double tenth = quantile_above(benign, 0.1);
            slope[h] = 1.3862943611198906 / std::max(0.1, centre[h] - tenth);
        }
    }
    out.file = write_file(heads, hazards, centre, slope, options, prepared.rows.size(), rows_hash);
    return out;
}

}  // namespace parley::safety
