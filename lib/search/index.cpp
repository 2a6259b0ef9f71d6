#include "search/index.hpp"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xapian.h>

#include <algorithm>
#include <charconv>
#include <filesystem>
#include <unordered_set>

#include "base/file.hpp"
#include "base/text.hpp"
#include "base/ulid.hpp"
#include "search/words.hpp"

namespace parley::search {

using base::Errc;
using base::fail;
using base::Result;

namespace {

constexpr Xapian::valueno kMessageSlot = 0;
constexpr Xapian::termcount kPrefixWordsMax = 200;
constexpr const char* kSeq = "seq";
// The words of the tail belong to a user who may have no number yet: no number has this form.
constexpr std::string_view kTailNumber = "~~~~~";

std::string current_path(const std::string& dir) { return dir + "/current"; }

base::Error of_xapian(const Xapian::Error& error, const std::string& dir) {
    const std::string type = error.get_type();
    const bool damaged = type == "DatabaseCorruptError" || type == "DatabaseVersionError" ||
                         type == "DatabaseOpeningError" || type == "DatabaseNotFoundError" ||
                         type == "DocNotFoundError" || type == "DatabaseClosedError" ||
                         // a block that is not there, and not for the disk's sake
                         (type == "DatabaseError" && !error.get_error_string());
    if (damaged)
        return {Errc::corrupt,
                fmt::format("the search index in '{}' is damaged ({}): convstore index --rebuild",
                            dir, error.get_msg())};
    if (type == "DatabaseLockError")
        return {Errc::conflict,
                fmt::format("another process writes the search index in '{}'", dir)};
    return {Errc::io, fmt::format("the search index in '{}': {}", dir, error.get_description())};
}

Result<std::string> current_of(const std::string& dir) {
    auto name = base::read_file(current_path(dir), 256);
    if (!name && name.error().code == Errc::not_found)
        return fail(Errc::unavailable,
                    fmt::format("there is no search index in '{}' yet: convstore index makes it",
                                dir));
    if (!name) return fail(name.error());
    while (!name->empty() && name->back() == '\n') name->pop_back();
    if (name->empty() || name->find('/') != std::string::npos)
        return fail(Errc::corrupt, fmt::format("'{}' names no index: convstore index --rebuild",
                                               current_path(dir)));
    return *name;
}

// A user's number, five characters of base 64 in ASCII order, unique in an index for ever.
std::string number_text(uint64_t number) {
    static constexpr char kDigits[] =
        "-0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ_abcdefghijklmnopqrstuvwxyz";
    std::string out(5, '-');
    for (size_t i = out.size(); i-- > 0; number >>= 6) out[i] = kDigits[number & 63];
    return out;
}

std::string user_key(const Ulid& user) { return "u" + base::hex(user.view()); }
std::string message_term(const Ulid& id) { return "QM" + std::string(id.view()); }
std::string conv_term(const Ulid& id) { return "QC" + std::string(id.view()); }
std::string user_term(const Ulid& id) { return "QU" + std::string(id.view()); }
std::string word_term(std::string_view number, std::string_view word) {
    return "W" + std::string(number) + std::string(word);
}

Xapian::Document made_of(const Document& document, std::string_view number) {
    Xapian::Document out;
    for (const Word& word : words_of(document.text, kTextBytesMax))
        out.add_posting(word_term(number, word.text), word.position);
    out.add_boolean_term(message_term(document.message));
    out.add_boolean_term(conv_term(document.conv));
    out.add_boolean_term(user_term(document.user));
    out.add_value(kMessageSlot, std::string(document.message.view()));
    out.set_data(std::string(document.conv.view()) + std::string(document.message.view()));
    return out;
}

Xapian::Query query_of(const Query& query, std::string_view number) {
    std::vector<Xapian::Query> parts;
    for (const Clause& clause : query.clauses) {
        std::vector<Xapian::Query> words;
        for (const std::string& word : clause.words) {
            const std::string term = word_term(number, word);
            if (clause.prefix)
                words.emplace_back(Xapian::Query::OP_WILDCARD, term, kPrefixWordsMax,
                                   Xapian::Query::WILDCARD_LIMIT_MOST_FREQUENT,
                                   Xapian::Query::OP_OR);
            else
                words.emplace_back(term);
        }
        parts.push_back(words.size() == 1
                            ? words[0]
                            : Xapian::Query(Xapian::Query::OP_PHRASE, words.begin(), words.end(),
                                            static_cast<Xapian::termcount>(words.size())));
    }
    return Xapian::Query(Xapian::Query::OP_AND, parts.begin(), parts.end());
}

// What a cursor holds: where the page ended, up to which message was searched, and for whom.
struct Place {
    size_t offset = 0;
    std::string newest;
    std::string print;
    std::string seal() const {
        std::string bytes = "1";
        for (int shift = 24; shift >= 0; shift -= 8)
            bytes += static_cast<char>(offset >> shift & 0xff);
        return base::base64url(bytes + newest + print);
    }
    static std::optional<Place> open(std::string_view cursor, const std::string& print) {
        auto bytes = base::unbase64url(cursor);
        if (!bytes || bytes->size() != 1 + 4 + 16 + print.size() || (*bytes)[0] != '1')
            return std::nullopt;
        Place place;
        for (size_t i = 1; i <= 4; ++i)
            place.offset = place.offset << 8 | static_cast<unsigned char>((*bytes)[i]);
        place.newest = bytes->substr(5, 16);
        place.print = bytes->substr(21);
        if (place.print != print || place.offset > kDepthMax) return std::nullopt;
        return place;
    }
};

}  // namespace

std::string rebuild_wanted_path(const std::string& dir) { return dir + "/rebuild.wanted"; }

struct IndexWriter::Impl {
    std::string dir, name;
    Xapian::WritableDatabase db;
    uint64_t seq = 0;
    uint64_t numbers = 0;

    std::string number_of(const Ulid& user) {
        std::string number = db.get_metadata(user_key(user));
        if (number.empty()) {
            number = number_text(++numbers);
            db.set_metadata(user_key(user), number);
            db.set_metadata("users", std::to_string(numbers));
        }
        return number;
    }
    template <class F>
    Result<void> guarded(F&& work) {
        try {
            work();
            return {};
        } catch (const Xapian::Error& error) {
            return fail(of_xapian(error, dir));
        }
    }
};

namespace {

uint64_t number_in(const std::string& text) {
    uint64_t out = 0;
    std::from_chars(text.data(), text.data() + text.size(), out);
    return out;
}

}  // namespace

IndexWriter::IndexWriter(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
IndexWriter::~IndexWriter() = default;

Result<std::unique_ptr<IndexWriter>> IndexWriter::open(const std::string& dir) {
    auto name = current_of(dir);
    if (!name && name.error().code == Errc::unavailable) {
        auto made = fresh(dir);
        if (!made) return made;
        if (auto done = (*made)->commit(0); !done) return fail(done.error());
        if (auto done = (*made)->publish(); !done) return fail(done.error());
        return made;
    }
    if (!name) return fail(name.error());
    auto impl = std::make_unique<Impl>();
    impl->dir = dir;
    impl->name = *name;
    if (auto done = impl->guarded([&] {
            impl->db = Xapian::WritableDatabase(dir + "/" + *name, Xapian::DB_OPEN);
            impl->seq = number_in(impl->db.get_metadata(kSeq));
            impl->numbers = number_in(impl->db.get_metadata("users"));
        });
        !done)
        return fail(done.error());
    return std::unique_ptr<IndexWriter>(new IndexWriter(std::move(impl)));
}

Result<std::unique_ptr<IndexWriter>> IndexWriter::fresh(const std::string& dir) {
    if (auto made = base::make_dirs(dir); !made) return fail(made.error());
    auto impl = std::make_unique<Impl>();
    impl->dir = dir;
    impl->name = base::random_id("glass.");
    if (auto done = impl->guarded([&] {
            impl->db = Xapian::WritableDatabase(dir + "/" + impl->name,
                                                Xapian::DB_CREATE | Xapian::DB_BACKEND_GLASS);
        });
        !done)
        return fail(done.error());
    ::chmod((dir + "/" + impl->name).c_str(), 0700);
    return std::unique_ptr<IndexWriter>(new IndexWriter(std::move(impl)));
}

Result<void> IndexWriter::put(const Document& document) {
    return impl_->guarded([&] {
        impl_->db.replace_document(message_term(document.message),
                                   made_of(document, impl_->number_of(document.user)));
    });
}
Result<void> IndexWriter::add(const Document& document) {
    return impl_->guarded(
        [&] { impl_->db.add_document(made_of(document, impl_->number_of(document.user))); });
}
Result<void> IndexWriter::remove_conversation(const Ulid& conv) {
    return impl_->guarded([&] { impl_->db.delete_document(conv_term(conv)); });
}
Result<void> IndexWriter::remove_user(const Ulid& user) {
    return impl_->guarded([&] { impl_->db.delete_document(user_term(user)); });
}
Result<void> IndexWriter::remove_message(const Ulid& message) {
    return impl_->guarded([&] { impl_->db.delete_document(message_term(message)); });
}

Result<void> IndexWriter::commit(uint64_t seq) {
    auto done = impl_->guarded([&] {
        impl_->db.set_metadata(kSeq, std::to_string(seq));
        impl_->db.commit();
    });
    if (done) impl_->seq = seq;
    return done;
}
uint64_t IndexWriter::seq() const { return impl_->seq; }
uint64_t IndexWriter::documents() const { return impl_->db.get_doccount(); }

Result<void> IndexWriter::publish() {
    if (auto done = base::write_file(current_path(impl_->dir), impl_->name + "\n", 0600); !done)
        return done;
    std::error_code ignored;
    for (const auto& entry : std::filesystem::directory_iterator(impl_->dir, ignored)) {
        const std::string name = entry.path().filename();
        if (name.starts_with("glass.") && name != impl_->name)
            std::filesystem::remove_all(entry.path(), ignored);
    }
    return {};
}

struct Index::Impl {
    std::string dir, name;
    Xapian::Database db;
    uint64_t seq = 0;

    Result<void> open() {
        // A rebuild may swap the folder between the two reads: once more then.
        for (int attempt = 0;; ++attempt) {
            auto now = current_of(dir);
            if (!now) return fail(now.error());
            try {
                db = Xapian::Database(dir + "/" + *now);
                seq = number_in(db.get_metadata(kSeq));
                name = *now;
                return {};
            } catch (const Xapian::Error& error) {
                if (attempt < 3 && current_of(dir).value_or(*now) != *now) continue;
                return broken(error);
            }
        }
    }
    tl::unexpected<base::Error> broken(const Xapian::Error& error) {
        base::Error said = of_xapian(error, dir);
        if (said.code == Errc::corrupt)
            // Who may not write there leaves the asking to the operator.
            (void)base::write_file(rebuild_wanted_path(dir), "damaged\n", 0600);
        return fail(std::move(said));
    }
    Found search(const Ulid& user, const Query& query, size_t limit, const Place& place,
                 const std::vector<Document>& tail);
};

Index::Index(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Index::~Index() = default;

Result<std::unique_ptr<Index>> Index::open(const std::string& dir) {
    auto impl = std::make_unique<Impl>();
    impl->dir = dir;
    if (auto done = impl->open(); !done) return fail(done.error());
    return std::unique_ptr<Index>(new Index(std::move(impl)));
}

Result<void> Index::refresh() {
    auto name = current_of(impl_->dir);
    if (!name) return fail(name.error());
    if (*name != impl_->name) return impl_->open();
    try {
        if (impl_->db.reopen()) impl_->seq = number_in(impl_->db.get_metadata(kSeq));
        return {};
    } catch (const Xapian::Error&) {
        return impl_->open();
    }
}

uint64_t Index::seq() const { return impl_->seq; }
uint64_t Index::documents() const { return impl_->db.get_doccount(); }

Found Index::Impl::search(const Ulid& user, const Query& query, size_t limit, const Place& place,
                          const std::vector<Document>& tail) {
    std::string number = db.get_metadata(user_key(user));
    if (number.empty()) number = kTailNumber;
    Xapian::Database all;
    all.add_database(db);
    if (!tail.empty()) {
        Xapian::WritableDatabase fresh("", Xapian::DB_BACKEND_INMEMORY);
        for (const Document& document : tail) fresh.add_document(made_of(document, number));
        all.add_database(fresh);
    }
    Xapian::Query asked = query_of(query, number);
    if (!place.newest.empty())
        asked = Xapian::Query(
            Xapian::Query::OP_FILTER, asked,
            Xapian::Query(Xapian::Query::OP_VALUE_LE, kMessageSlot, place.newest));
    Xapian::Enquire enquire(all);
    enquire.set_query(asked);
    enquire.set_sort_by_relevance_then_value(kMessageSlot, true);
    // A message of the tail may stand in the index already, as it was: one of the two is a hit.
    const auto want = static_cast<Xapian::doccount>(place.offset + limit + 1 + tail.size());
    const Xapian::MSet set = enquire.get_mset(0, want);
    Found found;
    std::unordered_set<std::string> seen;
    size_t at = 0;
    for (auto hit = set.begin(); hit != set.end(); ++hit) {
        const std::string data = hit.get_document().get_data();
        if (data.size() != 32) throw Xapian::DatabaseCorruptError("a document without its ids");
        if (!tail.empty() && !seen.insert(data.substr(16)).second) continue;
        if (at++ < place.offset) continue;
        if (found.hits.size() == limit) {
            found.has_more = true;
            break;
        }
        found.hits.push_back({*Ulid::from_bytes(data.substr(0, 16)),
                              *Ulid::from_bytes(data.substr(16)), hit.get_weight()});
    }
    if (found.has_more && place.offset + limit < kDepthMax) {
        Place next = place;
        next.offset += limit;
        if (next.newest.empty()) {
            next.newest = all.get_value_upper_bound(kMessageSlot);
            next.newest.resize(16, '\xff');
        }
        found.next_cursor = next.seal();
    } else {
        found.has_more = false;
    }
    return found;
}

Result<Found> Index::find(const Ulid& user, const Query& query, size_t limit,
                          std::string_view cursor, const std::vector<Document>& tail) {
    const std::string print =
        base::sha256(std::string(user.view()) + query.text()).substr(0, 8);
    Place place;
    place.print = print;
    if (!cursor.empty()) {
        auto given = Place::open(cursor, print);
        if (!given) return fail(Errc::invalid, "the cursor is not one of this search");
        place = *given;
    }
    limit = std::clamp<size_t>(limit, 1, kHitsMax);
    for (int attempt = 0;; ++attempt) {
        try {
            return impl_->search(user, query, limit, place, tail);
        } catch (const Xapian::DatabaseModifiedError&) {
            // The writer has gone on by two commits: what this reader stood on is being reused.
            if (attempt == 3) return fail(Errc::again, "the search index changes too fast");
            if (auto done = impl_->open(); !done) return fail(done.error());
        } catch (const Xapian::Error& error) {
            return impl_->broken(error);
        }
    }
}

}  // namespace parley::search
