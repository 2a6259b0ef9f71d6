// What a simulation found, as a table, as JSON and as a drawing.
#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json.hpp"
#include "dispatch/simulation.hpp"

namespace parley::dispatch {

namespace {

constexpr std::array<const char*, 8> kColours = {"#1b6ca8", "#c8553d", "#4a8c3f", "#8e5aa8",
                                                 "#b8860b", "#2a9d8f", "#6b6b6b", "#d1495b"};
constexpr int kWidth = 900, kPanel = 190, kLeft = 70, kTop = 40, kGap = 50;

std::string escaped(const std::string& text) {
    std::string out;
    for (const char c : text) {
        if (c == '<')
            out += "&lt;";
        else if (c == '&')
            out += "&amp;";
        else if (c == '>')
            out += "&gt;";
        else
            out.push_back(c);
    }
    return out;
}

}  // namespace

std::string SimulationResult::table() const {
    std::string out =
        fmt::format("{:<20} {:>6} {:>9} {:>9} {:>7} {:>7} {:>7} {:>6} {:>6} {:>10} {:>10} {:>10}\n",
                    "GROUP", "ORGS", "ASKED", "DONE", "GOOD%", "429", "529", "LATE", "MOVED",
                    "TTFT P50", "TTFT P99", "USED S");
    for (const auto& g : groups)
        out += fmt::format(
            "{:<20} {:>6} {:>9} {:>9} {:>7.1f} {:>7} {:>7} {:>6} {:>6} {:>7.0f} ms {:>7.0f} ms "
            "{:>10.1f}\n",
            g.name, g.orgs, g.asked, g.done,
            g.done == 0 ? 0.0 : 100.0 * static_cast<double>(g.good) / static_cast<double>(g.done),
            g.rate_limited, g.overloaded, g.expired, g.moved, g.ttft(0.5), g.ttft(0.99), g.used_s);
    out += fmt::format("\ngoodput {:.2f} requests/s   busy {:.1f} % of capacity   ", goodput,
                       capacity_s > 0 ? 100 * busy_s / capacity_s : 0);
    if (backlogged >= 2)
        out += fmt::format("Jain {:.4f} over the {} organizations that always waited   ", jain,
                           backlogged);
    else
        out += "Jain -   ";
    out +=
        fmt::format("charged less busy {:.3f} %   decisions {}\n", 100 * charged_error, decisions);
    return out;
}

std::string SimulationResult::json(const std::string& name) const {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("scenario", name).field("simulated", true).field("seconds", seconds);
    w.field("goodput", goodput).field("busy_s", busy_s).field("capacity_s", capacity_s);
    w.key("jain");
    if (backlogged >= 2)
        w.number(jain);
    else
        w.null();
    w.field("backlogged", backlogged).field("charged_error", charged_error);
    w.field("decisions", decisions).key("groups").array();
    for (const auto& g : groups) {
        w.object().field("name", g.name).field("orgs", g.orgs).field("asked", g.asked);
        w.field("done", g.done).field("good", g.good).field("rate_limited", g.rate_limited);
        w.field("overloaded", g.overloaded).field("expired", g.expired).field("moved", g.moved);
        w.field("broken", g.broken).field("used_s", g.used_s);
        w.field("ttft_p50_ms", g.ttft(0.5)).field("ttft_p90_ms", g.ttft(0.9));
        w.field("ttft_p99_ms", g.ttft(0.99)).end();
    }
    w.end().end();
    return out;
}

// Three panels over the seconds: compute-seconds used, good answers, refusals; a line a group.
std::string SimulationResult::svg(const std::string& title) const {
    const size_t points = std::max<size_t>(1, static_cast<size_t>(seconds));
    struct Panel {
        const char* name;
        std::vector<double> GroupResult::*series;
    };
    const std::array<Panel, 3> panels = {
        {{"compute-seconds a second", &GroupResult::used_by_second},
         {"answers within their SLO a second", &GroupResult::good_by_second},
         {"refusals a second", &GroupResult::refused_by_second}}};
    const int height = kTop + 3 * (kPanel + kGap) + 20 * static_cast<int>((groups.size() + 3) / 4);
    std::string out = fmt::format(
        R"(<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {} {}" font-family="sans-serif" font-size="12">)"
        "\n"
        R"(<rect width="100%" height="100%" fill="white"/><text x="{}" y="22" font-size="16">{} (simulated)</text>)"
        "\n",
        kWidth, height, kLeft, escaped(title));
    int top = kTop;
    for (const Panel& panel : panels) {
        double most = 0;
        for (const auto& g : groups)
            for (const double value : g.*panel.series) most = std::max(most, value);
        if (most <= 0) most = 1;
        const double across = kWidth - kLeft - 20;
        out += fmt::format(
            R"(<text x="{}" y="{}">{}</text><rect x="{}" y="{}" width="{:.0f}" height="{}" fill="none" stroke="#999"/>)"
            "\n"
            R"(<text x="{}" y="{}" text-anchor="end">{:.4g}</text><text x="{}" y="{}" text-anchor="end">0</text><text x="{}" y="{}" text-anchor="end">{:.0f} s</text>)"
            "\n",
            kLeft, top + 12, panel.name, kLeft, top + 18, across, kPanel, kLeft - 6, top + 28, most,
            kLeft - 6, top + 18 + kPanel, kWidth - 20, top + 18 + kPanel + 14, seconds);
        for (size_t g = 0; g < groups.size(); ++g) {
            const auto& series = groups[g].*panel.series;
            std::string line;
            for (size_t i = 0; i < points; ++i) {
                const double value = i < series.size() ? series[i] : 0;
                line += fmt::format(
                    "{:.1f},{:.1f} ",
                    kLeft + across * (static_cast<double>(i) + 0.5) / static_cast<double>(points),
                    top + 18 + kPanel * (1 - value / most));
            }
            out +=
                fmt::format(R"(<polyline points="{}" fill="none" stroke="{}" stroke-width="1.5"/>)"
                            "\n",
                            line, kColours[g % kColours.size()]);
        }
        top += kPanel + kGap;
    }
    for (size_t g = 0; g < groups.size(); ++g) {
        const int x = kLeft + static_cast<int>(g % 4) * 200,
                  y = top + 14 + 20 * static_cast<int>(g / 4);
        out += fmt::format(
            R"(<rect x="{}" y="{}" width="12" height="12" fill="{}"/><text x="{}" y="{}">{}</text>)"
            "\n",
            x, y - 10, kColours[g % kColours.size()], x + 18, y, escaped(groups[g].name));
    }
    out += "</svg>\n";
    return out;
}

}  // namespace parley::dispatch
