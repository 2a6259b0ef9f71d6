// ChatTemplate: turns to token ids, as the model was trained to read them.
//
// Families chatml, gemma, llama3, zephyr: recognised by the Jinja text in the file and rendered
//          natively, no Jinja is run. A text of no known family, or none, is Errc::unsupported, and
//          names the override option.
//          `raw` is none: the turns' texts with an empty line between, for base models, only by the override.
// Text     the template's own markers become control tokens; everything inside a turn is plain text.
//          Zephyr's role markers ("<|user|>") are plain text in most of its vocabularies: there the
//          end of every turn, the EOS token, is what no text can forge.
// Gemma    has no system turn: as its template does, a system text and an empty line go before the
//          text of the user turn that follows. One that no user turn follows becomes one.
// Llama 3  of 3.1 and later: the file's own lines about dates lead the system turn, with the date that
//          stands in the file, so that a prompt is the same tomorrow.
// Spaces   Gemma and Llama 3 trim a turn's text as their templates do (Python's strip); of a prefill,
//          which goes on where it ends, only the front.
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
    // `jinja` is tokenizer.chat_template; `family` overrides the recognition ("chatml", "gemma", "llama3",
    // "zephyr", "raw"; "" = none).
    static base::Result<ChatTemplate> recognise(std::string_view jinja, std::string_view family);

    // Errc::unsupported if `tokenizer` lacks a marker of the family: ask once, before render().
    base::Result<void> fits(const Tokenizer& tokenizer) const;

    // The prompt's ids, ending where the assistant's new text begins. If the last turn is the
    // assistant's (a prefill), its turn is left open and generation goes on directly after its text.
    // Adds the model's default system turn exactly where the file's own template adds one, and BOS if the
    // vocabulary or the file's own template asks for it.
    std::vector<Token> render(const Tokenizer& tokenizer, std::span<const Turn> turns) const;
    std::string_view family() const { return family_; }
    std::string_view jinja() const { return jinja_; }
    // Spellings that end the assistant's turn; zephyr and raw have none: the vocabulary's
    // EOS does.
    std::vector<std::string> stop_markers() const;

  private:
    class Writer;
    void render_chatml(Writer& writer, std::span<const Turn> turns) const;
    void render_gemma(Writer& writer, std::span<const Turn> turns) const;
    void render_llama3(Writer& writer, std::span<const Turn> turns) const;
    void render_raw(Writer& writer, std::span<const Turn> turns) const;
    void render_zephyr(Writer& writer, std::span<const Turn> turns) const;

    std::string family_;
    std::string jinja_;
    std::string default_system_;  // chatml: "" = none
    std::string preamble_;        // llama3: what leads the system turn, "" = there need be none
    bool writes_bos_ = false;     // by itself, whatever the vocabulary's flag says
    bool trims_ = false;
};

}  // namespace parley::model
