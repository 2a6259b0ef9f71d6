#include "search/index.hpp"

#include <filesystem>
#include <fstream>

#include "base/file.hpp"
#include "search/indexer.hpp"
#include "search/searcher.hpp"
#include "store/fixture.hpp"

namespace parley::search {
namespace {

using base::Errc;
using store::Fixture;
using store::TempDir;

Ulid id(uint8_t kind, uint32_t number) {
    Ulid out;
    out.bytes[0] = kind;
    for (int i = 0; i < 4; ++i) out.bytes[12 + i] = static_cast<uint8_t>(number >> (24 - 8 * i));
    return out;
}

struct Shelf {
    TempDir dir;
    std::unique_ptr<IndexWriter> writer;
    std::unique_ptr<Index> index;
    uint32_t messages = 0;

    Shelf() {
        writer = std::move(*IndexWriter::open(dir.path()));
        index = std::move(*Index::open(dir.path()));
    }
    Ulid put(const std::string& text, uint32_t user = 1, uint32_t conv = 1) {
        const Document document{id('u', user), id('c', conv), id('m', ++messages), text};
        REQUIRE(writer->put(document));
        return document.message;
    }
    void commit(uint64_t seq = 1) {
        REQUIRE(writer->commit(seq));
        REQUIRE(index->refresh());
    }
    Found find(std::string_view query, uint32_t user = 1, size_t limit = 20,
               std::string_view cursor = {}, const std::vector<Document>& tail = {}) {
        auto found = index->find(id('u', user), *Query::parse(query), limit, cursor, tail);
        REQUIRE(found);
        return *found;
    }
    size_t count(std::string_view query, uint32_t user = 1) { return find(query, user).hits.size(); }
};

}  // namespace

TEST_CASE("A search finds all words, phrases in order, and prefixes") {
    Shelf s;
    s.put("The red apple fell");
    s.put("An apple that is red");
    s.put("Applesauce is yellow");
    s.commit();
    CHECK(s.count("apple") == 2);
    CHECK(s.count("red apple") == 2);
    CHECK(s.count("\"red apple\"") == 1);
    CHECK(s.count("\"apple red\"") == 0);
    CHECK(s.count("appl*") == 3);
    CHECK(s.count("APPLE") == 2);
    CHECK(s.count("apple yellow") == 0);
    CHECK(s.count("pear") == 0);
}

TEST_CASE("Nobody finds the words of another, nor is a prefix led into them") {
    Shelf s;
    s.put("secret of one", 1);
    s.put("secrecy of two", 2);
    s.commit();
    CHECK(s.count("secret", 1) == 1);
    CHECK(s.count("secret", 2) == 0);
    CHECK(s.count("secre*", 1) == 1);
    CHECK(s.count("secre*", 2) == 1);
    CHECK(s.count("secret", 3) == 0);
    CHECK(s.count("s*", 3) == 0);
    // Another's many messages do not move what one is shown.
    const double before = s.find("secret").hits[0].score;
    CHECK(before > 0);
}

TEST_CASE("What fits better stands higher, and of equals the newest") {
    Shelf s;
    const Ulid once = s.put("apple and a lot of other words that say nothing of it at all");
    const Ulid often = s.put("apple apple apple");
    const Ulid older = s.put("pear tree");
    const Ulid newer = s.put("pear tree");
    s.commit();
    auto found = s.find("apple");
    REQUIRE(found.hits.size() == 2);
    CHECK(found.hits[0].message == often);
    CHECK(found.hits[1].message == once);
    found = s.find("pear");
    CHECK(found.hits[0].message == newer);
    CHECK(found.hits[1].message == older);
}

TEST_CASE("The tail is found like the rest, and what stands in both is found once") {
    Shelf s;
    const Ulid old = s.put("apple one");
    s.commit();
    const Document again{id('u', 1), id('c', 1), old, "apple one, longer"};
    const Document fresh{id('u', 1), id('c', 1), id('m', 99), "apple two"};
    CHECK(s.find("apple", 1, 20, {}, {again, fresh}).hits.size() == 2);
    CHECK(s.find("two", 1, 20, {}, {again, fresh}).hits.size() == 1);
    CHECK(s.find("\"apple two\"", 1, 20, {}, {fresh}).hits.size() == 1);
    // A user of whom the index has nothing yet.
    const Document stranger{id('u', 7), id('c', 7), id('m', 100), "apple seven"};
    CHECK(s.find("appl*", 7, 20, {}, {stranger}).hits.size() == 1);
}

TEST_CASE("Pages follow each other without a gap or a double while others are sent") {
    Shelf s;
    for (int i = 0; i < 25; ++i) s.put("apple " + std::string(static_cast<size_t>(i), 'x'));
    s.commit();
    std::set<Ulid> seen;
    std::string cursor;
    size_t pages = 0;
    do {
        const Found found = s.find("apple", 1, 10, cursor);
        for (const Hit& hit : found.hits) CHECK(seen.insert(hit.message).second);
        cursor = found.next_cursor;
        CHECK(found.has_more == !cursor.empty());
        ++pages;
        s.put("apple");
        s.put("apple");
        s.commit();
    } while (!cursor.empty());
    CHECK(pages == 3);
    CHECK(seen.size() == 25);
}

TEST_CASE("A cursor of another query, another user or nobody's is refused") {
    Shelf s;
    for (int i = 0; i < 5; ++i) s.put("apple pear");
    s.commit();
    const std::string cursor = s.find("apple", 1, 2).next_cursor;
    REQUIRE_FALSE(cursor.empty());
    const auto code = [&](uint32_t user, const char* query, const std::string& c) {
        auto found = s.index->find(id('u', user), *Query::parse(query), 2, c);
        return found ? Errc::internal : found.error().code;
    };
    CHECK(code(1, "pear", cursor) == Errc::invalid);
    CHECK(code(2, "apple", cursor) == Errc::invalid);
    CHECK(code(1, "apple", "AAAA") == Errc::invalid);
    CHECK(code(1, "apple", "not a cursor") == Errc::invalid);
    CHECK(code(1, "apple", cursor + "A") == Errc::invalid);
}

TEST_CASE("What was removed is not found") {
    Shelf s;
    const Ulid one = s.put("apple", 1, 1);
    s.put("apple", 1, 2);
    s.put("apple", 1, 2);
    s.put("apple", 2, 3);
    REQUIRE(s.writer->remove_message(one));
    s.commit();
    CHECK(s.count("apple") == 2);
    REQUIRE(s.writer->remove_conversation(id('c', 2)));
    s.commit();
    CHECK(s.count("apple") == 0);
    CHECK(s.count("apple", 2) == 1);
    REQUIRE(s.writer->remove_user(id('u', 2)));
    s.commit();
    CHECK(s.count("apple", 2) == 0);
    CHECK(s.index->documents() == 0);
}

TEST_CASE("An index that is not there, or damaged, is said to be so, and a rebuild is asked for") {
    TempDir dir;
    auto none = Index::open(dir.path());
    REQUIRE_FALSE(none);
    CHECK(none.error().code == Errc::unavailable);

    Shelf s;
    for (int i = 0; i < 300; ++i) s.put("apple pear " + std::to_string(i));
    s.commit();
    s.writer.reset();
    s.index.reset();
    std::ifstream current(s.dir.path() + "/current");
    std::string name;
    current >> name;
    const std::string table = s.dir.path() + "/" + name + "/postlist.glass";
    const auto size = std::filesystem::file_size(table);
    {
        std::fstream file(table, std::ios::in | std::ios::out | std::ios::binary);
        file.write(std::string(size, '\x5a').data(), static_cast<std::streamsize>(size));
    }
    auto opened = Index::open(s.dir.path());
    Errc code = Errc::internal;
    if (opened) {
        auto found = (*opened)->find(id('u', 1), *Query::parse("apple"), 10, "");
        REQUIRE_FALSE(found);
        code = found.error().code;
    } else {
        code = opened.error().code;
    }
    CHECK(code == Errc::corrupt);
    CHECK(std::filesystem::exists(rebuild_wanted_path(s.dir.path())));
}

namespace {

struct Followed : Fixture {
    TempDir search_dir;
    std::unique_ptr<Indexer> indexer;
    std::unique_ptr<Index> index;

    Followed() { start(); }
    void start() {
        IndexerOptions options;
        options.dir = search_dir.path();
        options.store_dir = this->options.env.dir;
        options.commit_ms = 0;
        auto opened = Indexer::open(options);
        if (!opened) FAIL(opened.error().what);
        indexer = std::move(*opened);
        index = std::move(*Index::open(search_dir.path()));
    }
    void follow() {
        for (;;) {
            auto more = indexer->step();
            REQUIRE(more);
            if (!*more) break;
        }
        REQUIRE(indexer->flush());
    }
    std::vector<Shown> find(std::string_view text, std::string_view who = "alice") {
        REQUIRE(index->refresh());
        const Ulid user = store::user_id(org, who);
        const Query query = *Query::parse(text);
        auto tail = gather(*reader, org, user, index->seq());
        REQUIRE(tail);
        auto found = index->find(user, query, 20, "", *tail);
        REQUIRE(found);
        auto results = fetch(*reader, org, user, found->hits);
        REQUIRE(results);
        show(*results, query);
        return *results;
    }
};

}  // namespace

TEST_CASE("A message is found from its commit on, before and after the follower has seen it") {
    Followed f;
    const Ulid conv = f.conversation("fruit");
    const auto sent = f.run(f.send_to(conv, "a red apple").json());
    for (int round = 0; round < 2; ++round) {
        const auto results = f.find("apple");
        REQUIRE(results.size() == 1);
        CHECK(results[0].message == Fixture::question_of(sent));
        CHECK(results[0].title == "fruit");
        CHECK(results[0].snippet == "a red <mark>apple</mark>");
        CHECK(f.find("apple", "bob").empty());
        f.follow();
        CHECK(f.index->refresh());
        CHECK(f.index->seq() == *f.reader->last_change());
    }
    // The answer: from its end on.
    f.run(Fixture::piece(Fixture::answer_of(sent), 1, 0, "pears too").json());
    f.follow();
    CHECK(f.find("pears").empty());
    f.run(Fixture::end_of(Fixture::answer_of(sent)).json());
    CHECK(f.find("pears").size() == 1);
    f.follow();
    CHECK(f.find("pears").size() == 1);
}

TEST_CASE("A deleted conversation is gone from the next search on, indexed or not") {
    Followed f;
    const Ulid conv = f.conversation();
    f.run(f.send_to(conv, "apple").json());
    f.follow();
    CHECK(f.find("apple").size() == 1);
    f.run(store::ConversationDelete{f.org, f.user, conv}.json());
    CHECK(f.find("apple").empty());
    f.follow();
    CHECK(f.find("apple").empty());
    REQUIRE(f.index->refresh());
    CHECK(f.index->documents() == 0);
}

TEST_CASE("A follower that begins anew goes on where the index stands") {
    Followed f;
    const Ulid conv = f.conversation();
    const auto sent = f.run(f.send_to(conv, "apple one").json());
    f.follow();
    const uint64_t at = f.indexer->seq();
    f.indexer.reset();
    f.run(Fixture::end_of(Fixture::answer_of(sent)).json());
    f.run(f.send_to(conv, "apple two").json());
    f.start();
    CHECK(f.indexer->seq() == at);
    f.follow();
    CHECK(f.find("apple").size() == 2);
    CHECK(f.index->documents() == 2);
}

TEST_CASE("A rebuilt index finds what the old one found") {
    Followed f;
    for (int i = 0; i < 20; ++i) {
        const Ulid conv = f.conversation();
        f.run(f.send_to(conv, "apple " + std::to_string(i)).json());
    }
    f.follow();
    CHECK(f.find("apple").size() == 20);
    REQUIRE(base::write_file(rebuild_wanted_path(f.search_dir.path()), "", 0600));
    CHECK(f.indexer->wants_rebuild());
    REQUIRE(f.indexer->rebuild([] { return true; }));
    CHECK_FALSE(f.indexer->wants_rebuild());
    CHECK(f.find("apple").size() == 20);
    CHECK(f.index->documents() == 20);
    // One folder is left.
    size_t folders = 0;
    for (const auto& entry : std::filesystem::directory_iterator(f.search_dir.path()))
        folders += entry.is_directory() ? 1 : 0;
    CHECK(folders == 1);
    // Stopped in the middle: the old one stands.
    auto stopped = f.indexer->rebuild([] { return false; });
    REQUIRE_FALSE(stopped);
    INFO(stopped.error().what);
    CHECK(stopped.error().code == Errc::cancelled);
    f.run(f.send_to(f.conversation(), "apple again").json());
    f.follow();
    CHECK(f.find("apple").size() == 20);
    CHECK(f.find("again").size() == 1);
}

TEST_CASE("A damaged index is made anew when the follower opens it") {
    Followed f;
    f.run(f.send_to(f.conversation(), "apple").json());
    f.follow();
    f.indexer.reset();
    f.index.reset();
    for (const auto& entry : std::filesystem::recursive_directory_iterator(f.search_dir.path()))
        if (entry.path().extension() == ".glass")
            std::filesystem::resize_file(entry.path(), 10);
    std::ofstream(f.search_dir.path() + "/unrelated") << "stays";
    f.start();
    f.follow();
    CHECK(f.find("apple").size() == 1);
}

}  // namespace parley::search
