#include "telemetry/registry.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "base/text.hpp"

namespace parley::telemetry {
namespace {

enum Kind { kCounter, kGauge, kHistogram };
constexpr const char* kKindNames[] = {"counter", "gauge", "histogram"};
constexpr size_t kLabelBytesMax = 128;

bool valid_name(std::string_view name, bool colon) {
    if (name.empty()) return false;
    for (size_t i = 0; i < name.size(); ++i) {
        const char c = name[i];
        const bool letter =
            (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_' || (colon && c == ':');
        if (!letter && !(i > 0 && c >= '0' && c <= '9')) return false;
    }
    return true;
}

// A bug of the caller's: there is no sensible value to go on with.
[[noreturn]] void stop(const char* what, const std::string& name) {
    std::fprintf(stderr, "telemetry: %s '%s'\n", what, name.c_str());
    std::abort();
}

void append_escaped(std::string& out, std::string_view text, bool quotes) {
    for (const char c : text) {
        if (c == '\\') {
            out += "\\\\";
        } else if (c == '\n') {
            out += "\\n";
        } else if (c == '"' && quotes) {
            out += "\\\"";
        } else {
            out += c;
        }
    }
}

// {a="x",b="y"} without the braces: the series' identity and its text at once.
std::string label_text(const Labels& labels) {
    std::string out;
    for (const auto& [key, value] : labels) {
        if (!valid_name(key, false)) stop("bad label name", key);
        if (!out.empty()) out += ',';
        out += key + "=\"";
        std::string_view shown = value;
        if (shown.size() > kLabelBytesMax) {
            shown = shown.substr(0, kLabelBytesMax);
            shown = shown.substr(0, base::utf8_complete_prefix(shown));
        }
        append_escaped(out, base::utf8_valid(shown) ? shown : std::string_view("_invalid_utf8"),
                       true);
        out += '"';
    }
    return out;
}

std::string show(double value) {
    if (std::isnan(value)) return "NaN";
    if (std::isinf(value)) return value > 0 ? "+Inf" : "-Inf";
    return fmt::format("{}", value);
}

void append_line(std::string& out, std::string_view name, std::string_view labels,
                 std::string_view value) {
    out += name;
    if (!labels.empty()) {
        out += '{';
        out += labels;
        out += '}';
    }
    out += ' ';
    out += value;
    out += '\n';
}

void append_simple(std::string& out, const char* name, const char* help, const char* kind,
                   double value) {
    out += fmt::format("# HELP {0} {1}\n# TYPE {0} {2}\n{0} {3}\n", name, help, kind, show(value));
}

void append_process(std::string& out) {
    long pages = 0;
    std::ifstream("/proc/self/statm") >> pages >> pages;
    append_simple(out, "process_resident_memory_bytes", "resident memory", "gauge",
                  static_cast<double>(pages) * static_cast<double>(::sysconf(_SC_PAGESIZE)));
    timespec cpu{};
    ::clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &cpu);
    append_simple(out, "process_cpu_seconds_total", "user and system time", "counter",
                  static_cast<double>(cpu.tv_sec) + static_cast<double>(cpu.tv_nsec) * 1e-9);
    std::error_code ignored;
    size_t fds = 0;
    for (std::filesystem::directory_iterator it("/proc/self/fd", ignored), end;
         !ignored && it != end; it.increment(ignored))
        ++fds;
    append_simple(out, "process_open_fds", "open file descriptors", "gauge",
                  static_cast<double>(fds));
}

}  // namespace

struct Registry::Series {
    Counter counter;
    Gauge gauge;
    std::unique_ptr<Histogram> histogram;
};

struct Registry::Family {
    int kind = kCounter;
    std::string help;
    Exposition exposition;
    std::map<std::string, std::unique_ptr<Series>> series;  // by label text
};

Registry::Registry(RegistryOptions options) : options_(options) {}
Registry::~Registry() = default;

Registry::Series& Registry::series(int kind, const std::string& name, const std::string& help,
                                   const Labels& labels, const Exposition* exposition) {
    if (!valid_name(name, true)) stop("bad metric name", name);
    std::string key = label_text(labels);
    const std::lock_guard lock(mutex_);
    auto& family = families_[name];
    if (!family) {
        family = std::make_unique<Family>();
        family->kind = kind;
        family->help = help;
        if (exposition) family->exposition = *exposition;
    }
    if (family->kind != kind) stop("one name for two kinds:", name);
    if (auto found = family->series.find(key); found != family->series.end()) return *found->second;
    if (family->series.size() >= options_.series_max) {
        refused_.add();
        Labels others = labels;
        for (auto& [ignored, value] : others) value = "_other";
        key = label_text(others);
    }
    auto& made = family->series[key];
    if (!made) {
        made = std::make_unique<Series>();
        if (kind == kHistogram) made->histogram = std::make_unique<Histogram>();
    }
    return *made;
}

Counter& Registry::counter(const std::string& name, const std::string& help, const Labels& labels) {
    return series(kCounter, name, help, labels, nullptr).counter;
}
Gauge& Registry::gauge(const std::string& name, const std::string& help, const Labels& labels) {
    return series(kGauge, name, help, labels, nullptr).gauge;
}
Histogram& Registry::histogram(const std::string& name, const std::string& help,
                               const Labels& labels, const Exposition& exposition) {
    return *series(kHistogram, name, help, labels, &exposition).histogram;
}

std::string Registry::render() const {
    std::string out;
    const std::lock_guard lock(mutex_);
    for (const auto& [name, family] : families_) {
        out += "# HELP " + name + ' ';
        append_escaped(out, family->help, false);
        out += "\n# TYPE " + name + ' ' + kKindNames[family->kind] + '\n';
        for (const auto& [labels, one] : family->series) {
            if (family->kind == kCounter) {
                append_line(out, name, labels, fmt::format("{}", one->counter.value()));
            } else if (family->kind == kGauge) {
                append_line(out, name, labels, show(one->gauge.value()));
            } else {
                // One snapshot, so that the buckets, +Inf and _count agree among themselves.
                const Histogram seen(*one->histogram);
                const std::string comma = labels.empty() ? "" : labels + ',';
                for (const double bound : family->exposition.bounds) {
                    const auto least =
                        static_cast<int64_t>(std::llround(bound / family->exposition.scale));
                    append_line(out, name + "_bucket", comma + "le=\"" + show(bound) + '"',
                                fmt::format("{}", seen.count_at_most(least)));
                }
                const std::string count = fmt::format("{}", seen.count());
                append_line(out, name + "_bucket", comma + "le=\"+Inf\"", count);
                append_line(out, name + "_sum", labels,
                            fmt::format("{:.15g}", static_cast<double>(seen.sum()) *
                                                       family->exposition.scale));
                append_line(out, name + "_count", labels, count);
            }
        }
    }
    append_simple(out, "parley_series_refused_total", "label sets folded into _other", "counter",
                  static_cast<double>(refused_.value()));
    if (options_.process_metrics) append_process(out);
    return out;
}

}  // namespace parley::telemetry
