#include "safety/canonicalise.hpp"

#include <fmt/format.h>
#include <unicode/uchar.h>
#include <unicode/unorm2.h>

#include <algorithm>

#include "base/text.hpp"
#include "safety/confusable.hpp"
#include "safety/decode.hpp"
#include "safety/language.hpp"
#include "safety/spelling.hpp"

namespace parley::safety {
namespace {

constexpr uint64_t kFreeBytes = 64 << 10;  // short texts may grow by more than expansion_max

bool ascii(std::string_view text) {
    return std::all_of(text.begin(), text.end(),
                       [](char c) { return static_cast<unsigned char>(c) < 128; });
}

const UNormalizer2* nfkc() {
    static const UNormalizer2* instance = [] {
        UErrorCode status = U_ZERO_ERROR;
        return unorm2_getNFKCInstance(&status);
    }();
    return instance;
}

// The compatibility form of one code point, with its marks dropped and look-alikes replaced; case
// kept where nothing was replaced.
void append_plain(char32_t c, std::string& out, int depth = 0) {
    if (c < 0x80) {
        out += static_cast<char>(c);
        return;
    }
    if (c >= 0xE0020 && c <= 0xE007E) {  // tag characters spell ASCII
        out += static_cast<char>(c - 0xE0000);
        return;
    }
    if (invisible(c) || combining(c)) return;
    if (const char alike = look_alike(c)) {
        out += alike;
        return;
    }
    if (depth == 0) {
        // NFKC's own decomposition, one level at a time is enough with the recursion below.
        UChar buffer[64];
        UErrorCode status = U_ZERO_ERROR;
        const int32_t n =
            unorm2_getDecomposition(nfkc(), static_cast<UChar32>(c), buffer, 64, &status);
        if (U_SUCCESS(status) && n > 0 && n <= 64) {
            // Hangul and other scripts whose parts are not marks stay composed.
            if (u_getIntPropertyValue(static_cast<UChar32>(c), UCHAR_HANGUL_SYLLABLE_TYPE) ==
                U_HST_NOT_APPLICABLE) {
                for (int32_t i = 0; i < n;) {
                    UChar32 part = 0;
                    U16_NEXT(buffer, i, n, part);
                    append_plain(static_cast<char32_t>(part), out, 1);
                }
                return;
            }
        }
    }
    if (u_isUWhiteSpace(static_cast<UChar32>(c))) {
        out += ' ';
        return;
    }
    append_utf8(out, c);
}

void append_lower(std::string_view plain, std::string& out) {
    for (size_t at = 0; at < plain.size();) {
        const auto c = static_cast<unsigned char>(plain[at]);
        if (c < 0x80) {
            out += static_cast<char>(c >= 'A' && c <= 'Z' ? c + 32 : c);
            ++at;
            continue;
        }
        const char32_t wide = next_utf8(plain, at);
        const auto folded =
            static_cast<char32_t>(u_foldCase(static_cast<UChar32>(wide), U_FOLD_CASE_DEFAULT));
        if (const char alike = look_alike(folded))
            out += alike;
        else
            append_utf8(out, folded);
    }
}

std::string lower(std::string_view plain) {
    std::string out;
    out.reserve(plain.size());
    append_lower(plain, out);
    return out;
}

struct Canonicaliser {
    const CanonLimits& limits;
    std::vector<View> views;
    uint64_t decoded_left;

    explicit Canonicaliser(const CanonLimits& l) : limits(l), decoded_left(l.decoded_bytes_max) {}

    void add(std::string_view how, std::string text) {
        if (views.size() >= limits.views_max || text.empty()) return;
        for (const View& view : views)
            if (view.text == text) return;
        views.push_back(View{std::string(how), std::move(text)});
    }

    // Escapes, invisible characters, compatibility forms, look-alikes; case is kept, since base64
    // needs it.
    std::string plain(std::string_view text) const {
        bool changed = false;
        std::string out = decode_escapes(text, changed);
        // Twice at most: "&amp;#104;" and "%2568" hide one escape in another.
        if (changed) out = decode_escapes(out, changed);
        if (ascii(out)) return out;
        std::string plain;
        plain.reserve(out.size());
        for (size_t at = 0; at < out.size();) append_plain(next_utf8(out, at), plain);
        return plain;
    }

    static std::string spell(std::string_view lower_case) {
        return unrepeat(unleet(join_spaced(lower_case)));
    }

    // The canonical form, decoded runs in place; also adds views for what the runs hold.
    std::string canonical(std::string_view text, uint32_t depth) {
        const std::string clean = plain(text);
        if (depth >= limits.depth_max) return spell(lower(clean));
        const std::vector<Run> runs = find_encoded(clean, decoded_left);
        if (runs.empty()) {
            std::string folded = lower(clean);
            std::string out = spell(folded);
            // Letters spaced out may themselves spell an encoding; not followed further.
            other_readings(folded, clean, depth);
            return out;
        }
        std::string out, outside;
        size_t done = 0;
        for (const Run& run : runs) {
            decoded_left -= std::min<uint64_t>(decoded_left, run.decoded.size());
            outside = clean.substr(done, run.at - done);
            out += spell(lower(outside));
            std::string inner = canonical(run.decoded, depth + 1);
            add(run.how, inner);
            out += inner;
            done = run.at + run.size;
        }
        out += spell(lower(clean.substr(done)));
        return out;
    }

    // rot13 and reversed readings, by the line or by the whole, where they look more like language.
    void other_readings(std::string_view folded, std::string_view clean, uint32_t depth) {
        const Likeness as_it_is = likeness(folded);
        if (as_it_is.letters < 8) return;
        turned("rot13", rot13(folded), as_it_is, rot13(clean), depth);
        turned("reversed", reversed(folded), as_it_is, reversed(clean), depth);
        turned("words reversed", words_reversed(folded), as_it_is, {}, depth);
        // One enciphered line or clause inside a plain text.
        std::string mixed;
        bool any = false;
        for (size_t at = 0; at < folded.size();) {
            size_t end = folded.find_first_of("\n:\"", at);
            end = end == std::string_view::npos ? folded.size() : end + 1;
            const std::string_view part = folded.substr(at, end - at);
            std::string other = rot13(part);
            const Likeness before = likeness(part), after = likeness(other);
            if (before.letters >= 12 && after.bits + 1.0 < before.bits && after.bits < 4.6) {
                mixed += other;
                any = true;
            } else {
                mixed += part;
            }
            at = end;
        }
        if (any) add("rot13", spell(mixed));
    }

    void turned(std::string_view how, std::string text, const Likeness& before,
                std::string_view cased, uint32_t depth) {
        const Likeness after = likeness(text);
        const double margin = after.letters < 20 ? 0.8 : 0.4;
        if (after.bits + margin >= before.bits || after.bits > 4.6) {
            // A base64 run under a rot13 reads like noise both ways; look for it all the same.
            if (cased.empty() || depth + 1 >= limits.depth_max) return;
            for (const Run& run : find_encoded(cased, std::min<uint64_t>(decoded_left, kFreeBytes)))
                if (run.decoded.size() >= 12 && looks_like_language(run.decoded))
                    add(run.how, spell(lower(plain(run.decoded))));
            return;
        }
        add(how, spell(text));
    }
};

}  // namespace

base::Result<std::vector<View>> canonicalise(std::string_view text, const CanonLimits& limits) {
    using base::Errc;
    if (text.size() > limits.bytes_max)
        return base::fail(Errc::too_large, fmt::format("text of {} bytes is over the limit of {}",
                                                       text.size(), limits.bytes_max));
    if (!base::utf8_valid(text)) return base::fail(Errc::invalid, "text is not valid UTF-8");
    Canonicaliser work(limits);
    work.views.push_back(View{"raw", std::string(text)});
    std::string canonical = work.canonical(text, 0);
    if (canonical.size() > text.size() * limits.expansion_max + kFreeBytes)
        return base::fail(Errc::too_large,
                          fmt::format("canonical text of {} bytes is over {} times its original",
                                      canonical.size(), limits.expansion_max));
    if (canonical != text) {
        // Right behind the raw text, whatever was found on the way.
        work.views.insert(work.views.begin() + 1, View{"canonical", std::move(canonical)});
    }
    return std::move(work.views);
}

void fold_append(std::string_view text, uint32_t base, Folded& out) {
    std::string plain;
    for (size_t at = 0; at < text.size();) {
        const size_t start = at;
        plain.clear();
        append_plain(next_utf8(text, at), plain);
        const size_t before = out.text.size();
        append_lower(plain, out.text);
        out.from.insert(out.from.end(), out.text.size() - before,
                        base + static_cast<uint32_t>(start));
    }
}

void warm_up_canonicalise() {
    warm_up_confusables();
    (void)nfkc();
}

}  // namespace parley::safety
