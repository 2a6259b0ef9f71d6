// /v1/messages/batches: message batches: create, list, retrieve, cancel, delete, results.
#include <fmt/format.h>

#include "asking.hpp"
#include "base/json.hpp"
#include "batch_runner.hpp"
#include "batches/entries.hpp"
#include "batches/shown.hpp"
#include "http/body_file.hpp"
#include "json_in.hpp"
#include "routes.hpp"
#include "store_errors.hpp"

namespace parley::chatd {

using messages::ApiError;
using messages::ErrorType;

namespace {

constexpr size_t kAddEntries = 200;
constexpr size_t kAddBytes = 512u << 10;
constexpr uint64_t kLetGoStep = 4u << 20;
constexpr size_t kResultRows = 64;
constexpr size_t kResultBytes = 256u << 10;

std::string base_url(const Exchange& exchange) {
    return fmt::format("{}://{}", exchange.request.tls ? "https" : "http",
                       exchange.request.headers.get("host"));
}

ApiError no_batch() { return ApiError::of(ErrorType::not_found_error, "no such batch"); }

ApiError batch_error_of(const store::CommandReply& reply) {
    if (reply.error->code == base::Errc::not_found) return no_batch();
    if (reply.reason == "running")
        return ApiError::invalid("a batch can be deleted once it has ended; cancel it first");
    return api_error_of(reply);
}

std::optional<store::Ulid> id_of(const Exchange& exchange) {
    return store::parse_id(store::kBatch, exchange.request.segments[3]);
}

void show(const ExchangePtr& exchange, const store::MessageBatchRow& row) {
    exchange->reply(200, batches::batch_json(row, base_url(*exchange)));
}

std::optional<store::MessageBatchRow> row_in(const store::CommandReply& reply) {
    auto row = store::from_json<store::MessageBatchRow>(member_json(reply.json, "batch"));
    if (!row) return std::nullopt;
    return std::move(*row);
}

// A batch being made: counted and checked beside the loop, then stored a piece at a time.
class BatchCreate final : public std::enable_shared_from_this<BatchCreate> {
  public:
    BatchCreate(ExchangePtr exchange, bool newest)
        : exchange_(std::move(exchange)),
          app_(exchange_->app),
          newest_(newest),
          file_(exchange_->request.body_file) {}

    void start() {
        auto view = file_->view();
        if (!view) return fail(ApiError::unavailable("no room for the request body", 1));
        body_ = *view;
        const bool begun = app_.counter->run([self = shared_from_this()] { self->look_through(); },
                                             [self = shared_from_this()] { self->make(); });
        if (!begun) fail(ApiError::overloaded(1));
    }

  private:
    // On the helper thread.
    void look_through() {
        batches::Entries entries(body_);
        uint64_t let_go = 0;
        for (;;) {
            auto entry = entries.next();
            if (!entry) {
                wrong_ = entry.error();
                return;
            }
            if (!*entry) break;
            if (entries.offset() - let_go > kLetGoStep) file_->let_go(let_go = entries.offset());
        }
        total_ = entries.count();
    }

    void make() {
        if (wrong_) return fail(*wrong_);
        if (exchange_->writer->closed()) return exchange_->gone();
        batches::EntriesOptions options;
        options.find_twins = false;
        entries_.emplace(body_, options);
        store::MessageBatchCreate command;
        command.org = exchange_->caller.org;
        command.user = exchange_->caller.user;
        command.key_id = exchange_->caller.key_id;
        command.owner = app_.owner;
        command.params = BatchRunner::params_of(exchange_->caller, newest_);
        command.total = total_;
        command.ttl_ms = app_.options.batch_expiry_ms;
        submit(command.json());
    }

    void submit(std::string command) {
        if (!app_.store->connected()) return fail(store_away());
        auto sent = app_.store->submit(
            std::move(command),
            [self = shared_from_this()](const store::CommandReply& reply) { self->stored(reply); },
            kCommandWaitMs);
        if (!sent) fail(api_error_of(sent.error(), ""));
    }

    void stored(const store::CommandReply& reply) {
        if (!reply.ok()) return fail(batch_error_of(reply));
        auto row = row_in(reply);
        if (!row) return fail(ApiError::of(ErrorType::api_error, "the store's reply has no batch"));
        row_ = std::move(*row);
        if (exchange_->writer->closed()) {
            exchange_->gone();
            return forget();
        }
        if (row_->added < row_->total) return add();
        app_.batches->own(*row_);
        exchange_->note("entries", static_cast<double>(total_));
        show(exchange_, *row_);
    }

    void add() {
        store::MessageBatchAdd command;
        command.batch = row_->id;
        command.owner = app_.owner;
        size_t bytes = 0;
        while (command.items.size() < kAddEntries && bytes < kAddBytes) {
            auto entry = entries_->next();
            if (!entry || !*entry) break;
            store::BatchItemRow& item = command.items.emplace_back();
            item.custom_id = std::move((*entry)->custom_id);
            item.params = std::move((*entry)->params);
            if (item.params.empty())
                item.result = batches::errored_json(
                    ApiError::of(ErrorType::request_too_large, "the entry is too large"));
            bytes += item.params.size();
        }
        file_->let_go(entries_->offset());
        submit(command.json());
    }

    void fail(const ApiError& error) {
        forget();
        if (exchange_->writer->closed()) return exchange_->gone();
        exchange_->error(error);
    }
    // What is made so far is nobody's.
    void forget() {
        if (!row_) return;
        store::MessageBatchDelete command;
        command.org = row_->org;
        command.user = row_->user;
        command.batch = row_->id;
        command.owner = app_.owner;
        (void)app_.store->submit(
            command.json(), [](const store::CommandReply&) {}, kCommandWaitMs);
        row_.reset();
    }

    ExchangePtr exchange_;
    App& app_;
    bool newest_;
    std::shared_ptr<http::BodyFile> file_;
    std::string_view body_;
    std::optional<ApiError> wrong_;
    uint64_t total_ = 0;
    std::optional<batches::Entries> entries_;
    std::optional<store::MessageBatchRow> row_;
};

void create(const ExchangePtr& exchange, bool newest) {
    if (!exchange->request.body_file || exchange->request.body_file->size() == 0)
        return exchange->error(
            ApiError::invalid("The request body is not valid JSON: the body is empty"));
    std::make_shared<BatchCreate>(exchange, newest)->start();
}

void list(const ExchangePtr& exchange) {
    const auto limit = limit_of(*exchange, 20, 1000);
    if (!limit) return exchange->error(limit.error());
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) return exchange->error(store_away());
    store::BatchesQuery query;
    query.org = exchange->caller.org;
    query.user = exchange->caller.user;
    query.limit = *limit;
    for (const auto& [name, bound] :
         {std::pair{"after_id", &query.older_than}, std::pair{"before_id", &query.newer_than}}) {
        const auto text = exchange->request.query_value(name);
        if (!text || text->empty()) continue;
        *bound = store::parse_id(store::kBatch, *text);
        if (!*bound) return exchange->error(ApiError::invalid(name, "no such batch"));
    }
    if (query.older_than && query.newer_than)
        return exchange->error(ApiError::invalid("before_id", "not together with `after_id`"));
    auto page = reader->message_batches(query);
    if (!page) return exchange->error(api_error_of(page.error(), ""));
    std::string out;
    base::JsonWriter w(out);
    w.object().key("data").array();
    for (const auto& row : page->rows) w.raw(batches::batch_json(row, base_url(*exchange)));
    w.end().field("has_more", page->has_more);
    if (page->rows.empty()) {
        w.key("first_id").null().key("last_id").null();
    } else {
        w.field("first_id", store::show_id(store::kBatch, page->rows.front().id));
        w.field("last_id", store::show_id(store::kBatch, page->rows.back().id));
    }
    w.end();
    exchange->reply(200, std::move(out));
}

// The batch that the path names, or nullopt and the error is answered.
std::optional<store::MessageBatchRow> find(const ExchangePtr& exchange) {
    const auto id = id_of(*exchange);
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) {
        exchange->error(store_away());
        return std::nullopt;
    }
    if (id) {
        auto row = reader->message_batch(exchange->caller.org, exchange->caller.user, *id);
        if (row) return std::move(*row);
        if (row.error().code != base::Errc::not_found) {
            exchange->error(api_error_of(row.error(), ""));
            return std::nullopt;
        }
    }
    exchange->error(no_batch());
    return std::nullopt;
}

// Results to one client at its pace; nothing of them is held but what waits for its socket.
class ResultsCall final : public Call, public std::enable_shared_from_this<ResultsCall> {
  public:
    ResultsCall(ExchangePtr exchange, store::Ulid batch)
        : exchange_(std::move(exchange)), app_(exchange_->app), batch_(batch) {}

    void start() {
        exchange_->begin_lines();
        const auto weak = weak_from_this();
        exchange_->writer->on_drain([weak] {
            if (const auto self = weak.lock()) self->pump();
        });
        exchange_->writer->on_close([weak] {
            if (const auto self = weak.lock()) self->over(false);
        });
        pump();
    }
    void tick(int64_t) override {
        // A client that takes all at once never drains from above: go on by ourselves.
        if (!over_) pump();
    }

  private:
    void pump() {
        if (over_ || pumping_) return;
        const auto self = shared_from_this();
        pumping_ = true;
        for (int pages = 0; pages < 4 && !over_; ++pages) {
            if (exchange_->writer->pending_bytes() > app_.options.client_bytes_max) break;
            if (!page()) break;
        }
        pumping_ = false;
        if (over_ || exchange_->writer->pending_bytes() > app_.options.client_bytes_max) return;
        app_.loop.post([weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->pump();
        });
    }

    bool page() {
        store::Reader* reader = app_.store->reader();
        auto rows = reader ? reader->batch_items(batch_, true, next_, kResultRows, kResultBytes)
                           : base::fail(base::Errc::unavailable, "");
        if (!rows) {
            exchange_->writer->abort();  // so that the client can tell
            over(false);
            return false;
        }
        if (rows->empty()) {
            over(true);
            return false;
        }
        std::string lines;
        for (const store::BatchItemRow& row : *rows) {
            lines += batches::result_line(row);
            next_ = row.index + 1;
        }
        return exchange_->writer->write(lines);
    }

    void over(bool whole) {
        if (over_) return;
        over_ = true;
        if (whole)
            exchange_->end();
        else
            exchange_->gone();
        app_.let_go(shared_from_this());
    }

    ExchangePtr exchange_;
    App& app_;
    store::Ulid batch_;
    uint32_t next_ = 0;
    bool over_ = false, pumping_ = false;
};

}  // namespace

void message_batches(const ExchangePtr& exchange) {
    bool newest = true;
    if (auto error = check_version(*exchange, newest)) return exchange->error(*error);
    if (exchange->request.method == "POST") return create(exchange, newest);
    list(exchange);
}

void message_batch(const ExchangePtr& exchange) {
    bool newest = true;
    if (auto error = check_version(*exchange, newest)) return exchange->error(*error);
    const auto row = find(exchange);
    if (!row) return;
    if (exchange->request.method != "DELETE") return show(exchange, *row);
    store::MessageBatchDelete command;
    command.org = row->org;
    command.user = row->user;
    command.batch = row->id;
    if (!exchange->app.store->connected()) return exchange->error(store_away());
    auto sent = exchange->app.store->submit(
        command.json(),
        [exchange, id = store::show_id(store::kBatch, row->id)](const store::CommandReply& reply) {
            if (!reply.ok()) return exchange->error(batch_error_of(reply));
            std::string out;
            base::JsonWriter w(out);
            w.object().field("id", id).field("type", "message_batch_deleted").end();
            exchange->reply(200, std::move(out));
        },
        kCommandWaitMs);
    if (!sent) exchange->error(api_error_of(sent.error(), ""));
}

void cancel_message_batch(const ExchangePtr& exchange) {
    bool newest = true;
    if (auto error = check_version(*exchange, newest)) return exchange->error(*error);
    const auto row = find(exchange);
    if (!row) return;
    store::MessageBatchCancel command;
    command.org = row->org;
    command.user = row->user;
    command.batch = row->id;
    submit_for(exchange, command.json(), [exchange](const store::CommandReply& reply) {
        const auto now = row_in(reply);
        if (!now) return exchange->error(no_batch());
        exchange->app.batches->own(*now);
        show(exchange, *now);
    });
}

void message_batch_results(const ExchangePtr& exchange) {
    bool newest = true;
    if (auto error = check_version(*exchange, newest)) return exchange->error(*error);
    const auto row = find(exchange);
    if (!row) return;
    if (row->state != "ended")
        return exchange->error(ApiError::of(ErrorType::not_found_error,
                                            "the batch has not ended: it has no results yet"));
    const auto call = std::make_shared<ResultsCall>(exchange, row->id);
    exchange->app.keep(call);
    call->start();
}

}  // namespace parley::chatd
