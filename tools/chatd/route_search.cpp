// GET /v1/search: the caller's own messages, by words.
//
// Steps    where the index stands (thread), what the caller has since (loop: the store's reader is its),
//          find (thread), the rows (loop), the snippets (thread), the answer.
#include "routes.hpp"
#include "search_desk.hpp"
#include "store_errors.hpp"

namespace parley::chatd {

using base::Errc;
using base::Result;
using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr size_t kResultsMax = 50;

struct Search {
    ExchangePtr exchange;
    search::Query query;
    size_t limit = 20;
    std::string cursor;
    std::vector<search::Document> tail;
    std::vector<search::Shown> results;
    std::string json;
    uint64_t seq = 0;
    search::Found found;
    std::optional<base::Error> error;  // of the index
};
using SearchPtr = std::shared_ptr<Search>;

ApiError search_error(const base::Error& error) {
    switch (error.code) {
        case Errc::invalid:
            return ApiError::invalid("cursor", error.what);
        case Errc::unavailable:
            return ApiError::unavailable("there is no search index yet: convstore index makes it",
                                         5);
        case Errc::corrupt:
            return ApiError::unavailable(
                "the search index is damaged: convstore index makes it anew", 5);
        case Errc::again:
            return ApiError::unavailable("the search index is behind: it has to catch up", 2);
        default:
            return ApiError::of(ErrorType::api_error, "the search failed: " + error.what);
    }
}

// `then` is for what went well.
void in_thread(const SearchPtr& s, std::function<void(search::Index&)> work,
               std::function<void()> then) {
    const bool taken = s->exchange->app.search->run(
        [s, work = std::move(work)](Result<search::Index*> index) {
            if (index)
                work(**index);
            else
                s->error = index.error();
        },
        [s, then = std::move(then)] {
            if (s->error) return s->exchange->error(search_error(*s->error));
            then();
        });
    if (!taken) s->exchange->error(ApiError::overloaded(1));
}

void show(const SearchPtr& s) {
    store::Reader* reader = s->exchange->app.store->reader();
    if (!reader) return s->exchange->error(store_away());
    auto rows = search::fetch(*reader, s->exchange->caller.org, s->exchange->caller.user,
                              s->found.hits);
    if (!rows) return s->exchange->error(api_error_of(rows.error(), ""));
    s->results = std::move(*rows);
    in_thread(
        s,
        [s](search::Index&) {
            search::show(s->results, s->query);
            s->json = search::results_json(s->results, s->found);
        },
        [s] {
            s->exchange->note("results", static_cast<double>(s->results.size()));
            s->exchange->reply(200, std::move(s->json));
        });
}

void find(const SearchPtr& s) {
    store::Reader* reader = s->exchange->app.store->reader();
    if (!reader) return s->exchange->error(store_away());
    const Caller& caller = s->exchange->caller;
    auto tail = search::gather(*reader, caller.org, caller.user, s->seq);
    if (!tail) return s->exchange->error(search_error(tail.error()));
    s->tail = std::move(*tail);
    in_thread(
        s,
        [s](search::Index& index) {
            auto found = index.find(s->exchange->caller.user, s->query, s->limit, s->cursor,
                                    s->tail);
            if (found)
                s->found = std::move(*found);
            else
                s->error = found.error();
        },
        [s] { show(s); });
}

}  // namespace

void get_search(const ExchangePtr& exchange) {
    const auto text = exchange->request.query_value("q");
    if (!text) return exchange->error(ApiError::invalid("q", "Field required"));
    auto query = search::Query::parse(*text);
    if (!query) return exchange->error(ApiError::invalid("q", query.error().what));
    const auto limit = limit_of(*exchange, 20, kResultsMax);
    if (!limit) return exchange->error(limit.error());
    const auto s = std::make_shared<Search>();
    s->exchange = exchange;
    s->query = std::move(*query);
    s->limit = *limit;
    s->cursor = exchange->request.query_value("cursor").value_or("");
    in_thread(
        s, [s](search::Index& index) { s->seq = index.seq(); }, [s] { find(s); });
}

}  // namespace parley::chatd
