#include "titler.hpp"

#include <algorithm>

#include "asking.hpp"
#include "base/json.hpp"
#include "base/log.hpp"
#include "base/text.hpp"
#include "charging.hpp"
#include "chat/replay.hpp"
#include "store/commands.hpp"

namespace parley::chatd {

namespace {

constexpr uint64_t kTokensMax = 24;
constexpr int64_t kTitleTimeMs = 120'000;  // it may wait behind everything else
constexpr int64_t kCommandMs = 10'000;
constexpr std::string_view kSystem =
    "You give conversations short titles of at most six words. Answer with the title alone.";

std::string cut(std::string_view text, size_t bytes_max) {
    if (text.size() <= bytes_max) return std::string(text);
    text = text.substr(0, bytes_max);
    return std::string(text.substr(0, base::utf8_complete_prefix(text)));
}

// Two conversations that have their titles, and the one that wants its own: small models follow examples where
// they do not follow orders.
std::string body_of(const std::string& model, const std::string& question,
                    const std::string& answer) {
    std::string out;
    base::JsonWriter w(out);
    w.object().field("model", model).field("max_tokens", kTokensMax).field("temperature", 0);
    w.field("system", kSystem).key("messages").array();
    const auto turn = [&](std::string_view role, const std::string& text) {
        w.object().field("role", role).field("content", text).end();
    };
    const auto ask = [&](const std::string& asked, const std::string& said) {
        turn("user", "Question: " + asked + "\nAnswer: " + said + "\n\nThe title?");
    };
    ask("how do i cook rice so that it does not stick?",
        "Rinse it, use two cups of water for one of rice, and let it rest.");
    turn("assistant", "Cooking rice that does not stick");
    ask("My python program prints None after every line. What is wrong?",
        "You print what a function returns that returns nothing.");
    turn("assistant", "Python program prints None");
    ask(cut(question, Titler::kTextMax), cut(answer, Titler::kTextMax));
    w.end().end();
    return out;
}

}  // namespace

std::string as_title(std::string_view text) {
    std::string line;
    while (!text.empty() && line.empty()) {
        const size_t end = std::min(text.find('\n'), text.size());
        std::string_view one = text.substr(0, end);
        text.remove_prefix(std::min(end + 1, text.size()));
        for (const std::string_view lead : {"Title:", "title:", "The title is"})
            if (const size_t at = one.find(lead); at != std::string_view::npos && at < 4)
                one.remove_prefix(at + lead.size());
        const auto mark = [](char c) {
            return std::string_view(" \t\r\"'`*#_").find(c) != std::string_view::npos;
        };
        while (!one.empty() && mark(one.front())) one.remove_prefix(1);
        while (!one.empty() && (mark(one.back()) || one.back() == '.')) one.remove_suffix(1);
        for (const char c : one) {
            const bool space = static_cast<unsigned char>(c) <= ' ';
            if (space && (line.empty() || line.back() == ' ')) continue;
            line += space ? ' ' : c;
        }
    }
    if (line.size() > Titler::kTitleMax) {
        constexpr std::string_view kMore = "\xe2\x80\xa6";
        line = cut(line, Titler::kTitleMax - kMore.size());
        if (const size_t space = line.rfind(' '); space != std::string::npos && space > 20)
            line.resize(space);
        line += kMore;
    }
    return line;
}

// One title that the model is asked for.
class Titler::Making final : public chat::AnswerHost,
                             public std::enable_shared_from_this<Making> {
  public:
    Making(Titler& titler, store::ConvRow conv, std::string fallback)
        : titler_(titler), conv_(std::move(conv)), fallback_(std::move(fallback)) {}

    bool start(const std::string& body, const pipe::Envelope& like) {
        App& app = titler_.app_;
        chat::AnswerOptions options;
        options.id = new_message_id();
        options.model = conv_.model.empty() ? "default" : conv_.model;
        options.body = body;
        options.key = app.stamp_key;
        options.ttft_ms = options.total_ms = kTitleTimeMs;
        options.patience_ms = app.options.patience_ms;
        options.stall_ms = app.options.stall_ms;
        pipe::Envelope& envelope = options.envelope;
        envelope.org = like.org;
        envelope.user = like.user;
        envelope.key = key_ = like.key;
        envelope.flow = like.flow;
        envelope.weight = like.weight;
        envelope.cls = pipe::Class::batch;
        envelope.message = options.id;
        envelope.seed = draw_seed();
        answer_ = std::make_shared<chat::Answer>(std::move(options), *app.hop, *this, app.clock);
        if (!app.answers.add(answer_, shared_from_this(), 0)) return false;
        answer_->start();
        return true;
    }

    void cancel() { answer_->abandon(messages::ApiError::unavailable("this server is stopping", 1)); }

    void on_checked(chat::Answer& answer, const chat::Checked&) override { answer.grant(); }

    void on_outcome(chat::Answer& answer, const chat::Outcome& outcome) override {
        const auto self = shared_from_this();
        store::Charge who;
        who.org = conv_.org;
        who.user = conv_.user;
        who.key_id = key_;
        charge(titler_.app_, std::move(who), answer, outcome);
        std::string title;
        if (outcome.status == chat::Outcome::Status::done)
            title = as_title(chat::text_of(answer.folder().content_json()));
        const bool made = !title.empty();
        base::log(base::Level::debug, "chatd.title",
                  {{"conversation", store::show_id(store::kConv, conv_.id)},
                   {"status", chat::name(outcome.status)},
                   {"error", outcome.error.message},
                   {"made", made ? "model" : "question"}});
        titler_.give(conv_, made ? title : fallback_);
        if (outcome.status == chat::Outcome::Status::done)
            answer.close();
        else
            answer.fail(outcome.error);
        titler_.live_.erase(self);
    }

  private:
    Titler& titler_;
    store::ConvRow conv_;
    std::string fallback_, key_;
    std::shared_ptr<chat::Answer> answer_;
};

void Titler::answered(const store::MessageRow& question, const store::MessageRow& answer,
                      const pipe::Envelope& like) {
    if (app_.options.titles == "off" || app_.draining || answer.status != "done") return;
    store::Reader* reader = app_.store->reader();
    const auto org = store::parse_id(store::kOrg, like.org);
    const auto user = store::parse_id(store::kUser, like.user);
    if (!reader || !org || !user) return;
    const auto conv = reader->conversation(*org, *user, answer.conv);
    if (!conv || !conv->title.empty()) return;
    const std::string id = store::show_id(store::kConv, conv->id);
    if (making_.count(id)) return;
    const std::string asked = chat::text_of(question.content);
    std::string fallback = as_title(asked);
    if (app_.options.titles == "question" || live_.size() >= kLiveMax)
        return give(*conv, std::move(fallback));
    making_.insert(id);
    const auto making = std::make_shared<Making>(*this, *conv, fallback);
    live_.insert(making);
    const std::string model = conv->model.empty() ? "default" : conv->model;
    if (!making->start(body_of(app_.catalog->below(model), asked, chat::text_of(answer.content)), like)) {
        live_.erase(making);
        give(*conv, std::move(fallback));
    }
}

void Titler::give(const store::ConvRow& conv, std::string title) {
    making_.erase(store::show_id(store::kConv, conv.id));
    store::Reader* reader = app_.store->reader();
    if (title.empty() || !reader) return;
    const auto now = reader->conversation(conv.org, conv.user, conv.id);
    if (!now || !now->title.empty()) return;
    store::ConversationUpdate command{conv.org, conv.user, conv.id};
    command.rev = now->rev;  // whoever names it in this moment is right
    command.title = std::move(title);
    (void)app_.store->submit(command.json(), [](const store::CommandReply&) {}, kCommandMs);
}

void Titler::drain() {
    const auto live = live_;
    for (const auto& making : live) making->cancel();
}

}  // namespace parley::chatd
