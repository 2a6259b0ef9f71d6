// Transfer: a user's conversations out of a store as lines, and into one from files.
//
// Lines    JSON Lines: {"type":"export","version":1,…}, then each conversation
//          {"type":"conversation","conversation":{row}} followed by its messages in order of their ids
//          {"type":"message","message":{row}}, at last {"type":"end","conversations":n,"messages":n}: without
//          it the file is cut. Rows are those of rows.hpp.
// Files    read_import takes such lines, a ChatGPT or a Claude data export (conversations.json).
// Bounds   an export holds the ids of the conversations (16 bytes each) and one page of messages; a reading
//          holds the file's text and one conversation.
// Errors   Errc::invalid names the file's place and what was expected there; what stood before it has been
//          handed out.
// Threads  one each.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "store/commands.hpp"
#include "store/reader.hpp"

namespace parley::store {

class UserExport {
  public:
    UserExport(Reader& reader, const Ulid& org, const Ulid& user)
        : reader_(reader), org_(org), user_(user) {}

    // Appends the next few lines; false when the last was among them. What is written while it runs may be
    // in it or not; each message once.
    Result<bool> next(std::string& out);

  private:
    Result<void> begin(std::string& out);

    Reader& reader_;
    const Ulid org_, user_;
    bool begun_ = false;
    std::vector<Ulid> convs_;
    size_t at_ = 0;
    bool inside_ = false;  // convs_[at_] was written, its messages are not all
    std::optional<Ulid> after_;
    uint64_t conversations_ = 0, messages_ = 0;
};

// A conversation as people read it.
std::string markdown_head(const ConvRow& conv);
std::string markdown_of(const MessageRow& message);

struct ImportCounts {
    uint64_t conversations = 0;
    uint64_t left_out = 0;  // parts that are no text: pictures, files, calls of tools
};
// Each conversation of the file, whole, in the order of the file; user and org are not set. Ids are the
// file's own where it is one of ours, else drawn from what the file says, so that the same file gives the
// same ids. `now_ms` bounds times.
Result<ImportCounts> read_import(std::string_view file, int64_t now_ms,
                                 const std::function<Result<void>(ConversationImport&)>& each);
// The same conversation under ids that belong to this user alone.
void draw_ids(ConversationImport& conversation, const Ulid& user, int64_t now_ms);
// Commands of at most about `bytes` each, to be said in order.
std::vector<ConversationImport> cut_import(const ConversationImport& whole, size_t bytes);

}  // namespace parley::store
