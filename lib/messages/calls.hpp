// calls: calls of tools as a model writes them, in the format of Hermes 2 Pro, which ChatML and Qwen templates use:
//   <tool_call>\n{"name": NAME, "arguments": {…}}\n</tool_call>
//
// CallReader turns the text of an answer, as it is produced, into text and calls.
// Free     a call is given out when its JSON is whole and right: an object with the name of a known tool and
//          `arguments`, an object or absent, no key twice. What is not right stays text, markup and all. White
//          space around calls goes; so does text that is nothing else. Held back: white space at the end, what
//          may be the beginning of the marker, and a call that is not whole.
// Forced   the text is of the language that forced_call_open() begins (a grammar sees to it): its input is
//          given out as it comes.
// Cut      (max_tokens, a stop sequence) a call that is not whole is dropped; forced, its input was given out.
// Bounds   what is held is at most the answer. Looking again after a wrong call is quadratic in such calls.
// Threads  values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace parley::messages {

inline constexpr std::string_view kCallOpen = "<tool_call>";
inline constexpr std::string_view kCallClose = "</tool_call>";

// A forced answer: this, the input's JSON, and kForcedCallClose.
std::string forced_call_open(std::string_view tool_name);
inline constexpr std::string_view kForcedCallClose = "}";

// "toolu_" and a hash of request and block under `key`: an answer that is made again has the same ids.
std::string tool_use_id(uint64_t key, std::string_view request_id, uint32_t block);

struct AnswerPart {
    enum class Kind : uint8_t { text, call, input };
    Kind kind = Kind::text;
    std::string text;  // of a call: the tool's name
};

// Follows one JSON value byte by byte, far enough to see where it ends.
class JsonEnd {
  public:
    enum class Seen : uint8_t { more, end, wrong };  // end: with this byte
    Seen feed(char c);

  private:
    uint32_t depth_ = 0;
    bool string_ = false, escape_ = false;
};

class CallReader {
  public:
    enum class Mode : uint8_t { none, free, forced };  // none: everything is text

    CallReader() = default;
    // not `parallel`: after one call the answer is complete.
    CallReader(Mode mode, std::vector<std::string> tool_names, bool parallel);

    // Both append to `out`. Text is whole characters. After complete() nothing is looked at.
    void feed(std::string_view text, std::vector<AnswerPart>& out);
    // The answer is over; `cut`: not by the model's own end.
    void finish(bool cut, std::vector<AnswerPart>& out);
    uint32_t calls() const { return calls_; }
    bool complete() const { return complete_; }
    bool holding() const { return !held_.empty() || state_ == State::call; }

  private:
    enum class State : uint8_t { text, call, after, input };
    bool step(std::vector<AnswerPart>& out);
    bool read_text(std::vector<AnswerPart>& out);
    bool read_call(std::vector<AnswerPart>& out);
    bool read_forced(std::vector<AnswerPart>& out);
    bool parse(std::string_view json, std::vector<AnswerPart>& out);
    void not_a_call(std::vector<AnswerPart>& out);
    void say(std::string_view text, std::vector<AnswerPart>& out);

    Mode mode_ = Mode::none;
    std::vector<std::string> names_;
    bool parallel_ = true;
    State state_ = State::text;
    std::string held_;     // not decided yet; in State::call: behind the marker
    std::string space_;    // white space before the marker: text if it proves to be none
    size_t scanned_ = 0;   // of held_, in a call
    JsonEnd json_;
    uint32_t calls_ = 0;
    bool complete_ = false;
    bool trim_ = false;  // a call was the last thing: white space is not text yet
};

}  // namespace parley::messages
