// ChatTemplate: turns to token ids, as the model was trained to read them.
//
// Families ChatML now (Gemma, Llama-3, Zephyr with a later issue), recognised by the Jinja text in
//          the file and rendered natively: no Jinja is run. A text of no known family is
//          Errc::unsupported, and names the override option.
// Text     the template's own markers become control tokens; everything inside a turn is plain text.
// Threads  immutable; any.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.hpp"
#include "model/tokenizer.hpp"

namespace parley::model {

enum class Role { system, user, assistant };

struct Turn {
    Role role = Role::user;
    std::string text;
};

class ChatTemplate {
  public:
    // `jinja` is tokenizer.chat_template; `family` overrides the recognition ("chatml", …; "" = none).
    static base::Result<ChatTemplate> recognise(std::string_view jinja, std::string_view family);

    // Errc::unsupported if `tokenizer` lacks a marker of the family: ask once, before render().
    base::Result<void> fits(const Tokenizer& tokenizer) const;

    // The prompt's ids, ending where the assistant's new text begins. If the last turn is the
    // assistant's (a prefill), its turn is left open and generation goes on directly after its text.
    // Adds the model's default system turn exactly where the file's own template adds one, and BOS if the
    // vocabulary asks for it.
    std::vector<Token> render(const Tokenizer& tokenizer, std::span<const Turn> turns) const;
    std::string_view family() const { return family_; }
    std::string_view jinja() const { return jinja_; }
    std::vector<std::string> stop_markers() const;  // spellings that end the assistant's turn

  private:
    std::string family_;
    std::string jinja_;
    std::string default_system_;  // "" = none
};

}  // namespace parley::model
