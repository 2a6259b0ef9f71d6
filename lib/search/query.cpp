#include "search/query.hpp"

#include <fmt/format.h>

#include <algorithm>

#include "search/words.hpp"

namespace parley::search {

using base::Errc;
using base::fail;
using base::Result;

Result<Query> Query::parse(std::string_view text) {
    if (text.size() > kQueryBytesMax)
        return fail(Errc::too_large,
                    fmt::format("a query has at most {} bytes", kQueryBytesMax));
    Query query;
    size_t count = 0;
    const auto add = [&](std::string_view part, bool prefix) {
        Clause clause;
        for (Word& word : words_of(part, part.size())) clause.words.push_back(std::move(word.text));
        if (clause.words.empty()) return;
        count += clause.words.size();
        clause.prefix = prefix && clause.words.size() == 1;
        const auto same = [&](const Clause& other) {
            return other.words == clause.words && other.prefix == clause.prefix;
        };
        if (std::none_of(query.clauses.begin(), query.clauses.end(), same))
            query.clauses.push_back(std::move(clause));
    };
    for (size_t at = 0; at < text.size();) {
        const char c = text[at];
        if (c == '"') {
            const size_t close = std::min(text.find('"', at + 1), text.size());
            add(text.substr(at + 1, close - at - 1), false);
            at = close + 1;
        } else if (c == ' ' || c == '\t' || c == '\n' || c == '\r') {
            ++at;
        } else {
            const size_t end = std::min(text.find_first_of(" \t\r\n\"", at), text.size());
            const std::string_view part = text.substr(at, end - at);
            add(part, part.ends_with('*'));
            at = end;
        }
    }
    if (query.clauses.empty()) return fail(Errc::invalid, "there is no word to search for");
    if (count > kQueryWordsMax)
        return fail(Errc::too_large, fmt::format("a query has at most {} words", kQueryWordsMax));
    return query;
}

std::string Query::text() const {
    std::string out;
    for (const Clause& clause : clauses) {
        if (!out.empty()) out += ' ';
        if (clause.words.size() > 1) out += '"';
        for (size_t i = 0; i < clause.words.size(); ++i) {
            if (i) out += ' ';
            out += clause.words[i];
        }
        if (clause.words.size() > 1) out += '"';
        if (clause.prefix) out += '*';
    }
    return out;
}

namespace {

struct Match {
    size_t first, last;  // words
    size_t clause;
};

bool fits(const Clause& clause, const std::vector<Word>& words, size_t at) {
    if (clause.prefix) return words[at].text.starts_with(clause.words[0]);
    if (at + clause.words.size() > words.size()) return false;
    for (size_t i = 0; i < clause.words.size(); ++i)
        if (words[at + i].text != clause.words[i]) return false;
    return true;
}

void escape(std::string& out, std::string_view text) {
    bool blank = false;
    for (const char c : text) {
        if (c == ' ' || c == '\n' || c == '\t' || c == '\r') {
            if (!blank) out += ' ';
            blank = true;
            continue;
        }
        blank = false;
        switch (c) {
            case '&': out += "&amp;"; break;
            case '<': out += "&lt;"; break;
            case '>': out += "&gt;"; break;
            case '"': out += "&quot;"; break;
            case '\'': out += "&#39;"; break;
            default: out += c;
        }
    }
}

}  // namespace

std::string snippet(std::string_view text, const Query& query, size_t bytes,
                    size_t text_bytes_max) {
    const std::vector<Word> words = words_of(text, text_bytes_max);
    if (words.empty()) return {};
    std::vector<Match> matches;
    for (size_t at = 0; at < words.size(); ++at)
        for (size_t c = 0; c < query.clauses.size(); ++c)
            if (fits(query.clauses[c], words, at))
                matches.push_back({at, at + query.clauses[c].words.size() - 1, c});

    // The window that begins at a match and holds the most different clauses, then the most matches.
    size_t from = 0, best = 0, end = 0, inside = 0;
    std::vector<size_t> seen(query.clauses.size());
    size_t different = 0;
    for (size_t start = 0; start < matches.size(); ++start) {
        // A quarter is kept for what stands before it.
        const size_t limit = words[matches[start].first].begin + bytes * 3 / 4;
        while (end < matches.size() && words[matches[end].last].end <= limit) {
            different += seen[matches[end].clause]++ == 0 ? 1 : 0;
            ++end;
            ++inside;
        }
        if (const size_t score = different * 4096 + std::min<size_t>(inside, 4095); score > best) {
            best = score;
            from = matches[start].first;
        }
        if (end > start) {
            different -= --seen[matches[start].clause] == 0 ? 1 : 0;
            --inside;
        } else {
            end = start + 1;
        }
    }
    // A little of what stands before it.
    const size_t lead = words[from].begin > bytes / 4 ? words[from].begin - bytes / 4 : 0;
    while (from > 0 && words[from - 1].begin >= lead) --from;
    size_t last = from;
    while (last + 1 < words.size() && words[last + 1].end <= words[from].begin + bytes) ++last;

    std::vector<bool> marked(words.size());
    for (const Match& match : matches)
        for (size_t i = match.first; i <= match.last; ++i) marked[i] = true;
    const auto joined = [&](size_t i) {  // a phrase is marked as one where only blanks part it
        return i + 1 <= last && marked[i] && marked[i + 1] &&
               text.substr(words[i].end, words[i + 1].begin - words[i].end)
                       .find_first_not_of(" \t\r\n") == std::string_view::npos;
    };
    std::string out;
    size_t at = from == 0 ? 0 : words[from].begin;
    // What stands before the first word is kept as long as it is short.
    if (from == 0 && words[0].begin > bytes / 4) at = words[0].begin;
    if (at > 0) out += "…";
    bool open = false;
    for (size_t i = from; i <= last; ++i) {
        escape(out, text.substr(at, words[i].begin - at));
        if (marked[i] && !open) out += "<mark>";
        escape(out, text.substr(words[i].begin, words[i].end - words[i].begin));
        open = joined(i);
        if (marked[i] && !open) out += "</mark>";
        at = words[i].end;
    }
    const std::string_view rest = text.substr(at);
    if (last + 1 == words.size() && rest.size() <= bytes / 4)
        escape(out, rest);
    else
        out += "…";
    return out;
}

}  // namespace parley::search
