#include "safety/segment.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <vector>

namespace parley::safety {
namespace {

constexpr std::string_view kWords =
#include "safety/words.inc"
    ;
constexpr size_t kWordMax = 14;
// In nats; a word of rank r costs ln(r) + 2. Letters of no word stay together rather than fall apart
// into short words.
constexpr float kStrayRun = 10;
constexpr float kStrayLetter = 2.5f;

const std::unordered_map<std::string_view, float>& costs() {
    static const auto made = [] {
        std::unordered_map<std::string_view, float> out;
        float rank = 1;
        for (size_t at = 0; at < kWords.size();) {
            const size_t end = kWords.find(' ', at);
            out.emplace(kWords.substr(at, end - at), std::log(rank) + 2);
            rank += 1;
            at = end + 1;
        }
        return out;
    }();
    return made;
}

}  // namespace

std::string segment(std::string_view text) {
    const auto& table = costs();
    const size_t n = text.size();
    // known[i], stray[i]: cost of the first i bytes when what ends there is a word of the list, or
    // letters of none. length[i]: of that word. joins[i]: the stray letter before belongs to it.
    constexpr float kNever = std::numeric_limits<float>::max() / 4;
    std::vector<float> known(n + 1, kNever), stray(n + 1, kNever);
    std::vector<uint8_t> length(n + 1, 0), joins(n + 1, 0);
    known[0] = 0;
    for (size_t i = 1; i <= n; ++i) {
        const float begun = known[i - 1] + kStrayRun;
        joins[i] = stray[i - 1] <= begun;
        stray[i] = std::min(stray[i - 1], begun) + kStrayLetter;
        if (text[i - 1] == ' ') {  // a gap that is known
            known[i] = std::min(known[i - 1], stray[i - 1]);
            length[i] = 1;
            continue;
        }
        for (size_t size = 1; size <= std::min(i, kWordMax); ++size) {
            const auto found = table.find(text.substr(i - size, size));
            if (found == table.end()) continue;
            const float cost = std::min(known[i - size], stray[i - size]) + found->second;
            if (cost >= known[i]) continue;
            known[i] = cost;
            length[i] = static_cast<uint8_t>(size);
        }
    }
    std::vector<size_t> cuts;  // ends of pieces, last first
    for (size_t i = n; i > 0;) {
        cuts.push_back(i);
        if (known[i] <= stray[i]) {
            i -= length[i];
            continue;
        }
        while (joins[i]) --i;
        --i;
        // A run of strays begins behind a word; go on from that word, whatever is cheaper.
        if (i > 0 && known[i] > stray[i]) known[i] = stray[i];
    }
    std::string out;
    out.reserve(n + cuts.size());
    size_t at = 0;
    for (auto cut = cuts.rbegin(); cut != cuts.rend(); ++cut) {
        const std::string_view piece = text.substr(at, *cut - at);
        if (!out.empty() && out.back() != ' ' && piece != " ") out += ' ';
        if (piece != " " || (!out.empty() && out.back() != ' ')) out += piece;
        at = *cut;
    }
    return out;
}

}  // namespace parley::safety
