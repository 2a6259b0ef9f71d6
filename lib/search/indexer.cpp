#include "search/indexer.hpp"

#include <fmt/format.h>
#include <simdjson.h>
#include <unistd.h>

#include "base/clock.hpp"
#include "search/words.hpp"
#include "store/check.hpp"

namespace parley::search {

using base::Errc;
using base::fail;
using base::Result;

struct Indexer::Impl {
    IndexerOptions options;
    std::shared_ptr<store::Env> env;
    std::unique_ptr<store::Reader> reader;
    std::unique_ptr<store::Follower> follower;
    std::unique_ptr<IndexWriter> index;
    simdjson::dom::parser parser;
    uint64_t uncommitted = 0;     // documents
    int64_t uncommitted_ms = -1;  // since when there is something to commit
    bool erased = false;

    Result<void> follow(uint64_t after) {
        store::FollowerOptions o;
        o.changes_endpoint = options.changes_endpoint;
        o.after = after;
        o.poll_ms = options.poll_ms;
        auto opened = store::Follower::open(*reader, o);
        if (!opened) return fail(opened.error());
        follower = std::move(*opened);
        return {};
    }

    static bool can_be_found(const store::MessageRow& row) { return row.status != "streaming"; }
    static Document document_of(const store::ConvRow& conv, const store::MessageRow& row) {
        return {conv.user, conv.id, row.id, text_of_content(row.content)};
    }

    // All messages of a conversation; `put` is IndexWriter::put or add.
    Result<uint64_t> each_message(const store::ConvRow& conv,
                                  Result<void> (IndexWriter::*put)(const Document&),
                                  IndexWriter& into) {
        uint64_t count = 0;
        store::MessagesQuery query;
        query.conv = conv.id;
        query.limit = 500;
        query.ascending = true;
        for (;;) {
            auto page = reader->messages(query);
            if (!page) return fail(page.error());
            for (const store::MessageRow& row : page->rows) {
                query.after = row.id;
                if (!can_be_found(row)) continue;
                const Document document = document_of(conv, row);
                if (document.text.empty()) continue;
                if (auto done = (into.*put)(document); !done) return fail(done.error());
                ++count;
            }
            if (!page->has_more) return count;
        }
    }

    Result<void> message(const store::ConvRow& conv, const Ulid& id) {
        auto row = reader->message(conv.id, id);
        if (!row && row.error().code == Errc::not_found) return index->remove_message(id);
        if (!row) return fail(row.error());
        if (!can_be_found(*row)) return {};  // its end will be told
        ++uncommitted;
        const Document document = document_of(conv, *row);
        return document.text.empty() ? index->remove_message(id) : index->put(document);
    }

    Result<void> apply(const store::Change& change) {
        simdjson::dom::object object;
        if (parser.parse(change.json).get(object))
            return fail(Errc::corrupt, fmt::format("change {} is no JSON object", change.seq));
        const auto text = [&](const char* name) {
            std::string_view out;
            return object[name].get(out) ? std::string_view{} : out;
        };
        const std::string_view type = text("type");
        const auto user = store::parse_id(store::kUser, text("user"));
        const auto org = store::parse_id(store::kOrg, text("org"));
        const auto conv_id = store::parse_id(store::kConv, text("conversation"));
        if (type == "user.erased" && user) {
            erased = true;
            return index->remove_user(*user);
        }
        if (type == "conversation.deleted" && conv_id) return index->remove_conversation(*conv_id);
        const bool whole = type == "conversation.imported";
        if (!whole && !type.starts_with("message.")) return {};
        if (!user || !org || !conv_id) return {};
        const auto said = store::parse_id(store::kMsg, text("user_message"));
        const auto made = store::parse_id(store::kMsg, text("message"));
        if (type == "message.deleted") return made ? index->remove_message(*made) : Result<void>{};
        auto conv = reader->conversation(*org, *user, *conv_id);
        // Deleted since: the change that says so will come.
        if (!conv && conv.error().code == Errc::not_found) return {};
        if (!conv) return fail(conv.error());
        if (whole) {
            auto count = each_message(*conv, &IndexWriter::put, *index);
            if (count) uncommitted += *count;
            return count ? Result<void>{} : fail(count.error());
        }
        for (const auto& id : {said, made})
            if (id)
                if (auto done = message(*conv, *id); !done) return done;
        return {};
    }
};

Indexer::Indexer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Indexer::~Indexer() = default;

Result<std::unique_ptr<Indexer>> Indexer::open(IndexerOptions options) {
    auto impl = std::make_unique<Impl>();
    impl->options = std::move(options);
    store::EnvOptions env;
    env.dir = impl->options.store_dir;
    auto opened = store::Env::open(env);
    if (!opened) return fail(opened.error());
    impl->env = std::move(*opened);
    auto reader = store::make_reader(impl->env);
    if (!reader) return fail(reader.error());
    impl->reader = std::move(*reader);
    auto index = IndexWriter::open(impl->options.dir);
    std::unique_ptr<Indexer> indexer(new Indexer(std::move(impl)));
    Impl& self = *indexer->impl_;
    if (!index) {
        if (index.error().code != Errc::corrupt) return fail(index.error());
        self.options.tell("index.damaged", index.error().what);
        if (auto done = indexer->rebuild([] { return true; }); !done) return fail(done.error());
        return indexer;
    }
    self.index = std::move(*index);
    if (auto done = self.follow(self.index->seq()); !done) return fail(done.error());
    return indexer;
}

Result<void> Indexer::rebuild(const std::function<bool()>& keep_on) {
    Impl& self = *impl_;
    auto from = self.reader->last_change();
    if (!from) return fail(from.error());
    self.options.tell("index.rebuild", fmt::format("change {}", *from));
    auto fresh = IndexWriter::fresh(self.options.dir);
    if (!fresh) return fail(fresh.error());
    uint64_t since_commit = 0;
    auto rows = store::each_row(
        *self.env, store::Table::conv,
        [&](std::string_view, std::string_view json) -> Result<void> {
            if (!keep_on()) return fail(Errc::cancelled, "the rebuild was stopped");
            auto conv = store::from_json<store::ConvRow>(json);
            if (!conv) return fail(conv.error());
            auto count = self.each_message(*conv, &IndexWriter::add, **fresh);
            if (!count) return fail(count.error());
            if ((since_commit += *count) < 50'000) return {};
            since_commit = 0;
            return (*fresh)->commit(0);
        });
    if (!rows) return fail(rows.error());
    if (auto done = (*fresh)->commit(*from); !done) return done;
    // What was asked for before this moment is in; what comes now asks for another.
    ::unlink(rebuild_wanted_path(self.options.dir).c_str());
    self.index.reset();  // before its folder goes
    if (auto done = (*fresh)->publish(); !done) return done;
    self.index = std::move(*fresh);
    self.erased = false;
    self.uncommitted = 0;
    self.uncommitted_ms = -1;
    self.options.tell("index.rebuilt", fmt::format("{} messages", self.index->documents()));
    return self.follow(*from);
}

Result<bool> Indexer::step() {
    Impl& self = *impl_;
    auto changes = self.follower->next();
    if (!changes) {
        if (changes.error().code != Errc::corrupt) return fail(changes.error());
        // The checkpoint is older than the log, or of another store.
        self.options.tell("index.behind_the_log", changes.error().what);
        if (auto done = rebuild([] { return true; }); !done) return fail(done.error());
        return true;
    }
    for (const store::Change& change : *changes)
        if (auto done = self.apply(change); !done) {
            if (done.error().code != Errc::corrupt) return fail(done.error());
            self.options.tell("index.damaged", done.error().what);
            if (auto again = rebuild([] { return true; }); !again) return fail(again.error());
            return true;
        }
    const int64_t now = base::system_clock().mono_ms();
    if (!changes->empty() && self.uncommitted_ms < 0) self.uncommitted_ms = now;
    if (self.uncommitted_ms >= 0 && (now - self.uncommitted_ms >= self.options.commit_ms ||
                                     self.uncommitted >= self.options.commit_documents))
        if (auto done = flush(); !done) return fail(done.error());
    return !changes->empty();
}

Result<void> Indexer::flush() {
    Impl& self = *impl_;
    if (self.uncommitted_ms < 0) return {};
    self.uncommitted_ms = -1;
    self.uncommitted = 0;
    return self.index->commit(self.follower->position());
}

void Indexer::wait(int extra_fd) {
    Impl& self = *impl_;
    if (self.uncommitted_ms < 0) return self.follower->wait(extra_fd);
    // step() looks at the clock; what is written meanwhile is read with the next commit.
    ::usleep(static_cast<useconds_t>(std::min<int64_t>(self.options.commit_ms, 20)) * 1000);
}

bool Indexer::wants_rebuild() const {
    return impl_->erased || ::access(rebuild_wanted_path(impl_->options.dir).c_str(), F_OK) == 0;
}
uint64_t Indexer::seq() const { return impl_->follower->position(); }
uint64_t Indexer::documents() const { return impl_->index->documents(); }

}  // namespace parley::search
