// GET /v1/export: all conversations of the caller's user as JSON Lines, a page at a time as they are taken.
#include "asking.hpp"
#include "routes.hpp"
#include "store/transfer.hpp"
#include "store_errors.hpp"

namespace parley::chatd {
namespace {

class ExportCall final : public Call, public std::enable_shared_from_this<ExportCall> {
  public:
    ExportCall(ExchangePtr exchange, store::Reader& reader)
        : exchange_(std::move(exchange)),
          app_(exchange_->app),
          reader_(&reader),
          lines_(reader, exchange_->caller.org, exchange_->caller.user) {}

    void start() {
        std::string first;
        auto more = lines_.next(first);
        if (!more) {
            exchange_->error(api_error_of(more.error(), ""));
            return over();
        }
        exchange_->begin_lines();
        const auto weak = weak_from_this();
        exchange_->writer->on_drain([weak] {
            if (const auto self = weak.lock()) self->pump();
        });
        exchange_->writer->on_close([weak] {
            if (const auto self = weak.lock()) self->stop();
        });
        exchange_->writer->write(first);
        *more ? pump() : finish();
    }
    void tick(int64_t) override { pump(); }

  private:
    bool full() const { return exchange_->writer->pending_bytes() > app_.options.client_bytes_max; }
    void pump() {
        if (over_ || pumping_) return;
        const auto self = shared_from_this();
        pumping_ = true;
        for (int pages = 0; pages < 4 && !over_ && !full(); ++pages) page();
        pumping_ = false;
        if (over_ || full()) return;
        app_.loop.post([weak = weak_from_this()] {
            if (const auto self = weak.lock()) self->pump();
        });
    }
    void page() {
        std::string out;
        auto more = app_.store->reader() == reader_
                        ? lines_.next(out)
                        : base::fail(base::Errc::unavailable, "the store is gone");
        if (!more) {
            exchange_->writer->abort();  // without its last line the client can tell
            return stop();
        }
        exchange_->writer->write(out);
        if (!*more) finish();
    }
    void finish() {
        if (over_) return;
        exchange_->end();
        over();
    }
    void stop() {
        if (over_) return;
        exchange_->gone();
        over();
    }
    void over() {
        over_ = true;
        app_.let_go(shared_from_this());
    }

    ExchangePtr exchange_;
    App& app_;
    store::Reader* reader_;
    store::UserExport lines_;
    bool over_ = false, pumping_ = false;
};

}  // namespace

void get_export(const ExchangePtr& exchange) {
    store::Reader* reader = exchange->app.store->reader();
    if (!reader) return exchange->error(store_away());
    const auto call = std::make_shared<ExportCall>(exchange, *reader);
    exchange->app.keep(call);
    call->start();
}

}  // namespace parley::chatd
