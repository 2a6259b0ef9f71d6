#include "simulated/vocabulary.hpp"

#include <fmt/format.h>

#include <map>
#include <utility>

#include "base/text.hpp"
#include "model/cursor.hpp"

namespace parley::simulated {
namespace {

using model::append;

// Without a space before it: where a turn begins.
constexpr std::string_view kFirstWords[] = {"system", "user", "assistant", "Simulated"};

// The most frequent words of English prose, less those that are a single letter.
constexpr std::string_view kEnglish =
    "the of and to in is you that it he was for on are as with his they at be this have from or "
    "one had by word but not what all were we when your can said there use an each which she do "
    "how their if will up other about out many then them these so some her would make like him "
    "into time has look two more write go see number no way could people my than first water been "
    "call who now find long down day did get come made may part over new sound take only little "
    "work know place year live me back give most very after thing our just name good sentence man "
    "think say great where help through much before line right too mean old any same tell boy "
    "follow came want show also around form three small set put end does another well large must "
    "big even such because turn here why ask went men read need land different home us move try "
    "kind hand picture again change off play spell air away animal house point page letter mother "
    "answer found study still learn should world short story question explain list between";

// Latin of typesetters: whoever reads it sees that nobody has thought about it.
constexpr std::string_view kLatin =
    "lorem ipsum dolor sit amet consectetur adipiscing elit sed do eiusmod tempor incididunt ut "
    "labore et dolore magna aliqua enim ad minim veniam quis nostrud exercitation ullamco laboris "
    "nisi aliquip ex ea commodo consequat duis aute irure in reprehenderit voluptate velit esse "
    "cillum eu fugiat nulla pariatur excepteur sint occaecat cupidatat non proident sunt culpa qui "
    "officia deserunt mollit anim id est laborum";

std::vector<std::string> spaced_words(std::string_view text) {
    std::vector<std::string> out;
    for (size_t at = 0; at < text.size();) {
        const size_t end = std::min(text.find(' ', at), text.size());
        out.push_back(" " + std::string(text.substr(at, end - at)));
        at = end + 1;
    }
    return out;
}

// The tokenizer's part of HASH.tok while it grows. A word comes in as the chain of its beginnings:
// each is the one before and one byte, so that the merges always find the longest beginning.
class Table {
  public:
    Table() {
        for (const std::string_view control : {"<|endoftext|>", "<|im_start|>", "<|im_end|>"})
            token(control, control == "<|im_start|>" ? kControl : kControl | kEnd);
        for (int byte = 0; byte < 256; ++byte) {
            const char c = static_cast<char>(byte);
            ids_[std::string(1, c)] = token({&c, 1}, 0);
        }
    }
    void word(std::string_view text) {
        for (size_t size = 2; size <= text.size(); ++size) {
            const std::string whole(text.substr(0, size));
            if (ids_.count(whole) > 0) continue;
            const uint32_t left = ids_.at(whole.substr(0, size - 1));
            const uint32_t right = ids_.at(whole.substr(size - 1));
            const uint32_t merged = token(whole, 0);
            ids_[whole] = merged;
            for (const uint32_t id : {left, right, merged}) append(merges_, id);
        }
    }
    std::string bytes() const {
        std::string out;
        append(out, static_cast<uint32_t>(flags_.size()));
        append(out, static_cast<uint32_t>(merges_.size() / (3 * sizeof(uint32_t))));
        append(out, model::Token{-1});  // no BOS
        append(out, model::Token{2});   // <|im_end|> ends an answer
        append(out, uint8_t{0});
        for (const std::string_view name : {"gpt2", "smollm"}) {
            append(out, static_cast<uint8_t>(name.size()));
            out += name;
        }
        return out + flags_ + sizes_ + text_ + merges_;
    }

  private:
    static constexpr uint8_t kControl = 1, kEnd = 2;  // parley-tok(5)

    uint32_t token(std::string_view bytes, int flags) {
        flags_ += static_cast<char>(flags);
        append(sizes_, static_cast<uint16_t>(bytes.size()));
        text_ += bytes;
        return static_cast<uint32_t>(flags_.size()) - 1;
    }

    std::map<std::string, uint32_t> ids_;
    std::string flags_, sizes_, text_, merges_;
};

void append_text16(std::string& out, std::string_view text) {
    append(out, static_cast<uint16_t>(text.size()));
    out += text;
}

}  // namespace

std::string_view opening() { return "Simulated answer:"; }

std::vector<std::string> answer_words() { return spaced_words(kLatin); }

base::Result<model::Artifact> make_artifact(uint32_t context_tokens, uint32_t answer_tokens_mean) {
    Table table;
    // Those with a space first: their merges rank before the others, so that no part of a word is
    // taken from its beginning.
    for (const std::string_view words : {kEnglish, kLatin})
        for (const std::string& word : spaced_words(words)) table.word(word);
    for (const std::string_view word : kFirstWords) table.word(word);
    const std::string tokenizer = table.bytes();

    const std::string digest =
        base::sha256(fmt::format("parley simulated 1 mean {} ", answer_tokens_mean) + tokenizer);
    std::string body = std::string(kName) + digest;
    body.resize(32);
    append(body, context_tokens);
    append(body, context_tokens);  // an answer may fill it
    append_text16(body, kName);
    append_text16(body, kName);  // as architecture
    append_text16(body, "chatml");
    append(body, uint32_t{0});  // no Jinja text
    body += tokenizer;

    // The published format, read as from any other worker: one reader, all its checks.
    std::string file = "parleyTK";
    append(file, uint32_t{1});
    append(file, base::crc32c(body));
    return model::Artifact::parse(file + body);
}

}  // namespace parley::simulated
