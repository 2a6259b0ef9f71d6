// Titler: a title for a conversation that has none, once its first answer is there.
//
// By --titles  model: the conversation's own model makes it, at batch class, through the filter like any
//              answer; question: the beginning of the first message; off: none.
// Never        instead of a title that somebody gave, also meanwhile; a model's title that comes out empty, is
//              refused or does not come is the beginning of the question instead.
// Cost         charged to the org and the user as any request; limits are not asked.
// Bounds       kLiveMax at once, more get the beginning of the question; texts are cut to kTextMax bytes, a
//              title to kTitleMax.
// Threads      the loop's.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <unordered_set>

#include "app.hpp"
#include "pipe/message.hpp"
#include "store/rows.hpp"

namespace parley::chatd {

class Titler {
  public:
    static constexpr size_t kLiveMax = 16;
    static constexpr size_t kTextMax = 2000;
    static constexpr size_t kTitleMax = 60;

    explicit Titler(App& app) : app_(app) {}
    // An answer is durable. `like`: the envelope that it was asked with.
    void answered(const store::MessageRow& question, const store::MessageRow& answer,
                  const pipe::Envelope& like);
    void drain();  // makes no more; what runs is let go

  private:
    class Making;
    void give(const store::ConvRow& conv, std::string title);

    App& app_;
    std::unordered_set<std::string> making_;  // conversations
    std::unordered_set<std::shared_ptr<Making>> live_;
};

// What a model said, or a question, as a title: its first line that says something, without quotes, marks and
// "Title:", cut between words. "" when nothing is left.
std::string as_title(std::string_view text);

}  // namespace parley::chatd
