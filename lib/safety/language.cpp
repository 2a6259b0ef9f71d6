#include "safety/language.hpp"

#include "base/text.hpp"

namespace parley::safety {
namespace {

// Row: the letter before (a-z, other); column: the letter itself; 'a' + half bits.
constexpr const char* kPairs[27] = {
    "wlikvoltkxmgkfylzhignlprlth", "gpsuevyvilzfrvgqzimnguxtjzk", "gzlugxxgjzijvyftxiogjwzzozi",
    "istlfspshuxosrjuzllslpuwozc", "jrkjlnmroxrjkhpnpghjtmomowd", "jzvvhivzfzwlzxfxzhtkivvzmze",
    "hvvxfumiizzlsljnzilpjzzzozd", "ftwudyxzhzzproguzmrkozxzozg", "mnijkkkwxxojjehltkhgukzsvnj",
    "fpwwduuuksursvfswvjofvvzzvj", "krpqesmtfzulrjnrzqioozsznzd", "hssjfnsvgzrgqthnzskmkpqzizf",
    "fluuepxyhzzokqhhztlukxzzkzf", "juighogtkvpornjqxuignpzzlzf", "oollqimsnsokjflkzfkjgljtswg",
    "hwtngrwkjyygqtgjzfmhktyvnzh", "pwwsvuuzzzulzzzztoupavuuwzj", "hsnlepouhzmolmhpzmjjlpuzkzf",
    "myktgtvjiznposjktvjgjuqzmzd", "iupvgrtfgzxoruhrzjjmmxoylze", "klkkirltkyugkhskzfggxtzqpvh",
    "gxwxcyrxezzvzvjvzsrxqxzxqzl", "gssugsygezuoxkhvzklrzyuzuzf", "iviyjywqivzqsusewvtfrvysqye",
    "nqrsktszmzzmopflzsintvrxwqc", "gwuscwtthzslsujuusrqnutsmkh", "gjikkjmkhpokjlijqkhgmojsluz",
};

int index_of(unsigned char c) {
    c |= 32;
    return c >= 'a' && c <= 'z' ? c - 'a' : 26;
}

}  // namespace

int pair_cost(unsigned char previous, unsigned char next) {
    return kPairs[index_of(previous)][index_of(next)] - 'a';
}

Likeness likeness(std::string_view text) {
    Likeness out;
    uint64_t cost = 0;
    uint32_t pairs = 0;
    int previous = 26;
    for (unsigned char c : text) {
        if (c == '\'') continue;
        const int now = index_of(c);
        if (now == 26 && previous == 26) continue;
        cost += static_cast<uint64_t>(kPairs[previous][now] - 'a');
        ++pairs;
        out.letters += now != 26;
        previous = now;
    }
    if (pairs > 0) out.bits = static_cast<double>(cost) / 2.0 / pairs;
    return out;
}

bool looks_like_language(std::string_view text) {
    if (text.empty() || !base::utf8_valid(text)) return false;
    size_t controls = 0, letters = 0;
    for (unsigned char c : text) {
        controls += (c < 32 && c != '\n' && c != '\r' && c != '\t') || c == 127;
        letters += c >= 128 || c == ' ' || ((c | 32) >= 'a' && (c | 32) <= 'z');
    }
    if (controls * 50 > text.size() || letters * 10 < text.size() * 6) return false;
    const Likeness seen = likeness(text);
    // Text that is mostly not ASCII cannot be judged by pairs of ASCII letters; being valid UTF-8 of
    // some length is evidence enough.
    if (seen.letters * 3 < text.size()) return text.size() >= 12;
    return seen.bits < 4.8;
}

}  // namespace parley::safety
