// Registry: the metrics of one process, and their Prometheus text exposition (format 0.0.4).
//
// Owns     every Counter, Gauge and Histogram it hands out; the references live as long as it does.
// Threads  making a series takes a lock: do it once and keep the reference. Updates are lock-free
//          from any thread; render() runs beside them (the metrics thread does that).
// Bounds   series_max label sets per name. What comes after shares one series whose label values
// are
//          all "_other", and parley_series_refused_total counts it. A label value is cut at 128
//          bytes. User text is never a label value.
// Errors   none at run time. A name that is not [a-zA-Z_:][a-zA-Z0-9_:]*, or one name used as two
//          kinds, is a bug and stops the process.
//
//   telemetry::Registry metrics;
//   auto& served = metrics.counter("chatd_requests_total", "requests answered", {{"route",
//   "messages"}}); served.add();
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "telemetry/histogram.hpp"

namespace parley::telemetry {

using Labels = std::vector<std::pair<std::string, std::string>>;

class Counter {
  public:
    void add(uint64_t n = 1) { value_.fetch_add(n, std::memory_order_relaxed); }
    uint64_t value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<uint64_t> value_{0};
};

class Gauge {
  public:
    void set(double value) { value_.store(value, std::memory_order_relaxed); }
    void add(double n) {
        double seen = value_.load(std::memory_order_relaxed);
        while (!value_.compare_exchange_weak(seen, seen + n, std::memory_order_relaxed)) {
        }
    }
    double value() const { return value_.load(std::memory_order_relaxed); }

  private:
    std::atomic<double> value_{0};
};

// How a Histogram is shown: recorded integers are multiplied by `scale`, `bounds` are in the shown
// unit, rising. A value within 1/64 of a bound may be counted one bucket up.
struct Exposition {
    double scale = 1e-9;  // nanoseconds shown as seconds
    std::vector<double> bounds = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25,
                                  0.5,   1,      2.5,   5,    10,    30,   60,  120};
};

struct RegistryOptions {
    uint32_t series_max = 256;    // label sets per name
    bool process_metrics = true;  // process_resident_memory_bytes and its usual companions
};

class Registry {
  public:
    explicit Registry(RegistryOptions options = {});
    ~Registry();
    Registry(const Registry&) = delete;
    Registry& operator=(const Registry&) = delete;

    // The same name and labels give the same object. `help` is taken from the first call.
    Counter& counter(const std::string& name, const std::string& help, const Labels& labels = {});
    Gauge& gauge(const std::string& name, const std::string& help, const Labels& labels = {});
    Histogram& histogram(const std::string& name, const std::string& help,
                         const Labels& labels = {}, const Exposition& exposition = {});

    std::string render() const;

  private:
    struct Family;
    struct Series;
    Series& series(int kind, const std::string& name, const std::string& help, const Labels& labels,
                   const Exposition* exposition);

    RegistryOptions options_;
    mutable std::mutex mutex_;  // guards the maps, not the values
    std::map<std::string, std::unique_ptr<Family>> families_;
    Counter refused_;
};

}  // namespace parley::telemetry
