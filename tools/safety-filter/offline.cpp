// check, eval, train: what is done with texts in files, at leisure.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

#include "base/file.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "options.hpp"
#include "policy_source.hpp"
#include "safety/canonicalise.hpp"
#include "safety/evaluate.hpp"
#include "safety/judge.hpp"
#include "safety/trainer.hpp"

namespace parley::safety_filter {
namespace {

constexpr const char* kTool = "safety-filter";

void put(const std::string& text) { std::fwrite(text.data(), 1, text.size(), stdout); }

}  // namespace

int check(const Options& options) {
    auto policy = load_policy(options.policy);
    if (!policy) return base::report(kTool, policy.error());
    auto text = options.file == "-" ? read_stdin(64u << 20) : base::read_file(options.file);
    if (!text) return base::report(kTool, text.error());
    const safety::Judge judge(*policy, 0);
    const bool output = options.side == "output";
    const safety::Voice voice = output ? safety::Voice::output : safety::Voice::user;
    auto views = safety::canonicalise(*text, (*policy)->limits());
    if (!views) return base::report(kTool, views.error());
    auto meter = safety::Meter::unlimited();
    auto verdict = judge.judge(voice, *text, meter);
    if (!verdict) return base::report(kTool, verdict.error());
    const safety::Model& model = (*policy)->model();
    std::string out;
    base::JsonWriter w(out);
    w.object().field("verdict", safety::name(verdict->action)).field("score", verdict->score);
    w.field("policy", (*policy)->name()).field("hazard", verdict->hazard).key("rules").array();
    for (const std::string& rule : verdict->rules) w.string(rule);
    w.end().key("views").array();
    std::string table = fmt::format(
        "verdict {}  score {:.3f}  policy {}{}{}\n", safety::name(verdict->action), verdict->score,
        (*policy)->name(), verdict->hazard.empty() ? "" : "  hazard ", verdict->hazard);
    for (const auto& rule : verdict->rules) table += fmt::format("rule {}\n", rule);
    for (const safety::View& view : *views) {
        const auto heads = model.calibrated(model.score(view.text));
        std::vector<size_t> hits;
        (*policy)->match(output, view.text, hits);
        w.object().field("how", view.how).field("text", view.text).key("heads").object();
        table += fmt::format("\nview {} ({} bytes)\n  {}\n", view.how, view.text.size(), view.text);
        safety::Head top = output ? safety::Head::output : safety::Head::unsafe;
        for (size_t h = 0; h < safety::kHeads; ++h) {
            const auto head = static_cast<safety::Head>(h);
            if (!(*policy)->uses(voice, head)) continue;
            w.field(safety::name(head), heads[h]);
            const auto& threshold = (*policy)->threshold(voice, head);
            table += fmt::format("  {:<18}{:.3f}  (flag {:.2f}, block {:.2f})\n",
                                 safety::name(head), heads[h], threshold.flag, threshold.block);
            if (heads[h] > heads[static_cast<size_t>(top)]) top = head;
        }
        w.end().key("rules").array();
        for (size_t hit : hits) {
            w.string((*policy)->rules()[hit].id);
            table += fmt::format("  rule {}\n", (*policy)->rules()[hit].id);
        }
        w.end().key("words").array();
        table += fmt::format("  words that speak most for {}:", safety::name(top));
        for (const auto& [word, value] : model.explain(top, view.text, 8)) {
            w.object().field("word", word).field("value", value).end();
            table += fmt::format(" {} ({:+.2f})", word, value);
        }
        table += '\n';
        w.end().end();
    }
    w.end().end();
    put(options.json ? out + '\n' : table);
    return verdict->action == safety::Action::block ? 1 : 0;
}

int eval(const Options& options) {
    std::vector<safety::Row> rows;
    for (const std::string& path : options.data)
        if (auto loaded = safety::load_rows(path, rows); !loaded)
            return base::report(kTool, loaded.error());
    auto policy = load_policy(options.policy);
    if (!policy) return base::report(kTool, policy.error());
    std::vector<safety::Scored> scored;
    if (options.leave_one_out) {
        safety::TrainOptions train_options;
        train_options.seed = options.seed;
        train_options.drop_share_alike = !options.keep_share_alike;
        train_options.progress = [](const std::string& text) {
            base::log(base::Level::info, "eval.progress", {{"what", text}});
        };
        auto trained = safety::train(rows, train_options);
        if (!trained) return base::report(kTool, trained.error());
        auto model = safety::Model::parse(trained->file);
        if (!model) return base::report(kTool, model.error());
        for (const safety::LeftOut& one : trained->left_out) {
            const safety::Row& row = rows[one.row];
            const auto voice = row.output ? safety::Voice::output : safety::Voice::user;
            const auto verdict =
                safety::weigh(**policy, voice, (*model)->calibrated(one.z), {}, false);
            scored.push_back({&row, verdict.score, verdict.action == safety::Action::block});
        }
    } else {
        const safety::Judge judge(*policy, 0);
        for (const safety::Row& row : rows) {
            auto meter = safety::Meter::unlimited();
            auto verdict = judge.judge(row.output ? safety::Voice::output : safety::Voice::user,
                                       row.text, meter);
            if (!verdict)
                return base::report(
                    kTool, base::Error{verdict.error().code,
                                       fmt::format("row '{}': {}", row.id, verdict.error().what)});
            scored.push_back({&row, verdict->score, verdict->action == safety::Action::block});
        }
    }
    for (bool output : {false, true}) {
        if (std::none_of(scored.begin(), scored.end(),
                         [&](const safety::Scored& s) { return s.row->output == output; }))
            continue;
        const auto report = safety::report(scored, output, -1, options.fpr, options.at_policy);
        put(options.json ? safety::to_json(report) + '\n' : safety::to_table(report));
    }
    return 0;
}

int train(const Options& options) {
    std::vector<safety::Row> rows;
    for (const std::string& path : options.data)
        if (auto loaded = safety::load_rows(path, rows); !loaded)
            return base::report(kTool, loaded.error());
    safety::TrainOptions train_options;
    train_options.seed = options.seed;
    train_options.epochs = options.epochs;
    train_options.drop_share_alike = !options.keep_share_alike;
    train_options.progress = [](const std::string& text) {
        base::log(base::Level::info, "train.progress", {{"what", text}});
    };
    auto trained = safety::train(rows, train_options);
    if (!trained) return base::report(kTool, trained.error());
    auto model = safety::Model::parse(trained->file);
    if (!model) return base::report(kTool, model.error());
    if (auto written = base::write_file(options.out, trained->file); !written)
        return base::report(kTool, written.error());
    put(fmt::format("{}  {}\n", (*model)->sha256_hex(), options.out));
    return 0;
}

}  // namespace parley::safety_filter
