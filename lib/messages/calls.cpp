#include "messages/calls.hpp"

#include <sodium.h>

#include <algorithm>

#include "base/text.hpp"
#include "messages/json_read.hpp"

namespace parley::messages {
namespace {

constexpr std::string_view kSpace = " \t\r\n";
constexpr std::string_view kForcedName = "\n{\"name\": \"";
constexpr std::string_view kForcedArguments = "\", \"arguments\": ";
// So much of the marker at the end of an answer that was cut is no word of the model's.
constexpr size_t kMarkerSeen = 6;

// The longest end of `text` that a marker may begin with.
size_t begun(std::string_view text, std::string_view marker) {
    for (size_t n = std::min(text.size(), marker.size() - 1); n > 0; --n)
        if (text.substr(text.size() - n) == marker.substr(0, n)) return n;
    return 0;
}

}  // namespace

std::string forced_call_open(std::string_view tool_name) {
    std::string out(kCallOpen);
    return out.append(kForcedName).append(tool_name).append(kForcedArguments);
}

std::string tool_use_id(uint64_t key, std::string_view request_id, uint32_t block) {
    uint8_t secret[16] = {};
    uint8_t number[4];
    for (int i = 0; i < 8; ++i) secret[i] = static_cast<uint8_t>(key >> (8 * i));
    for (int i = 0; i < 4; ++i) number[i] = static_cast<uint8_t>(block >> (8 * i));
    crypto_generichash_state state;
    crypto_generichash_init(&state, secret, sizeof secret, 16);
    crypto_generichash_update(&state, number, sizeof number);
    crypto_generichash_update(&state, reinterpret_cast<const unsigned char*>(request_id.data()),
                              request_id.size());
    unsigned char hash[16];
    crypto_generichash_final(&state, hash, sizeof hash);
    return "toolu_" + base::hex({reinterpret_cast<const char*>(hash), 12});
}

JsonEnd::Seen JsonEnd::feed(char c) {
    if (string_) {
        if (escape_)
            escape_ = false;
        else if (c == '\\')
            escape_ = true;
        else if (c == '"')
            string_ = false;
        else if (static_cast<unsigned char>(c) < 0x20)
            return Seen::wrong;
        return Seen::more;
    }
    if (kSpace.find(c) != std::string_view::npos) return Seen::more;
    if (depth_ == 0 && c != '{') return Seen::wrong;
    if (c == '{' || c == '[') {
        ++depth_;
    } else if (c == '}' || c == ']') {
        if (--depth_ == 0) return Seen::end;
    } else if (c == '"') {
        string_ = true;
    } else if (std::string_view(":,+-.0123456789Eaeflnrstu").find(c) == std::string_view::npos) {
        return Seen::wrong;
    }
    return Seen::more;
}

CallReader::CallReader(Mode mode, std::vector<std::string> tool_names, bool parallel)
    : mode_(mode), names_(std::move(tool_names)), parallel_(parallel) {}

void CallReader::say(std::string_view text, std::vector<AnswerPart>& out) {
    if (!text.empty()) out.push_back({AnswerPart::Kind::text, std::string(text)});
}

void CallReader::feed(std::string_view text, std::vector<AnswerPart>& out) {
    if (complete_) return;
    if (mode_ == Mode::none) return say(text, out);
    held_ += text;
    while (!complete_ && step(out)) {
    }
}

// False: more text is needed.
bool CallReader::step(std::vector<AnswerPart>& out) {
    switch (state_) {
        case State::text:
            return mode_ == Mode::forced ? read_forced(out) : read_text(out);
        case State::call:
            return read_call(out);
        case State::input: {
            for (size_t i = 0; i < held_.size(); ++i) {
                if (json_.feed(held_[i]) == JsonEnd::Seen::more) continue;
                complete_ = true;
                held_.resize(i + 1);
            }
            if (!held_.empty()) out.push_back({AnswerPart::Kind::input, held_});
            held_.clear();
            return false;
        }
        case State::after: {
            const size_t from = held_.find_first_not_of(kSpace);
            if (from == std::string::npos) return false;
            const std::string_view rest = std::string_view(held_).substr(from);
            if (rest.size() < kCallClose.size() && kCallClose.starts_with(rest)) return false;
            held_.erase(0, rest.starts_with(kCallClose) ? from + kCallClose.size() : from);
            state_ = State::text;
            trim_ = true;
            return true;
        }
    }
    return false;
}

bool CallReader::read_text(std::vector<AnswerPart>& out) {
    if (trim_) held_.erase(0, std::min(held_.find_first_not_of(kSpace), held_.size()));
    trim_ = trim_ && held_.empty();
    const size_t marker = held_.find(kCallOpen);
    const size_t end = marker != std::string::npos ? marker : held_.size() - begun(held_, kCallOpen);
    const size_t word = std::string_view(held_).substr(0, end).find_last_not_of(kSpace);
    const size_t ready = word == std::string::npos ? 0 : word + 1;
    say(std::string_view(held_).substr(0, ready), out);
    if (marker == std::string::npos) {
        held_.erase(0, ready);
        return false;
    }
    space_ = held_.substr(ready, marker - ready);
    held_.erase(0, marker + kCallOpen.size());
    state_ = State::call;
    scanned_ = 0;
    json_ = {};
    return true;
}

bool CallReader::read_call(std::vector<AnswerPart>& out) {
    while (scanned_ < held_.size()) {
        const JsonEnd::Seen seen = json_.feed(held_[scanned_++]);
        if (seen == JsonEnd::Seen::more) continue;
        if (seen == JsonEnd::Seen::end && parse(std::string_view(held_).substr(0, scanned_), out)) {
            held_.erase(0, scanned_);
            state_ = State::after;
            return true;
        }
        not_a_call(out);
        return true;
    }
    return false;
}

// The marker was a word of the text; behind it another may stand.
void CallReader::not_a_call(std::vector<AnswerPart>& out) {
    say(space_ + std::string(kCallOpen), out);
    state_ = State::text;
}

bool CallReader::parse(std::string_view text, std::vector<AnswerPart>& out) {
    json::dom::parser parser;
    const simdjson::padded_string padded(text);
    json::dom::element root;
    json::dom::object call;
    if (parser.parse(padded).get(root) || root.get(call) || json::duplicate_key(root)) return false;
    const auto name = json::text_member(call, "name");
    if (!name || std::find(names_.begin(), names_.end(), *name) == names_.end()) return false;
    std::string input = "{}";
    json::dom::element arguments;
    if (!call.at_key("arguments").get(arguments)) {
        if (!arguments.is_object()) return false;
        // As the model wrote it: numbers of another's precision are not ours to round.
        simdjson::ondemand::parser again;
        simdjson::ondemand::document document;
        simdjson::ondemand::object object;
        std::string_view raw;
        if (again.iterate(padded).get(document) ||
            document["arguments"].get_object().get(object) || object.raw_json().get(raw))
            return false;
        input = raw.substr(0, raw.find_last_of('}') + 1);
    }
    out.push_back({AnswerPart::Kind::call, std::string(*name)});
    out.push_back({AnswerPart::Kind::input, std::move(input)});
    ++calls_;
    complete_ = !parallel_;
    return true;
}

bool CallReader::read_forced(std::vector<AnswerPart>& out) {
    const size_t name = kCallOpen.size() + kForcedName.size();
    const size_t end = held_.size() > name ? held_.find('"', name) : std::string::npos;
    if (end == std::string::npos || held_.size() < end + kForcedArguments.size()) return false;
    out.push_back({AnswerPart::Kind::call, held_.substr(name, end - name)});
    ++calls_;
    held_.erase(0, end + kForcedArguments.size());
    json_ = {};
    state_ = State::input;
    return true;
}

void CallReader::finish(bool cut, std::vector<AnswerPart>& out) {
    if (complete_ || mode_ != Mode::free) return;
    while (state_ == State::call && !cut) {
        not_a_call(out);
        while (step(out)) {
        }
    }
    if (state_ != State::text) return;
    const size_t marker = begun(held_, kCallOpen);
    if (cut && marker >= kMarkerSeen) held_.resize(held_.size() - marker);
    // What stands before it was text already, or this is all: white space alone is nothing.
    if (held_.find_first_not_of(kSpace) != std::string::npos) say(held_, out);
    held_.clear();
}

}  // namespace parley::messages
