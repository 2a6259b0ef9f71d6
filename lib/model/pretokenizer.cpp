#include "model/pretokenizer.hpp"

#include <unicode/uchar.h>
#include <unicode/utf8.h>

#include <array>
#include <cstdint>

namespace parley::model {

namespace {

enum class Class : uint8_t { end, letter, number, space, other };

Class classify(UChar32 point) {
    if (u_isUWhiteSpace(point)) return Class::space;
    const uint32_t category = U_MASK(u_charType(point));
    if (category & U_GC_L_MASK) return Class::letter;
    if (category & U_GC_N_MASK) return Class::number;
    return Class::other;
}

struct Character {
    Class kind = Class::end;
    size_t size = 0;  // bytes; 0 at the end
};

class Scanner {
  public:
    Scanner(Pretokenizer kind, std::string_view text) : kind_(kind), text_(text) {}

    Character at(size_t position) const {
        if (position >= text_.size()) return {};
        static const auto kAscii = [] {
            std::array<Class, 128> table{};
            for (int c = 0; c < 128; ++c) table[static_cast<size_t>(c)] = classify(c);
            return table;
        }();
        const auto byte = static_cast<uint8_t>(text_[position]);
        if (byte < 128) return {kAscii[byte], 1};
        // U8_NEXT takes int32 indices: hand it the few bytes a character can have.
        const auto* bytes = reinterpret_cast<const uint8_t*>(text_.data()) + position;
        const auto length =
            static_cast<int32_t>(text_.size() - position < 4 ? text_.size() - position : 4);
        int32_t size = 0;
        UChar32 point = 0;
        U8_NEXT(bytes, size, length, point);
        if (point < 0) return {Class::other, 1};
        return {classify(point), static_cast<size_t>(size)};
    }

    // As seen from inside a word: to smollm a number is a word by itself, so text ends before it.
    Character inside(size_t position) const {
        const Character character = at(position);
        if (kind_ == Pretokenizer::smollm && character.kind == Class::number) return {};
        return character;
    }

    // 's 't 'm 'd 're 've 'll; in the newer patterns in either case
    size_t contraction(size_t position, bool either_case = false) const {
        char letters[2] = {};
        const size_t count = text_.substr(position + 1, 2).copy(letters, 2);
        if (either_case) {
            for (char& letter : letters)
                if (letter >= 'A' && letter <= 'Z') letter = static_cast<char>(letter + 32);
        }
        const std::string_view rest(letters, count);
        if (rest.empty()) return 0;
        if (rest[0] == 's' || rest[0] == 't' || rest[0] == 'm' || rest[0] == 'd') return 2;
        if (rest == "re" || rest == "ve" || rest == "ll") return 3;
        return 0;
    }

    size_t word_end(size_t start) const {
        if (kind_ == Pretokenizer::qwen2 || kind_ == Pretokenizer::llama_bpe)
            return newer_word_end(start);
        const Character first = at(start);
        if (kind_ == Pretokenizer::smollm && first.kind == Class::number) return start + first.size;
        if (text_[start] == '\'') {
            if (const size_t size = contraction(start)) return start + size;
        }
        // " ?" and a run of one class
        size_t position = text_[start] == ' ' ? start + 1 : start;
        const Class run = inside(position).kind;
        if (run == Class::letter || run == Class::number || run == Class::other) {
            while (true) {
                const Character next = inside(position);
                if (next.kind != run) return position;
                position += next.size;
            }
        }
        // Spaces: the last one is left to the word that follows, if there is one and if it is not
        // all.
        position = start;
        size_t last = start;
        while (true) {
            const Character next = inside(position);
            if (next.kind != Class::space) {
                return next.kind != Class::end && last > start ? last : position;
            }
            last = position;
            position += next.size;
        }
    }

  private:
    bool is_line_end(size_t position) const {
        return position < text_.size() && (text_[position] == '\r' || text_[position] == '\n');
    }
    size_t letters_end(size_t position) const {
        while (true) {
            const Character next = at(position);
            if (next.kind != Class::letter) return position;
            position += next.size;
        }
    }

    // qwen2 and llama-bpe: the alternatives in the order of the pattern.
    size_t newer_word_end(size_t start) const {
        const Character first = at(start);
        if (text_[start] == '\'') {
            if (const size_t size = contraction(start, true)) return start + size;
        }
        if (first.kind == Class::number) {
            size_t position = start + first.size;
            for (int left = kind_ == Pretokenizer::llama_bpe ? 2 : 0; left > 0; --left) {
                const Character next = at(position);
                if (next.kind != Class::number) break;
                position += next.size;
            }
            return position;
        }
        // Letters, led by any one character that is neither a number nor a line's end.
        if (first.kind == Class::letter) return letters_end(start);
        if (!is_line_end(start)) {
            const size_t position = start + first.size;
            if (at(position).kind == Class::letter) return letters_end(position);
        }
        // " ?", symbols, and the line ends behind them
        size_t position = text_[start] == ' ' ? start + 1 : start;
        if (at(position).kind == Class::other) {
            while (true) {
                const Character next = at(position);
                if (next.kind != Class::other) break;
                position += next.size;
            }
            while (is_line_end(position)) ++position;
            return position;
        }
        // Spaces: up to the last line end among them; without one, the last is left to what follows.
        position = start;
        size_t last = start;
        size_t line_end = 0;
        while (true) {
            const Character next = at(position);
            if (next.kind != Class::space) {
                if (line_end > 0) return line_end;
                return next.kind != Class::end && last > start ? last : position;
            }
            last = position;
            position += next.size;
            if (is_line_end(last)) line_end = position;
        }
    }

    Pretokenizer kind_;
    std::string_view text_;
};

}  // namespace

std::optional<Pretokenizer> pretokenizer(std::string_view name) {
    if (name == "smollm") return Pretokenizer::smollm;
    if (name == "gpt-2" || name == "gpt2") return Pretokenizer::gpt2;
    if (name == "qwen2") return Pretokenizer::qwen2;
    if (name == "llama-bpe") return Pretokenizer::llama_bpe;
    return std::nullopt;
}

size_t word_end(Pretokenizer kind, std::string_view text, size_t start) {
    return Scanner(kind, text).word_end(start);
}

}  // namespace parley::model
