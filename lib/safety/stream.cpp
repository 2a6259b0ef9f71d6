#include "safety/stream.hpp"

#include <fmt/format.h>
#include <unicode/ubrk.h>
#include <unicode/utext.h>

#include <algorithm>

#include "base/text.hpp"
#include "safety/decode.hpp"

namespace parley::safety {
namespace {

constexpr size_t kWordBytesMax = 64;
constexpr size_t kLookBehind = 8192;  // rules are looked for from this far before what is held
constexpr size_t kCanonBytes = 1024;  // canonical views are made of this much
constexpr size_t kQuestionBytes = 1200;
constexpr size_t kGraphemeBehind = 128, kGraphemeAhead = 32;

bool word_byte(unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c >= 128 ||
           c == '\'';
}

size_t whole_character(std::string_view text, size_t at) {
    while (at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80) ++at;
    return at;
}

}  // namespace

OutputJudge::OutputJudge(std::shared_ptr<const Policy> policy, std::string_view question,
                         std::string_view released, Meter::Read cpu_ns, const base::Clock& clock)
    : policy_(std::move(policy)), cpu_(cpu_ns), clock_(&clock), marks_(1) {
    if (question.size() > kQuestionBytes)
        question = question.substr(whole_character(question, question.size() - kQuestionBytes));
    question_ = policy_->model().sums(question);
    if (released.empty()) return;
    if (auto added = append(released); !added) {
        failed_ = true;
        error_ = added.error();
        return;
    }
    text_released_ = word_end_ = text_.size();
    if (find_rules(false))
        blocked_ = true;
    else
        judge_now(false);
}

base::Result<Step> OutputJudge::stopped(base::Error error) {
    failed_ = true;
    error_ = error;
    return base::fail(std::move(error));
}

base::Result<void> OutputJudge::append(std::string_view text) {
    if (!base::utf8_valid(text))
        return base::fail(base::Errc::invalid, "answer is not valid UTF-8");
    if (text_.size() + text.size() > policy_->limits().bytes_max)
        return base::fail(base::Errc::too_large, fmt::format("answer is over the limit of {} bytes",
                                                             policy_->limits().bytes_max));
    fold_append(text, static_cast<uint32_t>(text_.size()), folded_);
    text_ += text;
    const Model& model = policy_->model();
    auto sink = [&](uint64_t hash) { model.add(hash, sums_, recent_.add(hash)); };
    // Strides end where Model::score() has them.
    while (scored_bytes_ < text_.size()) {
        const size_t room = Model::kStrideBytes - scored_bytes_ % Model::kStrideBytes;
        const size_t take = std::min(room, text_.size() - scored_bytes_);
        features_.push(std::string_view(text_).substr(scored_bytes_, take), sink);
        scored_bytes_ += take;
        if (scored_bytes_ % Model::kStrideBytes == 0) marks_.push_back(sums_);
    }
    return {};
}

// Records rules that match; true when the answer must stop.
bool OutputJudge::find_rules(bool at_end) {
    const RE2* any = policy_->output_any();
    if (!any) return false;
    const size_t part_max = policy_->hold().part_match_bytes;
    for (const std::string* text : {&text_, &folded_.text}) {
        size_t from = 0;
        if (text == &text_) {
            from = text_released_ > kLookBehind ? text_released_ - kLookBehind : 0;
        } else {
            const auto first = std::lower_bound(
                folded_.from.begin(), folded_.from.end(),
                static_cast<uint32_t>(text_released_ > kLookBehind ? text_released_ - kLookBehind
                                                                   : 0));
            from = static_cast<size_t>(first - folded_.from.begin());
        }
        from = whole_character(*text, from);
        const re2::StringPiece piece(text->data(), text->size());
        if (!any->Match(piece, from, text->size(), RE2::UNANCHORED, nullptr, 0)) continue;
        for (const Rule& rule : policy_->rules()) {
            if (!rule.output || rule.action == Action::allow) continue;
            re2::StringPiece match;
            if (!rule.re->Match(piece, from, text->size(), RE2::UNANCHORED, &match, 1)) continue;
            const bool open = !at_end &&
                              match.data() + match.size() == text->data() + text->size() &&
                              match.size() < part_max;
            if (open) continue;
            if (std::find(verdict_.rules.begin(), verdict_.rules.end(), rule.id) ==
                verdict_.rules.end())
                verdict_.rules.push_back(rule.id);
            if (rule.action > verdict_.action) {
                verdict_.action = rule.action;
                verdict_.reason = "rule";
            }
            if (rule.action == Action::block) {
                verdict_.score = 1;
                return true;
            }
        }
    }
    return false;
}

// First byte that may belong to a match still in the making; text_.size() if none.
size_t OutputJudge::match_frontier() const {
    size_t frontier = text_.size();
    const RE2* beginnings = policy_->beginnings();
    if (!beginnings) return frontier;
    const size_t part_max = policy_->hold().part_match_bytes;
    for (const std::string* text : {&text_, &folded_.text}) {
        const size_t from =
            whole_character(*text, text->size() > part_max ? text->size() - part_max : 0);
        re2::StringPiece match;
        if (!beginnings->Match(re2::StringPiece(text->data(), text->size()), from, text->size(),
                               RE2::UNANCHORED, &match, 1) ||
            match.empty())
            continue;
        const auto at = static_cast<size_t>(match.data() - text->data());
        frontier = std::min(frontier, text == &text_ ? at : static_cast<size_t>(folded_.from[at]));
    }
    return frontier;
}

void OutputJudge::judge_now(bool at_end) {
    judged_at_ = tokens_;
    ++judgements_;
    const Model& model = policy_->model();
    // The last word counts only once it is finished; finish a copy, so that the stream goes on.
    Sums now = sums_;
    FeatureStream copy = features_;
    copy.finish([&](uint64_t hash) { model.add(hash, now, !recent_.seen(hash)); });
    const Sums window = now - marks_[marks_.size() < 2 ? 0 : marks_.size() - 2];
    std::string_view end(text_);
    if (end.size() > kCanonBytes) end = end.substr(whole_character(end, end.size() - kCanonBytes));
    auto views = canonicalise(end, policy_->limits());
    HeadValues heads{};
    double score = 0, with_question = 0;
    bool over = false;
    Action action = Action::allow;
    Sums joined = now;
    for (size_t h = 0; h < kHeads; ++h) {
        joined.weight[h] += question_.weight[h];
        joined.fresh_weight[h] += question_.fresh_weight[h];
    }
    joined.count += question_.count;
    joined.fresh += question_.fresh;
    for (size_t h = 0; h < kHeads; ++h) {
        const auto head = static_cast<Head>(h);
        if (!policy_->uses(Voice::output, head)) continue;
        double z = std::max(model.z(head, now), model.z(head, window));
        if (views)
            for (size_t v = 1; v < views->size(); ++v)
                z = std::max(z, model.z(head, model.sums((*views)[v].text)));
        heads[h] = model.calibrated(head, z);
        score = std::max(score, heads[h]);
        smoothed_heads_[h] = judgements_ == 1 ? heads[h] : (smoothed_heads_[h] + heads[h]) / 2;
        with_question = std::max(with_question, model.calibrated(head, model.z(head, joined)));
        const Threshold& threshold = policy_->threshold(Voice::output, head);
        over |= (at_end ? std::max(heads[h], smoothed_heads_[h]) : smoothed_heads_[h]) >=
                threshold.block;
        if (heads[h] >= threshold.flag) action = std::max(action, Action::flag);
    }
    smoothed_ = *std::max_element(smoothed_heads_.begin(), smoothed_heads_.end());
    for (size_t h = 0; h < kHeads; ++h) verdict_.heads[h] = std::max(verdict_.heads[h], heads[h]);
    verdict_.score = std::max(verdict_.score, score);
    watching_ = std::max(smoothed_, with_question) >= policy_->hold().watch;
    over_ = over ? over_ + 1 : 0;
    if (over_ >= policy_->hold().windows || (at_end && over)) action = Action::block;
    if (action > verdict_.action) {
        verdict_.action = action;
        verdict_.reason = "score";
        verdict_.hazard = model.hazard(end);
    }
    if (action == Action::block) blocked_ = true;
}

bool OutputJudge::grapheme_boundary(size_t at) const {
    if (at == 0) return true;
    if (at >= text_.size()) return static_cast<unsigned char>(text_.back()) < 128;
    const auto next = static_cast<unsigned char>(text_[at]);
    const auto previous = static_cast<unsigned char>(text_[at - 1]);
    if (next < 128 && previous < 128) return !(previous == '\r' && next == '\n');
    size_t from = at > kGraphemeBehind ? at - kGraphemeBehind : 0;
    from = whole_character(text_, from);
    size_t to = std::min(text_.size(), at + kGraphemeAhead);
    while (to > at && to < text_.size() && (static_cast<unsigned char>(text_[to]) & 0xC0) == 0x80)
        --to;
    if (to == at) to = text_.size();
    UErrorCode status = U_ZERO_ERROR;
    UText text = UTEXT_INITIALIZER;
    utext_openUTF8(&text, text_.data() + from, static_cast<int64_t>(to - from), &status);
    // A break iterator is costly to make and not to be shared: one a thread.
    struct Closer {
        void operator()(UBreakIterator* p) const { ubrk_close(p); }
    };
    thread_local std::unique_ptr<UBreakIterator, Closer> iterator(
        ubrk_open(UBRK_CHARACTER, "", nullptr, 0, &status));
    bool boundary = false;  // when it cannot be known, it is not one
    if (U_SUCCESS(status) && iterator) {
        ubrk_setUText(iterator.get(), &text, &status);
        if (U_SUCCESS(status))
            boundary = ubrk_isBoundary(iterator.get(), static_cast<int32_t>(at - from));
    }
    utext_close(&text);
    return boundary;
}

Step OutputJudge::advance(bool at_end) {
    if (blocked_) {
        verdict_.action = Action::block;
        return {items_released_, true};
    }
    const Hold& hold = policy_->hold();
    if (at_end) {
        items_released_ = items_pushed_;
        text_released_ = text_.size();
        held_.clear();
        return {items_released_, false};
    }
    if (hold.all) {
        // What comes before all text may go: the reader learns that the answer has begun.
        while (!held_.empty() && held_.front().end == text_released_ && text_released_ == 0) {
            held_.pop_front();
            ++items_released_;
        }
        return {items_released_, false};
    }
    const uint64_t behind = watching_ ? hold.watch_tokens : hold.tokens;
    const size_t frontier = match_frontier();
    uint64_t tokens_allowed = tokens_;
    if (behind > 0) tokens_allowed = word_tokens_ > behind ? word_tokens_ - behind : 0;
    size_t count = 0, good = 0;
    size_t end = text_released_;
    for (const Item& item : held_) {
        if (item.end > text_released_ && (item.end > frontier || item.tokens > tokens_allowed ||
                                          (behind > 0 && item.end > word_end_)))
            break;
        ++count;
        if (item.end == end || grapheme_boundary(item.end)) {
            good = count;
            end = item.end;
        }
    }
    if (good > 0) {
        held_.erase(held_.begin(), held_.begin() + static_cast<std::ptrdiff_t>(good));
        items_released_ += good;
        text_released_ = std::max(text_released_, end);
    }
    return {items_released_, false};
}

base::Result<Step> OutputJudge::push(std::string_view text, uint32_t tokens) {
    if (failed_) return base::fail(error_);
    if (blocked_) return Step{items_released_, true};
    const Meter meter(policy_->budget(), 0, cpu_, *clock_);
    tokens_ += tokens;
    bool sentence = false;
    if (!text.empty()) {
        const size_t from = text_.size();
        if (auto added = append(text); !added) return stopped(added.error());
        for (size_t at = from; at < text_.size(); ++at) {
            const auto c = static_cast<unsigned char>(text_[at]);
            sentence |= c == '.' || c == '!' || c == '?' || c == '\n';
            if (!word_byte(c)) word_end_ = at + 1;
        }
        if (text_.size() - word_end_ > kWordBytesMax) word_end_ = text_.size();
    }
    held_.push_back(Item{text_.size(), tokens_});
    ++items_pushed_;
    // Tokens of the items that end at or before the last finished word.
    for (auto item = held_.rbegin(); item != held_.rend(); ++item)
        if (item->end <= word_end_) {
            word_tokens_ = std::max(word_tokens_, item->tokens);
            break;
        }
    if (!text.empty()) {
        if (find_rules(false))
            blocked_ = true;
        else if (sentence || tokens_ - judged_at_ >= policy_->hold().every_tokens)
            judge_now(false);
    }
    const Step step = advance(false);
    if (auto in_time = meter.check(); !in_time) {
        // Late is held: what this push released is taken back by telling nothing of it.
        return stopped(in_time.error());
    }
    return step;
}

base::Result<Step> OutputJudge::finish() {
    if (failed_) return base::fail(error_);
    if (blocked_) return Step{items_released_, true};
    const Meter meter(policy_->budget(), 0, cpu_, *clock_);
    if (find_rules(true))
        blocked_ = true;
    else if (!text_.empty())
        judge_now(true);
    if (auto in_time = meter.check(); !in_time) return stopped(in_time.error());
    return advance(true);
}

}  // namespace parley::safety
