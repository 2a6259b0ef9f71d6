// GET /v1/usage: what an organisation or a user has used, per model and day, and what it cost.
#include <algorithm>
#include <charconv>
#include <chrono>

#include "app.hpp"
#include "base/json.hpp"
#include "charging.hpp"
#include "routes.hpp"

namespace parley::chatd {

using messages::ApiError;

namespace {

constexpr int64_t kDayMs = 86'400'000;
constexpr int64_t kDaysMax = 366;
constexpr int64_t kDaysDefault = 30;

// Days since 1970 of YYYY-MM-DD; a time after it (RFC 3339) does not matter.
std::optional<int64_t> day_of(std::string_view text) {
    if (text.size() < 10 || (text.size() > 10 && text[10] != 'T')) return std::nullopt;
    if (text[4] != '-' || text[7] != '-') return std::nullopt;
    int year = 0, month = 0, day = 0;
    const auto number = [&](size_t at, size_t digits, int& out) {
        const char* end = text.data() + at + digits;
        const auto read = std::from_chars(text.data() + at, end, out);
        return read.ec == std::errc() && read.ptr == end && text[at] != '-';
    };
    if (!number(0, 4, year) || !number(5, 2, month) || !number(8, 2, day)) return std::nullopt;
    const std::chrono::year_month_day date{std::chrono::year(year),
                                           std::chrono::month(static_cast<unsigned>(month)),
                                           std::chrono::day(static_cast<unsigned>(day))};
    if (!date.ok() || year < 1970) return std::nullopt;
    return std::chrono::sys_days(date).time_since_epoch().count();
}

}  // namespace

void get_usage(const ExchangePtr& exchange) {
    App& app = exchange->app;
    const Caller& caller = exchange->caller;
    int64_t to = app.clock.wall_ms() / kDayMs;
    if (const auto text = exchange->request.query_value("to")) {
        const auto day = day_of(*text);
        if (!day)
            return exchange->error(
                ApiError::invalid("to", "Input should be a valid date, YYYY-MM-DD"));
        to = *day;
    }
    int64_t from = std::max<int64_t>(to - (kDaysDefault - 1), 0);
    if (const auto text = exchange->request.query_value("from")) {
        const auto day = day_of(*text);
        if (!day)
            return exchange->error(
                ApiError::invalid("from", "Input should be a valid date, YYYY-MM-DD"));
        from = *day;
    }
    if (from > to) return exchange->error(ApiError::invalid("from", "Input should not be after to"));
    if (to - from >= kDaysMax)
        return exchange->error(
            ApiError::invalid("from", "Input should be at most 366 days before to"));
    bool of_user =
        !caller.session.empty() || !exchange->request.headers.get("x-user-id").empty();
    if (const auto of = exchange->request.query_value("of")) {
        if (*of != "org" && *of != "user")
            return exchange->error(ApiError::invalid("of", "Input should be 'org' or 'user'"));
        of_user = *of == "user";
        if (!of_user && !caller.session.empty())
            return exchange->error(ApiError::of(
                messages::ErrorType::permission_error,
                "a session sees its user's usage: a key of the organisation sees all"));
    }
    store::Reader* reader = app.store->reader();
    if (!reader) return exchange->error(ApiError::unavailable("the store is not ready", 1));
    const auto totals = reader->usage(of_user ? caller.user : caller.org,
                                      static_cast<uint32_t>(from), static_cast<uint32_t>(to));
    if (!totals)
        return exchange->error(
            ApiError::of(messages::ErrorType::api_error, "the store could not be read"));
    std::string out;
    base::JsonWriter w(out);
    w.object().field("type", "usage").field("of", of_user ? "user" : "org");
    w.field("id", of_user ? caller.user_text() : caller.org_text());
    w.field("from", base::rfc3339(from * kDayMs).substr(0, 10));
    w.field("to", base::rfc3339(to * kDayMs).substr(0, 10));
    UsageSum sum;
    w.key("data").array();
    for (const store::UsageTotal& total : *totals) {
        UsageSum one;
        one.add(app, total);
        sum.add(app, total);
        w.object().field("date", base::rfc3339(int64_t{total.day} * kDayMs).substr(0, 10));
        w.field("model", app.catalog->name_of_version(total.model));
        one.write(w);
        w.end();
    }
    w.end().key("total").object();
    sum.write(w);
    w.end().end();
    http::Response response = json_response(200, std::move(out), exchange->request_id);
    response.header("cache-control", "no-store");
    exchange->reply(std::move(response));
}

}  // namespace parley::chatd
